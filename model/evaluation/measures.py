"""Scores of predictions against labels; plain arrays in, plain numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, precision_recall_fscore_support

from model.records import CLASSES

Probs = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Rows of like confidence in their top label."""

    confidence: float  # mean
    accuracy: float
    share: float  # of all rows


def classification(labels: Labels, probs: Probs, classes: Sequence[str] = CLASSES) -> dict[str, object]:
    """Accuracy, macro, weighted and per-class scores, and the calibration error, of (N, C) probabilities.

    The macro average is over every class that is a label or a prediction of some row, as scikit-learn has it.
    """
    predicted = probs.argmax(1)
    every = list(range(len(classes)))
    columns = precision_recall_fscore_support(labels, predicted, labels=every, average=None, zero_division=0.0)
    names = ("precision", "recall", "f1")
    per_class = {
        name: dict(zip(names, map(float, row[:3]), strict=True)) | {"n": int(row[3])}
        for name, row in zip(classes, zip(*columns, strict=True), strict=True)
    }
    return {
        "n": len(labels),
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0.0)),
        "weighted_f1": float(f1_score(labels, predicted, average="weighted", zero_division=0.0)),
        "per_class": per_class,
        "per_class_f1": {name: scores["f1"] for name, scores in per_class.items()},
        "ece": calibration_error(labels, probs),
    }


def calibration_error(labels: Labels, probs: Probs, n_bins: int = 10) -> float:
    """Expected calibration error of the top label over equal-width bins."""
    return float(sum(abs(b.confidence - b.accuracy) * b.share for b in reliability(labels, probs, n_bins)))


def reliability(labels: Labels, probs: Probs, n_bins: int = 10) -> list[Bin]:
    """Confidence and accuracy of the top label over equal-width bins; empty bins are left out."""
    confidence, hit = probs.max(1), probs.argmax(1) == labels
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    return [
        Bin(
            confidence=float(confidence[bins == b].mean()),
            accuracy=float(hit[bins == b].mean()),
            share=float((bins == b).mean()),
        )
        for b in np.unique(bins)
    ]


def probability_drop(full: Probs, shown: Probs) -> float:
    """Mean loss of the class that the full input gets, of (N, 5) probabilities of the same rows shown otherwise."""
    rows = np.arange(len(full))
    return float((full - shown)[rows, full.argmax(1)].mean())


def token_f1(marked: Sequence[bool], selected: Sequence[bool]) -> float:
    """F1 of one post's selected words against the words people marked."""
    both = sum(a and b for a, b in zip(marked, selected, strict=True))
    total = sum(marked) + sum(selected)
    return 2.0 * both / total if total else 1.0


def iou_matches(marked: Sequence[bool], selected: Sequence[bool], threshold: float = 0.5) -> tuple[float, float]:
    """ERASER's partial match of one post, (precision, recall): a run of selected words matches a run of marked ones
    when their words in common are at least half of their words in all.
    """
    people, model = _runs(marked), _runs(selected)
    hits = sum(any(_iou(run, other) >= threshold for other in people) for run in model)
    found = sum(any(_iou(run, other) >= threshold for other in model) for run in people)
    return hits / len(model) if model else 0.0, found / len(people) if people else 0.0


def f1(precision: float, recall: float) -> float:
    """Their harmonic mean, 0 when both are 0."""
    return 2.0 * precision * recall / (precision + recall) if precision + recall else 0.0


def auprc(marked: Sequence[bool], scores: Sequence[float]) -> float:
    """Average precision of one post's word scores; needs a marked word."""
    return float(average_precision_score(np.asarray(marked, dtype=int), np.asarray(scores)))


def alert_threshold(labels: Labels, probs: Probs, class_index: int, precision: float) -> float:
    """The lowest probability at which alerts on (N,) labels reach the precision; 0.9 if none does."""
    order = np.argsort(-probs[:, class_index], kind="stable")
    ranked, hits = probs[order, class_index], labels[order] == class_index
    reached = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    good = np.flatnonzero((reached >= precision) & (np.arange(1, len(hits) + 1) >= 10))
    return float(ranked[good[-1]]) if len(good) else 0.9


def _runs(words: Sequence[bool]) -> list[range]:
    runs: list[range] = []
    start = None
    for index, on in enumerate([*words, False]):
        if on and start is None:
            start = index
        elif not on and start is not None:
            runs.append(range(start, index))
            start = None
    return runs


def _iou(a: range, b: range) -> float:
    common = max(0, min(a.stop, b.stop) - max(a.start, b.start))
    return common / (len(a) + len(b) - common)
