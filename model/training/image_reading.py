"""Teaches a vision tower to answer for any few cells of an image what the whole tower says of the whole image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from model.config import ImageConfig
from model.data.datasets import DISASTERS, ImageRow
from model.losses import class_loss, class_weights
from model.precision import mixed_precision
from model.records import CLASSES
from model.training.train_image import BATCH, pixel_batch
from model.vision import VisionTower, cells_to_patches, cls_after

_SMOOTHNESS = 2.0  # cells over which a clustered mask's random field varies
_TASK_WEIGHT = 0.3  # of classes and disaster types beside the teacher


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerRows:
    """N images, each seen through M masks: states below the layers that learn, and what the teacher saw."""

    states: Tensor  # (M, N, 1 + kept, D) float16
    teacher: Tensor  # (N, D) [CLS] of the whole image from the whole tower
    labels: Tensor  # (N,) class, -1 = unknown
    disasters: Tensor  # (N,) disaster type, -1 = unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerSettings:
    n_frozen_layers: int = 6
    n_masks: int = 2
    n_epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-3


def random_cells(n_images: int, image: ImageConfig, n_kept: int, generator: torch.Generator) -> Tensor:
    """Masks (N, P) of n_kept cells each: half scattered, half clustered as a rationale's often are."""
    noise = torch.rand(n_images, 1, image.rows, image.cols, generator=generator)
    kernel = torch.arange(-3, 4).float().div(_SMOOTHNESS).square().mul(-0.5).exp()
    weight = (kernel[:, None] * kernel[None, :])[None, None]
    smooth = F.conv2d(F.pad(noise, (3, 3, 3, 3), mode="reflect"), weight)
    clustered = torch.rand(n_images, generator=generator) < 0.5
    field = torch.where(clustered[:, None], smooth.flatten(1), noise.flatten(1))  # (N, P)
    kept = field.topk(n_kept, dim=1).indices
    return torch.zeros_like(field, dtype=torch.bool).scatter(1, kept, True)


@torch.inference_mode()
def lower_states(
    rows: Sequence[ImageRow], cells: Tensor, tower: VisionTower, n_layers: int, image: ImageConfig
) -> Tensor:
    """States after the first n_layers of every image's cells, (N, 1 + kept, D) float16; all masks of one size."""
    parts: list[Tensor] = []
    for start in tqdm(range(0, len(rows), BATCH), desc="lower layers", mininterval=10.0):
        part = slice(start, min(start + BATCH, len(rows)))
        keep = cells_to_patches(cells[part], image.rows, tower.side)
        hidden, attend = tower.embedded(pixel_batch(rows[part], image.size_px), keep)
        for layer in tower.layers[:n_layers]:
            hidden = layer(hidden, attend)
        parts.append(hidden.half())
    return torch.cat(parts)


def fit_tower(tower: VisionTower, rows: TowerRows, settings: TowerSettings, seed: int) -> list[float]:
    """Fine-tunes the layers above the frozen ones, so that [CLS] of a few cells comes near the teacher's.

    Returns the loss of every step.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    upper = tower.layers[settings.n_frozen_layers :]
    n_masks, n_images, _, width = rows.states.shape
    heads = nn.ModuleList(nn.Linear(width, n) for n in (len(CLASSES), len(DISASTERS)))
    mean, spread = rows.teacher.mean(0), rows.teacher.std(0) + 0.1
    goal = (rows.teacher - mean) / spread
    matched = nn.Linear(width, width)
    learnt = [*heads.parameters(), *matched.parameters()]
    rates = [settings.learning_rate, settings.head_learning_rate]
    optimizer = torch.optim.AdamW(
        [{"params": upper.parameters(), "lr": rates[0]}, {"params": learnt, "lr": rates[1]}], weight_decay=0.02
    )
    n_steps = settings.n_epochs * math.ceil(n_images / settings.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=n_steps + 1, pct_start=0.1)
    weights = class_weights(rows.labels, len(CLASSES))
    losses: list[float] = []
    progress = tqdm(total=n_steps, desc="image reader", mininterval=10.0)
    for _ in range(settings.n_epochs):
        for index in torch.randperm(n_images, generator=generator).split(settings.batch_size):  # type: ignore[no-untyped-call]
            which = torch.randint(n_masks, (len(index),), generator=generator)
            hidden = rows.states[which, index].float()
            with mixed_precision():
                pooled = cls_after(upper, hidden)
            first = F.dropout(pooled.float(), 0.1)  # (B, D)
            loss = F.mse_loss(matched(first), goal[index])
            loss = loss + _TASK_WEIGHT * class_loss(heads[0](first), rows.labels[index], weights)
            loss = loss + _TASK_WEIGHT * class_loss(heads[1](first), rows.disasters[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(upper.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            progress.update()
    progress.close()
    tower.eval()
    return losses
