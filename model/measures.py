"""Scores of predictions against labels; plain arrays in, plain numbers out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from model.records import CLASSES

Probs = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def classification(labels: Labels, probs: Probs, classes: Sequence[str] = CLASSES) -> dict[str, object]:
    """Accuracy, macro, weighted and per-class F1, and the calibration error, of (N, C) probabilities."""
    predicted = probs.argmax(1)
    every = list(range(len(classes)))
    per_class = f1_score(labels, predicted, labels=every, average=None, zero_division=0.0)
    present = np.unique(labels)
    return {
        "n": len(labels),
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, labels=present, average="macro", zero_division=0.0)),
        "weighted_f1": float(f1_score(labels, predicted, average="weighted", zero_division=0.0)),
        "per_class_f1": dict(zip(classes, map(float, per_class), strict=True)),
        "n_per_class": dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True)),
        "ece": calibration_error(labels, probs),
    }


def calibration_error(labels: Labels, probs: Probs, n_bins: int = 10) -> float:
    """Expected calibration error of the top label over equal-width bins."""
    confidence, hit = probs.max(1), probs.argmax(1) == labels
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = [abs(confidence[bins == b].mean() - hit[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return float(sum(gaps))


def token_f1(marked: Sequence[bool], selected: Sequence[bool]) -> float:
    """F1 of one post's selected words against the words people marked."""
    both = sum(a and b for a, b in zip(marked, selected, strict=True))
    total = sum(marked) + sum(selected)
    return 2.0 * both / total if total else 1.0


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
