"""The protocol for numbers, from finished encoders to the file of figures; fits heads and fusions, no encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.data.corpus import Corpus
from model.data.datasets import TextRow
from model.evaluation import plots, summary
from model.evaluation.measures import Labels, Probs, calibration_error, classification, probability_drop
from model.training import crossval, fit_text
from model.training.crossval import View, Views
from model.training.fit_tasks import TaskTexts
from model.training.heads import apply_fusion
from model.training.text_kit import Texts

FOLDS = (
    "official test rows with pixels, 5 grouped stratified folds (seed 0), each predicted by heads fitted on the others;"
    " encoders never saw a test row; runs differ in the seed of image head and fusion, encoders are one run"
)
WHOLE = f"MPNet (the teacher) on whole texts, CLIP's whole tower on whole pictures, neither of which ships: {FOLDS}"
OFFICIAL = (
    "text only, official train split, with HumAID tweets and CrisisMMD's own outside the agreed split (the TF-IDF"
    " baseline without them), to official test split, calibrated on the official dev split"
)
TASK_FOLDS = (
    "{task}, decided from rationales alone: official humanitarian test rows with pixels and a label of the task,"
    " 5 grouped stratified folds (seed 0), heads on the finished encoders; runs differ in the seed of head and fusion"
)
TASK_TEXT = (
    "{task}, text rationale only: official train split to those official test texts that no encoder has read,"
    " calibrated on the official dev split"
)
RELIABILITY = "reliability.png"
_SCORES = ("macro_f1", "accuracy", "weighted_f1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """Whole test posts and whole dev texts, as the largest models here see them."""

    view: View
    text_dev: Tensor  # (N, C) log-probabilities


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One figure, a run for each seed; `key` is the summary's."""

    key: str
    runs: list[float]
    rows: int


def write_figures(
    path: Path, corpus: Corpus, texts: Texts, system: Views, dual: Views, whole: Whole, n_seeds: int
) -> None:
    """Puts the system's figures, those of the larger tower in its place, and those without a rationale in the file.

    Beside it goes a reliability plot of the held-out probabilities of the first seed.
    """
    runs = _runs(system, n_seeds)
    rows = system_figures(system, runs)
    rows += gap_figures(rows, dual, n_seeds)
    for one in rows:
        summary.add(path, one.key, one.runs, one.rows, FOLDS)
    for one in whole_figures(system, whole, n_seeds):
        summary.add(path, one.key, one.runs, one.rows, WHOLE)
    baseline = system.baseline.exp().numpy()
    for one in _scores("unconstrained", system.labels.numpy(), [baseline], ".tfidf_text_only"):
        summary.add(path, one.key, one.runs, one.rows, FOLDS)
    for one in official_figures(corpus, texts):
        summary.add(path, one.key, one.runs, one.rows, OFFICIAL)
    labels, probs = system.labels.numpy(), runs[0]["rationale"]
    ece = calibration_error(labels, probs)
    plots.reliability_diagram(path.with_name(RELIABILITY), labels, probs, ece)


def system_figures(views: Views, runs: Sequence[Mapping[str, Probs]]) -> list[Measured]:
    """Of `crossval.cross_validate`'s runs, one per seed: from the rationale, from everything, and without it."""
    labels = views.labels.numpy()
    text_fusion = crossval.fit_text_fusion(views.text_dev, views.dev_labels)
    both = [run["rationale"] for run in runs]
    drops = [_macro_f1(labels, run["full"]) - _macro_f1(labels, run["removed"]) for run in runs]
    comprehensive = [probability_drop(run["full"], run["removed"]) for run in runs]
    sufficient = [probability_drop(run["full"], run["rationale"]) for run in runs]
    n_rows = len(labels)
    return [
        *_by_pixels("rationale_only", views, both),
        *_class_scores("rationale_only", labels, both),
        *_scores("text_rationale_only", labels, [apply_fusion(text_fusion, views.rationale.text, None)]),
        *_scores("image_rationale_only", labels, [run["image"] for run in runs]),
        Measured(key="calibration.ece", runs=[calibration_error(labels, probs) for probs in both], rows=n_rows),
        Measured(key="macro_f1_drop", runs=drops, rows=n_rows),
        Measured(key="comprehensiveness", runs=comprehensive, rows=n_rows),
        Measured(key="sufficiency", runs=sufficient, rows=n_rows),
    ]


def whole_figures(views: Views, whole: Whole, n_seeds: int) -> list[Measured]:
    """Without any rationale: a head of its own on whole images, and a reader of whole texts."""
    labels, view = views.labels.numpy(), whole.view
    runs = _runs(replace(views, rationale=view, full=view, removed=view), n_seeds)
    text_fusion = crossval.fit_text_fusion(whole.text_dev, views.dev_labels)
    return [
        *_by_pixels("unconstrained", views, [run["rationale"] for run in runs]),
        *_scores("unconstrained", labels, [run["image"] for run in runs], ".image_only"),
        *_scores("unconstrained", labels, [apply_fusion(text_fusion, view.text, None)], ".text_only"),
    ]


