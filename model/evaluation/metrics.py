"""Scores judged posts: the content of `metrics.json`. Counts and numbers only, never a post's text."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from model.evaluation import explanation
from model.evaluation.judging import BUDGETS, READ, UNREADABLE, Judged
from model.evaluation.measures import Labels, Probs, auprc, classification, f1, iou_matches, token_f1
from model.evaluation.views import best

Metrics = dict[str, Any]

_NOT_HUMANITARIAN = "not_humanitarian"
_SEED = 0


def metrics(judged: Sequence[Judged], classes: Sequence[str]) -> Metrics:
    """Everything that can be said of these posts; what needs labels, marks or images is there when they are."""
    made: Metrics = {"rows": len(judged), "n": sum(one.post.label >= 0 for one in judged)}
    made |= _scores(judged, classes)
    made["n_unlabelled"] = made["rows"] - made["n"]
    predicted = Counter(int(one.probs.argmax()) for one in judged)
    made["predicted"] = {name: predicted[index] for index, name in enumerate(classes)}
    made["images"] = {
        "read": sum(one.image == READ for one in judged),
        "unreadable": sum(one.image == UNREADABLE for one in judged),
    }
    made["fallbacks"] = dict(sorted(Counter(name for one in judged for name in one.selection.fallbacks).items()))
    made["selected"] = _selected(judged, classes)
    made |= _by_pixels(judged, classes)
    budget = [one for one in judged if one.at_budgets is not None]
    if budget:
        made["budgets"], made["own_budget"] = _budgets(budget, classes), _own_budget(budget, classes)
    if any(one.looks is not None for one in judged):
        made |= _explained(judged, classes)
    marked = [one for one in judged if one.marked is not None]
    if marked:
        made |= _plausibility(marked)
    return made


def labels_of(judged: Sequence[Judged]) -> Labels:
    return np.array([one.post.label for one in judged])


def probs_of(judged: Sequence[Judged]) -> Probs:
    return np.stack([one.probs for one in judged])


def _scores(judged: Sequence[Judged], classes: Sequence[str]) -> Metrics:
    labelled = [one for one in judged if one.post.label >= 0]
    return _scored(labels_of(labelled), probs_of(labelled), classes) if labelled else {}


def _scored(labels: Labels, probs: Probs, classes: Sequence[str]) -> Metrics:
    names = ("n", "accuracy", "macro_f1", "weighted_f1", "ece", "per_class")
    scores = classification(labels, probs, classes)
    return {name: scores[name] for name in names}


def _class_of(one: Judged, classes: Sequence[str]) -> str:
    """The post's own class where it has a label, the predicted one where it has none."""
    return classes[one.post.label if one.post.label >= 0 else int(one.probs.argmax())]


def _selected(judged: Sequence[Judged], classes: Sequence[str]) -> dict[str, float | None]:
    """Mean share of a post's words and of an image's patches, of all posts and, in that task, of humanitarian ones."""
    groups: dict[str, Sequence[Judged]] = {"": judged}
    if _NOT_HUMANITARIAN in classes:
        groups["_humanitarian"] = [one for one in judged if _class_of(one, classes) != _NOT_HUMANITARIAN]
    made: dict[str, float | None] = {}
    for suffix, group in groups.items():
        words = [len(s.words) / len(s.word_scores) for s in (one.selection for one in group) if s.word_scores]
        patches = [len(s.patches) / len(s.patch_scores) for s in (one.selection for one in group) if s.patch_scores]
        made[f"words{suffix}"] = float(np.mean(words)) if words else None
        made[f"patches{suffix}"] = float(np.mean(patches)) if patches else None
    return made


def _by_pixels(judged: Sequence[Judged], classes: Sequence[str]) -> Metrics:
    """Original and restored pixels apart, where the table says which is which."""
    kinds = sorted({one.post.pixels for one in judged if one.post.pixels and one.post.label >= 0})
    parts = {kind: _scores([one for one in judged if one.post.pixels == kind], classes) for kind in kinds}
    return {"by_pixels": parts} if len(parts) > 1 else {}


