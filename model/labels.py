"""Recognises other people's label names and merges them to the checkpoint's classes; guesses nothing."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from model.data import MERGED
from model.errors import ModelError

# tasks of CrisisMMD that a checkpoint needs a head of its own for
_OTHER_TASKS = {
    "informative": frozenset({"informative", "not_informative"}),
    "damage severity": frozenset(
        {"severe_damage", "mild_damage", "little_or_no_damage", "severe", "mild", "little_or_none"}
    ),
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
KNOWN: Mapping[str, str] = MERGED | _DMD | _CRISISNLP
_IGNORED = frozenset({"", "ignore", "none"})
_MAP_LINES = 'write lines like `their_label = "our_class"`'


class UnknownLabel(ModelError):
    """A label that merges to no class of the checkpoint; the message names it and the fix."""


def normal(name: str) -> str:
    """Lower case with underscores, so that "Not humanitarian" is `not_humanitarian`."""
    return re.sub(r"[\s\-/]+", "_", name.strip().lower())


def class_indices(names: Sequence[str], classes: Sequence[str], own: Mapping[str, str] | None = None) -> list[int]:
    """Where each label stands in the checkpoint's classes; -1 for rows without one, or that the map ignores.

    `own` is the user's map and wins over the known names. Names and classes of `own` are normalised already.
    """
    merged = {name: target for name, target in KNOWN.items() if target in classes} | dict(own or {})
    merged |= {name: name for name in classes if name not in merged}
    _check(names, merged)
    return [-1 if merged.get(normal(name), "") in _IGNORED else classes.index(merged[normal(name)]) for name in names]


def read_label_map(path: Path, classes: Sequence[str]) -> dict[str, str]:
    """A TOML or JSON table from their labels to our classes; "ignore" leaves a label's rows unscored."""
    text = path.read_text(encoding="utf-8-sig")
    try:
        values = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise UnknownLabel(
            f'{path} is neither TOML nor JSON ({error}): write lines like `their_label = "our_class"`'
        ) from error
    if not isinstance(values, dict) or not values:
        raise UnknownLabel(f"{path} maps no label: {_MAP_LINES}")
    made: dict[str, str] = {}
    for name, value in values.items():
        target = normal(value) if isinstance(value, str) else None
        if target is not None:
            target = target if target in classes or target in _IGNORED else KNOWN.get(target)
        if target is None or (target not in _IGNORED and target not in classes):
            raise UnknownLabel(f"{path} maps {name!r} to {value!r}: give one of {', '.join(classes)}, or ignore")
        made[normal(name)] = target
    return made


def _check(names: Sequence[str], merged: Mapping[str, str]) -> None:
    unknown = Counter(name for name in names if normal(name) and normal(name) not in merged)
    for name, count in unknown.most_common(1):
        rows = f"{count} {'rows have' if count > 1 else 'row has'} the"
        for task, labels in _OTHER_TASKS.items():
            if normal(name) in labels:
                raise UnknownLabel(
                    f"{rows} label {name!r} of the task {task!r}: this checkpoint decides humanitarian classes only,"
                    " so give a column with those (--column label=NAME) or a --label-map"
                )
        near = difflib.get_close_matches(normal(name), merged, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise UnknownLabel(f"{rows} unknown label {name!r}{hint}: say what it is with --label-map")
