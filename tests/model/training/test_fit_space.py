"""The space that words and patches share: evidence is found where it is, and rationale words are drawn to it."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from model import checkpoint
from model.network import ImageSelector
from model.testing import tiny_checkpoint
from model.training import fit_space
from model.training.fit_space import SpaceRows, SpaceSettings
from model.training.train_image import WordRows, select_patches


def _rows(n: int, generator: torch.Generator, width: int) -> tuple[SpaceRows, torch.Tensor]:
    """Images whose class shows in 4 of 16 patches, with posts of 6 words of which the first names the class."""
    labels = torch.arange(n) % 5
    signs, names = torch.eye(5, width) * 6, torch.eye(5, width).flip(1) * 6
    patches = torch.randn(n, 16, width, generator=generator)
    where = torch.rand(n, 16, generator=generator).topk(4, dim=1).indices
    shown = torch.zeros(n, 16, dtype=torch.bool).scatter(1, where, True)
    patches = patches + shown[:, :, None] * signs[labels][:, None, :]
    words = torch.randn(n, 6, width, generator=generator)
    words[:, 0] += names[labels]
    first = torch.tensor([True] + 5 * [False]).expand(n, -1)
    rows = SpaceRows(
        patches=patches.half(),
        words=words.half(),
        word_mask=torch.ones(n, 6, dtype=torch.bool),
        rationale=first.float(),
        chosen=first,
        labels=torch.where(torch.arange(n) % 4 == 3, -1, labels),
    )
    return rows, shown


def test_class_evidence_is_where_the_class_shows() -> None:
    rows, shown = _rows(200, torch.Generator().manual_seed(0), width=24)
    guesses, evidence = fit_space.class_evidence(rows, 4, seed=0)
    assert (guesses == torch.arange(200) % 5).float().mean() > 0.95  # unknown ones too
    assert evidence.sum(1).tolist() == [4.0] * 200
    assert (evidence * shown).sum(1).mean() > 3.5


def test_evidence_loss_on_numbers_computed_by_hand() -> None:
    words = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    patches = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    rationale = torch.tensor([[True, False]])
    mask = torch.ones_like(rationale)
    evidence = torch.tensor([[1.0, 0.0]])
    # odds are +1/t and -1/t, each weighs one half of the mean over two patches, times two
    loss = fit_space.evidence_loss(words, rationale, mask, patches, evidence, temperature=0.5)
    assert math.isclose(float(loss), math.log1p(math.exp(-2.0)), rel_tol=1e-5)
    swapped = fit_space.evidence_loss(words, ~rationale, mask, patches, evidence, temperature=0.5)
    assert math.isclose(float(swapped), math.log1p(math.exp(2.0)), rel_tol=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_evidence_weight_has_the_transport_find_more_of_the_evidence(tmp_path: Path, seed: int) -> None:
    """Half of the rationale words name another image's class, so that nothing but the evidence term helps there."""
    _, config, _ = checkpoint.load(tiny_checkpoint(tmp_path / "checkpoint"))
    limits = config.selection
    rows, shown = _rows(400, torch.Generator().manual_seed(seed), width=config.image.selector_head_width)
    rows = replace(
        rows, words=torch.where((torch.arange(400) % 2 == 0)[:, None, None], rows.words, rows.words.roll(1, 0))
    )
    words = WordRows(vectors=rows.words, mask=rows.word_mask, scores=rows.rationale, chosen=rows.chosen)
    found = []
    for weight in (0.0, 1.0):
        torch.manual_seed(seed)
        selector = ImageSelector(config.image, limits.space_width, 5)
        word_space = nn.Linear(rows.words.shape[2], limits.space_width)
        settings = SpaceSettings(n_evidence=4, temperature=0.1, n_epochs=10, evidence_weight=weight)
        fit_space.fit_space(selector, word_space, rows, settings)
        selected = select_patches(selector.eval(), word_space, rows.patches, words, limits)
        found.append(float((selected & shown).sum(1).float().mean()))
    assert found[1] > 1.2 * found[0]