def _budgets(judged: Sequence[Judged], classes: Sequence[str]) -> list[dict[str, float]]:
    """Scores when only the best-scored share of words and patches is shown."""
    labels = labels_of(judged)
    rows: list[dict[str, float]] = []
    for k, share in enumerate(BUDGETS):
        probs = np.stack([one.at_budgets[k] for one in judged if one.at_budgets is not None])
        scores = classification(labels, probs, classes)
        row = {name: float(scores[name]) for name in ("accuracy", "macro_f1")}  # type: ignore[arg-type]
        rows.append({"share": share, "n": len(judged)} | row)
    return rows


def _own_budget(judged: Sequence[Judged], classes: Sequence[str]) -> dict[str, float]:
    """The same posts as the classifier itself decides them; the share is the mean of words' and patches'."""
    shares = [
        np.mean([len(units) / len(scores) for units, scores in pairs if scores])
        for pairs in (
            ((one.selection.words, one.selection.word_scores), (one.selection.patches, one.selection.patch_scores))
            for one in judged
        )
        if any(scores for _, scores in pairs)
    ]
    scores = classification(labels_of(judged), probs_of(judged), classes)
    row = {name: float(scores[name]) for name in ("accuracy", "macro_f1")}  # type: ignore[arg-type]
    return {"share": _mean(shares) if shares else 0.0, "n": len(judged)} | row


def _explained(judged: Sequence[Judged], classes: Sequence[str]) -> Metrics:
    looks = [one.looks for one in judged if one.looks is not None]
    made: Metrics = {"explanation": explanation.measures(looks)}
    labelled = [one for one in judged if one.post.label >= 0 and one.looks is not None]
    if labelled:
        labels = labels_of(labelled)
        views = explanation.classifications([one.looks for one in labelled if one.looks is not None], labels, classes)
        made["views"] = views
        made["explanation"]["macro_f1_drop"] = explanation.macro_f1_drop(views)
    return made


def _plausibility(judged: Sequence[Judged]) -> Metrics:
    """Agreement with the words that people marked, and what selections without any model would get.

    Token-F1 and AUPRC are means over posts; IOU-F1 is that of the mean precision and recall of ERASER's match.
    """
    made: Metrics = {
        "rationales": {"n": len(judged), "marked_share": _mean(np.mean(one.marked or ()) for one in judged)}
    }
    made |= _agreement(judged, [[i in one.selection.words for i in range(len(one.marked or ()))] for one in judged])
    made["auprc"] = _mean(auprc(one.marked or (), one.selection.word_scores) for one in judged)
    made["rationales"]["baselines"] = _baselines(judged)
    return made


def _baselines(judged: Sequence[Judged]) -> Metrics:
    """Selections without a model, of words that may be evidence; as many of them as the classifier's, or all."""
    dice = random.Random(_SEED)
    ways: dict[str, Callable[[int], float]] = {
        "all_words": lambda _: 1.0,
        "random_words": lambda _: dice.random(),
        "first_words": lambda index: 1.0 / (1 + index),
    }
    made: Metrics = {}
    for name, way in ways.items():
        scores = [[way(i) if ok else -1.0 for i, ok in enumerate(one.selectable)] for one in judged]
        sizes = [sum(one.selectable) if name == "all_words" else len(one.selection.words) for one in judged]
        chosen = [best(row, size) for row, size in zip(scores, sizes, strict=True)]
        made[name] = _agreement(
            judged, [[i in kept for i in range(len(row))] for row, kept in zip(scores, chosen, strict=True)]
        )
        made[name]["auprc"] = _mean(auprc(one.marked or (), row) for one, row in zip(judged, scores, strict=True))
    return made


def _agreement(judged: Sequence[Judged], selected: Sequence[Sequence[bool]]) -> Metrics:
    pairs = [(one.marked or (), row) for one, row in zip(judged, selected, strict=True)]
    matches = [iou_matches(marked, row) for marked, row in pairs]
    precision, recall = (_mean(column) for column in zip(*matches, strict=True))
    return {"token_f1": _mean(token_f1(marked, row) for marked, row in pairs), "iou_f1": f1(precision, recall)}


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))
