"""A tower taught on random cells comes nearer the whole image's states, and its lower layers stay as they were."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model import checkpoint
from model.data.datasets import ImageRow
from model.network import ImageDecider
from model.testing import tiny_checkpoint
from model.training import image_reading
from model.training.image_reading import TowerRows, TowerSettings


@pytest.fixture(scope="module")
def decider(tmp_path_factory: pytest.TempPathFactory) -> ImageDecider:
    network, config, _ = checkpoint.load(tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint"))
    torch.manual_seed(0)
    return ImageDecider(replace(config.image, decider_layers=2), 5)


def _row(path: Path, seed: int) -> ImageRow:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return ImageRow(
        row_id=path.stem,
        path=path,
        text="",
        label=seed % 5,
        disaster=0,
        split="extra",
        group=path.stem,
        pixels="original",
    )


def test_random_cells_keep_as_many_as_asked(decider: ImageDecider, tmp_path: Path) -> None:
    _, config, _ = checkpoint.load(tiny_checkpoint(tmp_path / "checkpoint"))
    cells = image_reading.random_cells(50, config.image, 4, torch.Generator().manual_seed(0))
    assert cells.shape == (50, 16) and cells.sum(1).tolist() == [4] * 50
    assert len({tuple(row) for row in cells.tolist()}) > 20


def test_lower_states_are_those_of_the_tower(decider: ImageDecider, tmp_path: Path) -> None:
    _, config, _ = checkpoint.load(tiny_checkpoint(tmp_path / "checkpoint"))
    rows = [_row(tmp_path / f"{seed}.png", seed) for seed in range(3)]
    cells = image_reading.random_cells(3, config.image, 4, torch.Generator().manual_seed(0))
    states = image_reading.lower_states(rows, cells, decider.tower, 1, config.image)
    assert states.shape == (3, 1 + 4 * 4, config.image.decider_width)  # a cell holds 2 x 2 patches


def test_teaching_brings_few_cells_near_the_teacher(decider: ImageDecider) -> None:
    generator = torch.Generator().manual_seed(0)
    tower = copy.deepcopy(decider.tower)
    lower = copy.deepcopy(tower.layers[0].state_dict())
    teacher = torch.randn(24, 32, generator=generator)
    states = teacher[None, :, None, :].expand(2, -1, 5, -1) + 0.1 * torch.randn(2, 24, 5, 32, generator=generator)
    rows = TowerRows(
        states=states.half(),
        teacher=teacher,
        labels=torch.full((24,), -1),
        disasters=torch.full((24,), -1),
    )
    settings = TowerSettings(n_frozen_layers=1, n_epochs=30, batch_size=8, learning_rate=1e-3, head_learning_rate=1e-2)
    losses = image_reading.fit_tower(tower, rows, settings, seed=0)
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(value, lower[name]) for name, value in tower.layers[0].state_dict().items())
    assert not torch.equal(tower.layers[1].up.weight, decider.tower.layers[1].up.weight)
