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
from model.data import DISASTERS, ImageRow
from model.losses import class_loss, class_weights
from model.records import CLASSES
from model.train_image import BATCH, pixel_batch
from model.vision import VisionTower, cells_to_patches

_SMOOTHNESS = 2.0  # cells over which a clustered mask's random field varies
_N_RANDOM = 2  # random masks for every selected one
_TASK_WEIGHT = 0.3  # of classes and disaster types beside the teacher


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerRows:
    """N images, each in V views: states below the layers that learn, and what the teacher saw."""

    states: Tensor  # (V, N, 1 + kept, D) float16
    teacher: Tensor  # (V, N, D) [CLS] of the whole image, mirrored where the view is, from the whole tower
    labels: Tensor  # (N,) class, -1 = unknown
    disasters: Tensor  # (N,) disaster type, -1 = unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerSettings:
    n_frozen_layers: int
    n_epochs: int = 6
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


def views_of(selected: Tensor, image: ImageConfig, generator: torch.Generator) -> list[tuple[bool, Tensor]]:
    """The views of N images that a tower learns from, each as whether it is mirrored and its cells (N, P).

    As they are and mirrored: twice through random cells, and through the selected ones (N, P).
    """
    n_images, n_kept = len(selected), int(selected[0].sum())
    mirrored_cells = selected.view(-1, image.rows, image.cols).flip(2).flatten(1)
    views: list[tuple[bool, Tensor]] = []
    for mirrored, chosen in ((False, selected), (True, mirrored_cells)):
        random = [random_cells(n_images, image, n_kept, generator) for _ in range(_N_RANDOM)]
        views += [(mirrored, cells) for cells in (*random, chosen)]
    return views


@torch.inference_mode()
def lower_states(
    rows: Sequence[ImageRow],
    views: Sequence[tuple[bool, Tensor]],
    tower: VisionTower,
    depths: Sequence[int],
    image: ImageConfig,
) -> dict[int, Tensor]:
    """States after each of some depths of the tower, (V, N, 1 + kept, D) float16; all masks of one size."""
    V, N = len(views), len(rows)
    n_kept = int(cells_to_patches(views[0][1][:1], image.rows, tower.side).sum())
    kept = {depth: torch.empty(V, N, 1 + n_kept, len(tower.first), dtype=torch.half) for depth in depths}
    for start in tqdm(range(0, N, BATCH), desc="lower layers", mininterval=10.0):
        part = slice(start, min(start + BATCH, N))
        pixel_values = pixel_batch(rows[part], image.size_px)
        for index, (mirrored, cells) in enumerate(views):
            shown = pixel_values.flip(3) if mirrored else pixel_values
            states = tower.states(shown, cells_to_patches(cells[part], image.rows, tower.side))
            for depth, state in enumerate(states, 1):
                if depth in kept:
                    kept[depth][index, part] = state.half()
    return kept


def fit_tower(tower: VisionTower, rows: TowerRows, settings: TowerSettings, seed: int) -> list[float]:
    """Fine-tunes the layers above the frozen ones, so that [CLS] of a few cells comes near the teacher's.

    Returns the loss of every step.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    upper = tower.layers[settings.n_frozen_layers :]
    n_views, n_images, _, width = rows.states.shape
    heads = nn.ModuleList(nn.Linear(width, n) for n in (len(CLASSES), len(DISASTERS)))
    mean, spread = rows.teacher.mean((0, 1)), rows.teacher.std((0, 1)) + 0.1
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
            which = torch.randint(n_views, (len(index),), generator=generator)
            hidden = rows.states[which, index].float()
            with torch.autocast("cpu", torch.bfloat16):
                for layer in upper:
                    hidden = layer(hidden)
            first = F.dropout(hidden[:, 0].float(), 0.1)  # (B, D)
            loss = F.mse_loss(matched(first), goal[which, index])
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
