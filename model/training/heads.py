"""Fits what is small: the image class head on frozen features, and the calibrated fusion of both experts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.model_selection import StratifiedGroupKFold
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import Fusion
from model.losses import class_weights

Indices = npt.NDArray[np.int64]
FOLD_SEED, N_FOLDS = 0, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSettings:
    n_steps: int = 120
    batch_size: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 0.5
    dropout: float = 0.5


def folds(labels: Indices, groups: npt.NDArray[np.str_], n_folds: int = N_FOLDS) -> Iterator[tuple[Indices, Indices]]:
    """Grouped stratified folds with the protocol's seed: (train, held out) positions."""
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=FOLD_SEED)
    yield from splitter.split(np.zeros(len(labels)), labels, groups)


def fit_head(
    features: Tensor, labels: Tensor, row_weights: Tensor, n_classes: int, seed: int, settings: HeadSettings
) -> nn.Linear:
    """A linear head on (N, C) features, rows drawn by weight; standardisation is folded into it."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    mean, spread = features.mean(0), features.std(0) + 0.1
    standard = (features - mean) / spread
    head = nn.Linear(features.shape[1], n_classes)
    optimizer = torch.optim.AdamW(head.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    weights = class_weights(labels, n_classes, power=0.25)
    for _ in range(settings.n_steps):
        batch = torch.multinomial(row_weights, settings.batch_size, replacement=True, generator=generator)
        keep = torch.rand(len(batch), standard.shape[1], generator=generator) >= settings.dropout
        logits = head(standard[batch] * keep / (1 - settings.dropout))
        loss = F.cross_entropy(logits, labels[batch], weight=weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        head.weight.div_(spread)
        head.bias.sub_(head.weight @ mean)
    return head


def fit_fusion(labels: Tensor, text: Tensor | None, image: Tensor | None, *, strength: float = 0.02) -> Fusion:
    """Weights and biases over log-probabilities (N, C) by regularised maximum likelihood (L-BFGS); one may be None."""
    parts = [part.double() if part is not None else None for part in (text, image)]
    n_classes = next(part.shape[1] for part in parts if part is not None)
    weights = torch.ones(2, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(n_classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = sum((w * part for w, part in zip(weights, parts, strict=True) if part is not None), bias)
        penalty = strength * ((weights - 0.7).square().sum() + bias.square().sum())
        value: Tensor = F.cross_entropy(logits, labels) + penalty
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    text_weight, image_weight = weights.detach().tolist()
    return Fusion(
        text_weight=text_weight if text is not None else 0.0,
        image_weight=image_weight if image is not None else 0.0,
        bias=tuple(bias.detach().tolist()),
    )


def apply_fusion(fusion: Fusion, text: Tensor | None, image: Tensor | None) -> npt.NDArray[np.float64]:
    """Probabilities (N, C) of rows that all have the same experts."""
    logits = torch.tensor(fusion.bias, dtype=torch.float64)
    for weight, part in ((fusion.text_weight, text), (fusion.image_weight, image)):
        if part is not None:
            logits = logits + weight * part.double()
    probs: npt.NDArray[np.float64] = logits.softmax(1).numpy()
    return probs
