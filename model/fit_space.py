"""Trains the space that words and patches share, on frozen encoder outputs; IPOT itself has nothing to learn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.losses import class_loss, class_weights, contrastive_loss
from model.network import ImageSelector, masked_mean, soft_max_pool


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceRows:
    """N posts or bare images; bare images have no real word."""

    patches: Tensor  # (N, P, C) float16, frozen image encoder
    words: Tensor  # (N, W, D) float16, frozen text encoder, mean over a word's pieces
    word_mask: Tensor  # (N, W) True = real word
    rationale: Tensor  # (N, W) soft rationale scores
    labels: Tensor  # (N,) -1 = unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceSettings:
    n_epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    contrast_weight: float = 0.3
    word_weight: float = 0.5
    seed: int = 0


def fit_space(selector: ImageSelector, word_space: nn.Linear, rows: SpaceRows, settings: SpaceSettings) -> None:
    """Class evidence for patches and words around shared prototypes, and posts near their own images."""
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    learnt = [*selector.space.parameters(), *word_space.parameters(), selector.prototypes, selector.log_scale]
    optimizer = torch.optim.AdamW(learnt, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    n_steps = settings.n_epochs * (len(rows.labels) // settings.batch_size + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=n_steps + 1)
    weights = class_weights(rows.labels, len(selector.prototypes))
    for _ in range(settings.n_epochs):
        for index in torch.randperm(len(rows.labels), generator=generator).split(settings.batch_size):  # type: ignore[no-untyped-call]
            optimizer.zero_grad(set_to_none=True)
            loss = _loss(selector, word_space, rows, index, weights, settings)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()


def _loss(
    selector: ImageSelector,
    word_space: nn.Linear,
    rows: SpaceRows,
    index: Tensor,
    weights: Tensor,
    settings: SpaceSettings,
) -> Tensor:
    labels = rows.labels[index]
    seen = selector.project(rows.patches[index].float())
    total = class_loss(seen.class_logits, labels, weights)
    spoken = (rows.rationale[index] * rows.word_mask[index]).amax(1) > 0  # (B,)
    if spoken.sum() < 2:
        return total
    mask = rows.word_mask[index][spoken]
    words = word_space(F.dropout(rows.words[index][spoken].float(), 0.1))  # (B', W, E)
    scale = selector.log_scale.exp()
    near = F.normalize(words, dim=2) @ F.normalize(selector.prototypes, dim=1).T * scale  # (B', W, 5)
    word_logits = soft_max_pool(near.masked_fill(~mask[:, :, None], -1e4))
    text_vectors = masked_mean(words * rows.rationale[index][spoken][:, :, None], mask)
    image_vectors = seen.patch_vectors[spoken].mean(1)
    return (
        total
        + settings.word_weight * class_loss(word_logits, labels[spoken], weights)
        + settings.contrast_weight * contrastive_loss(text_vectors, image_vectors, scale)
    )
