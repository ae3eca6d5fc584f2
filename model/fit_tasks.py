"""Heads for the tasks beside the humanitarian one, on stage 2's finished encoders, which they leave as they are.

The evidence stays what stage 1 selected, and no humanitarian figure can change. The protocol is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from model import crossval, data, fit_text
from model.config import TaskConfig
from model.corpus import Corpus
from model.crossval import View, Views
from model.data import TextRow
from model.heads import HeadSettings, apply_fusion, fit_fusion, fit_head
from model.measures import Labels, Probs
from model.network import TextDecider, TextSelector
from model.records import TASKS
from model.text_kit import TextKit

FURTHER = ("informative", "damage")
_TEXT_HEAD = HeadSettings(n_steps=600, dropout=0.1, weight_decay=0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextReader:
    """Stage 1's choice of words and stage 2's encoder, as a checkpoint runs them."""

    kit: TextKit
    selector: TextSelector
    decider: TextDecider

    def pool(self, rows: Sequence[TextRow]) -> Tensor:
        """What stage 2's heads read of each text's rationale, (N, D)."""
        items = crossval.shown_items(rows, "rationale", self.kit, self.selector)
        return fit_text.pool_texts(self.decider, self.kit.embeddings, items)


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedTask:
    """What a checkpoint gets for one task, and held-out probabilities with their labels."""

    text_head: nn.Linear
    image_head: nn.Linear
    config: TaskConfig
    fold_labels: Labels  # (N,)
    fold_runs: list[Probs]  # (N, C) for each seed
    text_labels: Labels  # (M,) official test texts
    text_probs: Probs  # (M, C)


def fit_task(
    folder: Path,
    task: str,
    corpus: Corpus,
    reader: TextReader,
    views: Views,
    held_out: Sequence[str],
    n_seeds: int,
    seed: int,
) -> FittedTask:
    """Both heads and the fusions of one task; the checkpoint's learn nothing from rows whose ids are held out."""
    train, dev, test = (data.task_texts(folder, task, split) for split in ("train", "dev", "test"))
    train = data.unique_texts(corpus.clear_of_test(data.without(train, [*dev, *test])))
    test = data.without(test, [*corpus.train, *corpus.disagreed, *corpus.humaid])  # whose words the encoders have read
    n_classes = len(TASKS[task])
    text_head = fit_head(reader.pool(train), _labels(train), torch.ones(len(train)), n_classes, seed, _TEXT_HEAD)

    @torch.inference_mode()
    def read(rows: Sequence[TextRow]) -> Tensor:
        logits: Tensor = text_head(reader.pool(rows))
        return logits.log_softmax(1)

    own = task_views(views, data.image_labels(folder, task), read)
    positions = np.array([k for k, row_id in enumerate(own.ids) if row_id not in set(held_out)])
    shipped = crossval.fit_rows(own.rationale, own, positions, seed)
    dev_labels = _labels(dev)
    fusion_text = fit_fusion(dev_labels, read(dev), None)
    counts = torch.bincount(dev_labels, minlength=n_classes).double()
    return FittedTask(
        text_head=text_head,
        image_head=shipped.head,
        config=TaskConfig(
            classes=TASKS[task],
            fusion_both=shipped.fusion_both,
            fusion_text=fusion_text,
            fusion_image=shipped.fusion_image,
            prior=tuple((counts / counts.sum()).tolist()),
        ),
        fold_labels=own.labels.numpy(),
        fold_runs=[crossval.cross_validate(own, number)["rationale"] for number in range(n_seeds)],
        text_labels=_labels(test).numpy(),
        text_probs=apply_fusion(fusion_text, read(test), None),
    )


def task_views(views: Views, labels: Mapping[str, int], read: Callable[[Sequence[TextRow]], Tensor]) -> Views:
    """The rows that have a label of the task, under it; without rationale or with everything is not looked at."""
    own = torch.tensor([labels.get(row_id, -1) for row_id in views.ids])
    others = torch.tensor([labels.get(row_id, -1) for row_id in views.other_ids])
    known = (own >= 0).nonzero()[:, 0]
    kept = known.tolist()
    rows = [TextRow(row_id=views.ids[k], text=views.texts[k], label=int(own[k])) for k in kept]
    shown = View(
        text=read(rows),
        features=views.rationale.features[known],
        other_features=views.rationale.other_features[others >= 0],
    )
    return replace(
        views,
        rationale=shown,
        full=shown,
        removed=shown,
        ids=[views.ids[k] for k in kept],
        texts=[views.texts[k] for k in kept],
        labels=own[known],
        groups=views.groups[kept],
        pixels=[views.pixels[k] for k in kept],
        other_ids=[row_id for row_id, label in zip(views.other_ids, others.tolist(), strict=True) if label >= 0],
        other_labels=others[others >= 0],
    )


def _labels(rows: Sequence[TextRow]) -> Tensor:
    return torch.tensor([row.label for row in rows])
