"""Recognises other people's label names: which task, and which of the checkpoint's classes; guesses nothing."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from model.errors import ModelError
from model.records import CLASSES, HUMANITARIAN

Tasks = Mapping[str, Sequence[str]]  # the checkpoint's tasks and their classes, in its order

# finer labels of CrisisMMD, MEDIC, HumAID and the rationale tweets, merged to our five classes
MERGED = {name: name for name in CLASSES} | {
    "injured_or_dead_people": "affected_individuals",
    "missing_or_found_people": "affected_individuals",
    "vehicle_damage": "infrastructure_and_utility_damage",
    "affected_injured_or_dead_people": "affected_individuals",
    "affected_people_and_evacuations": "affected_individuals",
    "infrastructure_and_utilities_damage": "infrastructure_and_utility_damage",
    "rescue_volunteering_and_donation_effort": "rescue_volunteering_or_donation_effort",
    "other_useful_information": "other_relevant_information",
    "caution_and_advice": "other_relevant_information",
    "not_related_or_irrelevant": "not_humanitarian",
    "displaced_people_and_evacuations": "affected_individuals",
    "requests_or_urgent_needs": "rescue_volunteering_or_donation_effort",
    "sympathy_and_support": "not_humanitarian",
}
# the Damage Multimodal Dataset's own folders (Mouzannar et al. 2018)
_DMD = {
    "damaged_infrastructure": "infrastructure_and_utility_damage",
    "damaged_nature": "infrastructure_and_utility_damage",
    "fires": "infrastructure_and_utility_damage",
    "flood": "infrastructure_and_utility_damage",
    "human_damage": "affected_individuals",
    "non_damage": "not_humanitarian",
}
# CrisisNLP's finer names
_CRISISNLP = {
    "missing_trapped_or_found_people": "affected_individuals",
    "donation_needs_or_offers_or_volunteering_services": "rescue_volunteering_or_donation_effort",
    "sympathy_and_emotional_support": "not_humanitarian",
}
# names of each task's classes, CrisisMMD's and those that merge to them
KNOWN: Mapping[str, Mapping[str, str]] = {
    HUMANITARIAN: MERGED | _DMD | _CRISISNLP,
    "informative": {name: name for name in ("informative", "not_informative")},
    "damage": {
        **{name: name for name in ("severe_damage", "mild_damage", "little_or_no_damage")},
        "severe": "severe_damage",
        "mild": "mild_damage",
        "little_or_none": "little_or_no_damage",
    },
}
_IGNORED = frozenset({"", "ignore", "none"})
_MAP_LINES = 'write lines like `their_label = "our_class"`'


class UnknownLabel(ModelError):
    """A label that is no class of the checkpoint; the message names it and the fix."""


def normal(name: str) -> str:
    """A label in lower case with underscores, so that "Not humanitarian" is `not_humanitarian`."""
    return re.sub(r"[\s\-/]+", "_", name.strip().lower())


def class_index(name: str) -> int:
    """Where the class that the label merges to stands in CLASSES; a KeyError for one of no known table."""
    return CLASSES.index(MERGED[name])


def class_indices(names: Sequence[str], tasks: Tasks, own: Mapping[str, str] | None = None) -> tuple[str, list[int]]:
    """The task that the labels are of, and where each stands in its classes; -1 for rows without a label to score.

    `own` is the user's map and wins over the known names; what it maps to says which task is meant. Without any
    label the task is the humanitarian one.
    """
    merged = {task: _names(task, classes, own or {}) for task, classes in tasks.items()}
    used = {normal(name) for name in names} - _IGNORED
    fits = [task for task in tasks if all(name in merged[task] for name in used)]
    if not fits:
        raise UnknownLabel(_complaint(names, merged))
    task = fits[0]
    found = [merged[task].get(normal(name), "") for name in names]
    return task, [-1 if target in _IGNORED else list(tasks[task]).index(target) for target in found]


def read_label_map(path: Path, tasks: Tasks) -> dict[str, str]:
    """A TOML or JSON table from their labels to our classes; "ignore" leaves a label's rows unscored."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        values = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise UnknownLabel(f"{path} is neither TOML nor JSON ({error}): {_MAP_LINES}") from error
    if not isinstance(values, dict) or not values:
        raise UnknownLabel(f"{path} maps no label: {_MAP_LINES}")
    classes = [name for names in tasks.values() for name in names]
    known = {name: target for task in tasks for name, target in KNOWN.get(task, {}).items() if target in classes}
    made: dict[str, str] = {}
    for name, value in values.items():
        target = normal(value) if isinstance(value, str) else "?"
        target = target if target in classes or target in _IGNORED else known.get(target, "?")
        if target == "?":
            raise UnknownLabel(f"{path} maps {name!r} to {value!r}: give one of {', '.join(classes)}, or ignore")
        made[normal(name)] = target
    return made


def _names(task: str, classes: Sequence[str], own: Mapping[str, str]) -> dict[str, str]:
    merged = {name: target for name, target in KNOWN.get(task, {}).items() if target in classes}
    merged |= {name: name for name in classes}
    overruled = {name: target for name, target in own.items() if target in classes or target in _IGNORED}
    return {name: target for name, target in merged.items() if name not in own} | overruled


def _complaint(names: Sequence[str], merged: Mapping[str, Mapping[str, str]]) -> str:
    """What to say of the commonest label that no task of the checkpoint has, or of two that are of different tasks."""
    everything = {name: target for task in merged.values() for name, target in task.items()}
    counts = Counter(name for name in names if normal(name) not in _IGNORED)
    unknown = [(name, count) for name, count in counts.most_common() if normal(name) not in everything]
    if not unknown:
        return f"the labels are of several tasks ({', '.join(merged)}): keep the rows of one with --where"
    name, count = unknown[0]
    rows = f"{count} {'rows have' if count > 1 else 'row has'} the"
    for task, known in KNOWN.items():
        if normal(name) in known:
            return (
                f"{rows} label {name!r} of the task {task!r}: this checkpoint decides {' and '.join(merged)} only, so"
                " name a column with such labels (--column label=NAME) or give a --label-map"
            )
    near = difflib.get_close_matches(normal(name), everything, n=1)
    hint = f", did you mean {near[0]}?" if near else ""
    return f"{rows} unknown label {name!r}{hint}: say what it is with --label-map"
