"""Made-up views for the cross-validation: features that say the class, in groups of three rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from model.data.datasets import TextRow
from model.records import CLASSES
from model.training.crossval import View, Views

N_ROWS, WIDTH = 75, 32


def made_views(seed: int = 0) -> Views:
    """A group has one class; every fifth row has an original picture."""
    generator = torch.Generator().manual_seed(seed)
    n_classes = len(CLASSES)
    labels = torch.arange(N_ROWS) // 3 % n_classes

    def features(of: Tensor) -> Tensor:
        centres = torch.eye(n_classes, WIDTH)
        return centres[of] * 1.5 + torch.randn(len(of), WIDTH, generator=generator)

    def text(of: Tensor) -> Tensor:
        logits = torch.eye(n_classes)[of] + torch.randn(len(of), n_classes, generator=generator)
        return logits.log_softmax(1)

    others = torch.arange(20) % n_classes

    def view() -> View:
        return View(text=text(labels), features=features(labels), other_features=features(others))

    dev = torch.arange(40) % n_classes
    return Views(
        rationale=view(),
        full=view(),
        removed=view(),
        ids=[f"{k}_0" for k in range(N_ROWS)],
        texts=[TextRow(row_id=f"{k}_0", text=f"post {k}", label=int(label)) for k, label in enumerate(labels)],
        labels=labels,
        groups=np.array([f"group {k // 3}" for k in range(N_ROWS)]),
        pixels=["restored" if k % 5 else "original" for k in range(N_ROWS)],
        other_ids=[f"other {k}" for k in range(len(others))],
        other_labels=others,
        text_dev=text(dev),
        text_dev_full=text(dev),
        dev_labels=dev,
        baseline=text(labels),
    )
