"""Heads for the tasks beside the humanitarian one, on stage 2's finished encoders, which they leave as they are.

The evidence stays what stage 1 selected, and no humanitarian figure can change. The protocol is the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model.config import Fusion, TaskConfig
from model.data import datasets
from model.data.corpus import Corpus
from model.data.datasets import TextRow
from model.evaluation.measures import Labels, Probs
from model.records import TASKS
from model.training import crossval, fit_text
from model.training.crossval import View, Views
from model.training.heads import HeadSettings, apply_fusion, fit_fusion, fit_head
from model.training.text_kit import Texts

FURTHER = ("informative", "damage")
_TEXT_HEAD = HeadSettings(n_steps=600, dropout=0.1, weight_decay=0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTexts:
    """What the texts say of one task, whichever tower reads the images."""

    task: str
    head: nn.Linear
    fusion: Fusion  # of text alone
    prior: tuple[float, ...]
    rows: Tensor  # (N, C) log-probabilities of the test rows with pixels
    test_labels: Labels  # (M,) official test texts
    test_probs: Probs  # (M, C)


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedTask:
    """What a checkpoint gets for one task."""

    text_head: nn.Linear
    image_head: nn.Linear
    config: TaskConfig


def pool(texts: Texts, rows: Sequence[TextRow]) -> Tensor:
    """What stage 2's heads read of each text's rationale, (N, D)."""
    items = crossval.shown_items(rows, "rationale", texts.kit, texts.selector)
    return fit_text.pool_texts(texts.decider, texts.kit.embeddings, items)


def fit_texts(folder: Path, task: str, corpus: Corpus, texts: Texts, pooled: Tensor, seed: int) -> TaskTexts:
    """The text head, and what it says of the rows that were pooled (N, D); texts as a checkpoint runs them."""
    splits = datasets.task_texts(folder, task)
    dev, n_classes = splits["dev"], len(TASKS[task])
    train = datasets.unique_texts(corpus.clear_of_test(datasets.without(splits["train"], [*dev, *splits["test"]])))
    # whose words no encoder has read
    test = datasets.without(splits["test"], [*corpus.train, *corpus.disagreed, *corpus.humaid])
    head = fit_head(pool(texts, train), _labels(train), torch.ones(len(train)), n_classes, seed, _TEXT_HEAD)
    fusion = fit_fusion(_labels(dev), _log_probs(head, pool(texts, dev)), None)
    counts = torch.bincount(_labels(dev), minlength=n_classes).double()
    return TaskTexts(
        task=task,
        head=head,
        fusion=fusion,
        prior=tuple((counts / counts.sum()).tolist()),
        rows=_log_probs(head, pooled),
        test_labels=_labels(test).numpy(),
        test_probs=apply_fusion(fusion, _log_probs(head, pool(texts, test)), None),
    )


def fit_task(texts: TaskTexts, views: Views, held_out: Collection[str], seed: int) -> FittedTask:
    """The image head and the fusions, from the task's own views; rows whose ids are held out teach them nothing."""
    positions = np.array([k for k, row_id in enumerate(views.ids) if row_id not in held_out])
    fitted = crossval.fit_rows(views.rationale, views, positions, seed)
    return FittedTask(
        text_head=texts.head,
        image_head=fitted.head,
        config=TaskConfig(
            classes=TASKS[texts.task],
            fusion_both=fitted.fusion_both,
            fusion_text=texts.fusion,
            fusion_image=fitted.fusion_image,
            prior=texts.prior,
        ),
    )


def task_views(views: Views, texts: TaskTexts, labels: Mapping[str, int]) -> Views:
    """The rows that have a label of the task, under it; without rationale or with everything is not looked at."""
    own = torch.tensor([labels.get(row_id, -1) for row_id in views.ids])
    others = torch.tensor([labels.get(row_id, -1) for row_id in views.other_ids])
    known, known_others = (found.nonzero()[:, 0] for found in (own >= 0, others >= 0))
    shown = View(
        text=texts.rows[known],
        features=views.rationale.features[known],
        other_features=views.rationale.other_features[known_others],
    )
    return replace(
        views,
        rationale=shown,
        full=shown,
        removed=shown,
        ids=[views.ids[k] for k in known.tolist()],
        texts=[views.texts[k] for k in known.tolist()],
        labels=own[known],
        groups=views.groups[known.numpy()],
        pixels=[views.pixels[k] for k in known.tolist()],
        other_ids=[views.other_ids[k] for k in known_others.tolist()],
        other_labels=others[known_others],
    )


@torch.inference_mode()
def _log_probs(head: nn.Linear, pooled: Tensor) -> Tensor:
    logits: Tensor = head(pooled)
    return logits.log_softmax(1)


def _labels(rows: Sequence[TextRow]) -> Tensor:
    return torch.tensor([row.label for row in rows])