def gap_figures(system: Sequence[Measured], dual: Views, n_seeds: int) -> list[Measured]:
    """The larger tower under the same rationales, and how far the shipped one stays behind it, seed by seed."""
    large = [replace(one, key=f"{one.key}.dual") for one in system_figures(dual, _runs(dual, n_seeds))]
    small = next(one for one in system if one.key == "rationale_only.macro_f1")
    gaps = [a - b for a, b in zip(large[0].runs, small.runs, strict=True)]
    return [*large, Measured(key="compact.macro_f1_gap", runs=gaps, rows=len(dual.labels))]


def write_task_figures(path: Path, tasks: Sequence[tuple[TaskTexts, Views]], n_seeds: int) -> None:
    """Puts the figures of the tasks beside the humanitarian one in the file, each from its own views."""
    for texts, views in tasks:
        labels, runs = views.labels.numpy(), _runs(views, n_seeds)
        for one in _scores("rationale_only", labels, [run["rationale"] for run in runs], f".{texts.task}"):
            summary.add(path, one.key, one.runs, one.rows, TASK_FOLDS.format(task=texts.task))
        for one in _scores("official_text", texts.test_labels, [texts.test_probs], f".{texts.task}"):
            summary.add(path, one.key, one.runs, one.rows, TASK_TEXT.format(task=texts.task))


def official_figures(corpus: Corpus, texts: Texts) -> list[Measured]:
    """All official test texts, whole and from their rationales, and the linear baseline."""
    labels = np.array([row.label for row in corpus.test])
    dev_labels = torch.tensor([row.label for row in corpus.dev])

    def fused(dev: Tensor, test: Tensor) -> Probs:
        return apply_fusion(crossval.fit_text_fusion(dev, dev_labels), test, None)

    whole = fused(read_whole(corpus.dev, texts), read_whole(corpus.test, texts))
    rationale = fused(read_rationales(corpus.dev, texts), read_rationales(corpus.test, texts))
    baseline = crossval.tfidf(corpus.train, [row.text for row in corpus.test]).exp().numpy()
    return [
        *_scores("official_text", labels, [whole]),
        *_scores("official_text", labels, [rationale], ".rationale_only"),
        *_scores("official_text", labels, [baseline], ".tfidf"),
    ]


def read_whole(rows: Sequence[TextRow], texts: Texts) -> Tensor:
    """The reader's class log-probabilities (N, 5) of whole texts."""
    items = crossval.shown_items(rows, "full", texts.kit, texts.selector)
    return fit_text.decide_texts(texts.reader, texts.kit.embeddings, items)


def read_rationales(rows: Sequence[TextRow], texts: Texts) -> Tensor:
    """The decider's class log-probabilities (N, 5) of what the selector leaves of the texts."""
    items = crossval.shown_items(rows, "rationale", texts.kit, texts.selector)
    return fit_text.decide_texts(texts.decider, texts.kit.embeddings, items)


def _runs(views: Views, n_seeds: int) -> list[dict[str, Probs]]:
    return [crossval.cross_validate(views, seed) for seed in range(n_seeds)]


def _by_pixels(name: str, views: Views, runs: Sequence[Probs]) -> list[Measured]:
    labels = views.labels.numpy()
    restored: npt.NDArray[np.bool_] = np.array([kind == "restored" for kind in views.pixels])
    found = _scores(name, labels, runs)
    for suffix, rows in ((".restored_pixels", restored), (".original_pixels", ~restored)):
        found += _scores(name, labels[rows], [probs[rows] for probs in runs], suffix)
    return found


def _scores(name: str, labels: Labels, runs: Sequence[Probs], suffix: str = "") -> list[Measured]:
    scored = [classification(labels, probs) for probs in runs]
    return [
        Measured(key=f"{name}.{measure}{suffix}", runs=[float(str(one[measure])) for one in scored], rows=len(labels))
        for measure in _SCORES
    ]


def _class_scores(name: str, labels: Labels, runs: Sequence[Probs]) -> list[Measured]:
    scored = [cast("dict[str, float]", classification(labels, probs)["per_class_f1"]) for probs in runs]
    return [Measured(key=f"{name}.f1.{one}", runs=[row[one] for row in scored], rows=len(labels)) for one in scored[0]]


def _macro_f1(labels: Labels, probs: Probs) -> float:
    return float(str(classification(labels, probs)["macro_f1"]))
