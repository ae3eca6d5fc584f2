"""Further tasks get heads of their own, from rows that have their label and are not held out."""

import numpy as np
import torch

from model.config import Fusion
from model.data.datasets import TextRow
from model.training import fit_tasks
from model.training.crossval import View, Views
from model.training.fit_tasks import TaskTexts


def _views(n: int) -> Views:
    generator = torch.Generator().manual_seed(0)
    view = View(
        text=torch.zeros(n, 5),
        features=torch.randn(n, 8, generator=generator),
        other_features=torch.randn(4, 8, generator=generator),
    )
    return Views(
        rationale=view,
        full=view,
        removed=view,
        ids=[f"{k}_0" for k in range(n)],
        texts=[TextRow(row_id=f"{k}_0", text=f"post {k}", label=0) for k in range(n)],
        labels=torch.zeros(n, dtype=torch.long),
        groups=np.array([str(k) for k in range(n)]),
        pixels=["original"] * n,
        other_ids=[f"other/{k}" for k in range(4)],
        other_labels=torch.zeros(4, dtype=torch.long),
        text_dev=torch.zeros(1, 5),
        text_dev_full=torch.zeros(1, 5),
        dev_labels=torch.zeros(1, dtype=torch.long),
        baseline=torch.zeros(n, 5),
    )


def _texts(n: int, n_classes: int) -> TaskTexts:
    generator = torch.Generator().manual_seed(1)
    return TaskTexts(
        task="informative",
        head=torch.nn.Linear(4, n_classes),
        fusion=Fusion(text_weight=1.0, image_weight=0.0, bias=(0.0,) * n_classes),
        prior=(1 / n_classes,) * n_classes,
        rows=torch.randn(n, n_classes, generator=generator).log_softmax(1),
        test_labels=np.zeros(1, dtype=np.int64),
        test_probs=np.full((1, n_classes), 1 / n_classes),
    )


def test_only_rows_with_a_label_of_the_task_are_looked_at() -> None:
    views, texts = _views(5), _texts(5, 3)
    own = fit_tasks.task_views(views, texts, {"1_0": 2, "4_0": 0, "other/3": 1})
    assert own.ids == ["1_0", "4_0"] and own.labels.tolist() == [2, 0] and own.groups.tolist() == ["1", "4"]
    assert own.other_ids == ["other/3"] and own.other_labels.tolist() == [1]
    assert [row.text for row in own.texts] == ["post 1", "post 4"]
    assert torch.equal(own.rationale.text, texts.rows[[1, 4]])
    assert torch.equal(own.rationale.features, views.rationale.features[[1, 4]])
    assert torch.equal(own.rationale.other_features, views.rationale.other_features[[3]])


def test_rows_that_are_held_out_teach_nothing() -> None:
    views, texts = _views(60), _texts(60, 2)
    labels = {row_id: k % 2 for k, row_id in enumerate([*views.ids, *views.other_ids])}
    held_out = set(views.ids[:12])
    own = fit_tasks.task_views(views, texts, labels)
    fitted = fit_tasks.fit_task(texts, own, held_out, seed=0)
    own.rationale.features[:12] += 5.0
    own.labels[:12] = 1 - own.labels[:12]
    again = fit_tasks.fit_task(texts, own, held_out, seed=0)
    assert torch.equal(fitted.image_head.weight, again.image_head.weight) and fitted.config == again.config
    other = fit_tasks.fit_task(texts, own, (), seed=0)
    assert not torch.equal(fitted.image_head.weight, other.image_head.weight)
