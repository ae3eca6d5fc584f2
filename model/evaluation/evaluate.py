"""Evaluates a checkpoint on a table of posts, from file to folder: what `sitrep evaluate` runs. Trains nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.classifier import RationaleClassifier
from model.data.labelled_posts import Choice, read_posts
from model.data.labels import read_label_map
from model.data.table_file import read_table
from model.errors import ModelError
from model.evaluation import faithfulness, report, summary
from model.evaluation.judging import Effort, judge
from model.evaluation.metrics import metrics
from model.evaluation.views import for_task, tasks_of

if TYPE_CHECKING:
    from model.joint.classifier import JointClassifier

# what a run adds to the summary under a key, and where that stands in its metrics
_CLASSIFIED = {"accuracy": "accuracy", "macro_f1": "macro_f1"}
_BASELINES = {
    f"{measure}.{name}": f"rationales.baselines.{name}.{measure}"
    for measure in ("token_f1", "auprc")
    for name in ("all_words", "random_words", "first_words")
}
_ADDED: Mapping[str, Mapping[str, str]] = {
    "unconstrained": {"accuracy": "views.full.accuracy", "macro_f1": "views.full.macro_f1"},
    **{name: {"macro_f1": f"views.{name}.macro_f1"} for name in ("text_rationale_only", "image_rationale_only")},
    **{name: {"": f"explanation.{name}"} for name in ("macro_f1_drop", "comprehensiveness", "sufficiency", "aopc")},
    "rationale_nepal_to_hagupit": {"token_f1": "token_f1", "iou_f1": "iou_f1", "auprc": "auprc", **_BASELINES},
    "selected": {"words": "selected.words_humanitarian", "patches": "selected.patches_humanitarian"},
    "image_faithfulness": {"gain_over_rise": "image_faithfulness.gain_over_rise"},
    "calibration": {"ece": "ece"},
}


class NothingToAdd(ModelError):
    """The runs have no such figure; the message names it and the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One table, which of its rows, and what is asked of them."""

    data: Path
    images: Path | None
    label_map: Path | None
    choice: Choice
    effort: Effort = field(default_factory=Effort)
    faithful: faithfulness.Settings | None = None


def evaluate(classifier: RationaleClassifier | JointClassifier, request: Request, out: Path) -> dict[str, Any]:
    """Judges the chosen posts, writes the folder and returns what stands in its `metrics.json`."""
    tasks = tasks_of(classifier)
    label_map = read_label_map(request.label_map, tasks) if request.label_map is not None else None
    table = read_table(request.data)
    found = read_posts(table, tasks, request.choice, images=request.images, label_map=label_map)
    classes = tasks[found.task]
    judged = judge(for_task(classifier, found.task), found.posts, request.effort)
    made: dict[str, Any] = {
        "task": found.task,
        "checkpoint": {"name": classifier.name, "version": classifier.version, "digest": classifier.digest},
        "data": {
            "file": request.data.name,
            "digest": f"sha256:{hashlib.sha256(request.data.read_bytes()).hexdigest()}",
            "columns": found.columns,
            "where": dict(request.choice.where),
            "limit": request.choice.limit,
            "modality": request.choice.modality,
            "notes": list(found.notes),
        },
    }
    made |= metrics(judged, classes)
    if request.faithful is not None:
        made["image_faithfulness"] = faithfulness.measure(classifier, found.posts, request.faithful)
    report.write(out, judged, made, classes)
    return made


def add_to_summary(path: Path, prefix: str, runs: Sequence[Mapping[str, Any]], protocol: str) -> list[str]:
    """Puts what the runs measured for a key, or for all figures that begin with it, into the summary; returns the keys.

    All or none: raises `NothingToAdd` when a run has no such figure.
    """
    wanted = keys_of(prefix)
    found = {key: [_lookup(run, where, key) for run in runs] for key, where in wanted.items()}
    for key, where in wanted.items():
        summary.add(path, key, found[key], min(_rows(run, where) for run in runs), protocol)
    return list(found)


def keys_of(prefix: str) -> dict[str, str]:
    """The summary's keys that begin with it, and where a run's metrics have them; raises `InvalidFigure` for others."""
    keys = {
        f"{prefix}.{suffix}" if suffix else prefix: where for suffix, where in _ADDED.get(prefix, _CLASSIFIED).items()
    }
    for key in keys:
        summary.check_key(key)
    return keys


def _lookup(run: Mapping[str, Any], where: str, key: str) -> float:
    value: Any = run
    for part in where.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if not isinstance(value, float):
        raise NothingToAdd(
            f"this evaluation has no {where}, so nothing for {key}: give a table with labels, rationales or images, and"
            " --explain or --faithful where the figure needs it"
        )
    return value


def _rows(run: Mapping[str, Any], where: str) -> int:
    """How many rows a figure was measured on."""
    if where in ("token_f1", "iou_f1", "auprc") or where.startswith("rationales."):
        return int(run["rationales"]["n"])
    if where.startswith(("explanation.", "image_faithfulness.")) and where != "explanation.macro_f1_drop":
        return int(run[where.split(".")[0]]["n"])
    return int(run["n"] or run["rows"])
