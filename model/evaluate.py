"""Evaluates a checkpoint on a table of posts, from file to folder: what `sitrep evaluate` runs. Trains nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model import evaluation_report, faithfulness, summary
from model.classifier import RationaleClassifier
from model.errors import ModelError
from model.evaluation import Effort, judge
from model.evaluation_metrics import metrics
from model.labelled_posts import Choice, read_posts
from model.labels import read_label_map
from model.table_file import read_table

# what a run adds to the summary, by the figure's first word; the rest report accuracy and Macro-F1
_ADDED = {
    "rationale_nepal_to_hagupit": ("token_f1", "iou_f1", "auprc"),
    "image_faithfulness": ("image_faithfulness.gain_over_rise",),
}
_CLASSIFIED = ("accuracy", "macro_f1")


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


def evaluate(classifier: RationaleClassifier, request: Request, out: Path) -> dict[str, Any]:
    """Judges the chosen posts, writes the folder and returns what stands in its `metrics.json`."""
    classes = classifier.classes
    label_map = read_label_map(request.label_map, classes) if request.label_map is not None else None
    table = read_table(request.data)
    found = read_posts(table, classes, request.choice, images=request.images, label_map=label_map)
    judged = judge(classifier, found.posts, request.effort)
    made: dict[str, Any] = {
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
    evaluation_report.write(out, judged, made, classes)
    return made


def add_to_summary(path: Path, prefix: str, runs: list[dict[str, Any]], protocol: str) -> list[str]:
    """Puts the runs' figures into the summary under `PREFIX.figure`, and returns the keys."""
    names = _ADDED.get(prefix.split(".")[0], _CLASSIFIED)
    keys = {name: name if name.startswith(prefix) else f"{prefix}.{name}" for name in names}
    for key in keys.values():
        summary.check_key(key)
    values = {name: [_lookup(run, name) for run in runs] for name in names}
    missing = [name for name, found in values.items() if None in found]
    if missing:
        raise NothingToAdd(f"the evaluation has no {missing[0]}: {prefix!r} needs a table with labels or rationales")
    for name, key in keys.items():
        rows = min(_rows(run, name) for run in runs)
        summary.add(path, key, [value for value in values[name] if value is not None], rows, protocol)
    return list(keys.values())


def _lookup(run: Mapping[str, Any], name: str) -> float | None:
    value: Any = run
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value if isinstance(value, float) else None


def _rows(run: Mapping[str, Any], name: str) -> int:
    if name in ("token_f1", "iou_f1", "auprc"):
        return int(run["rationales"]["n"])
    return int(run["image_faithfulness"]["n"] if name.startswith("image_faithfulness") else run["n"])
