"""Patches are scored and shown by one rule; a map that says nothing shows everything and is counted."""

import math

import pytest
import torch

from model.joint.config import TransferConfig
from model.joint.transfer import heatmap, score_patches
from model.transport import cosine_cost, ipot, patch_scores

REAL = torch.ones(1, 4, dtype=torch.bool)


def _scores(*values: float) -> torch.Tensor:
    return torch.tensor([values])


def test_hard_keeps_the_top_share_and_breaks_ties_to_the_lower_patch() -> None:
    shown = heatmap(_scores(0.5, 0.9, 0.5, 0.1), REAL, TransferConfig(top_share=0.5))
    assert shown.weights.tolist() == [[1.0, 1.0, 0.0, 0.0]]
    assert not shown.flat.any()


@pytest.mark.parametrize("n_patches", [10, 50, 90, 100])
def test_hard_keeps_no_patch_for_a_rounding_error(n_patches: int) -> None:
    """0.3 of 50 is 15, whatever float32 makes of it."""
    scores = torch.arange(1.0, n_patches + 1)[None]
    config = TransferConfig(heatmap="hard", top_share=0.3)
    shown = heatmap(scores, torch.ones(1, n_patches, dtype=torch.bool), config)
    assert int(shown.weights.sum()) == round(0.3 * n_patches)


def test_hard_never_keeps_a_zero_score() -> None:
    assert heatmap(_scores(0.0, 0.9, 0.0, 0.0), REAL, TransferConfig(top_share=1.0)).weights.sum() == 1


def test_the_share_is_of_the_image_not_of_the_padding() -> None:
    mask = torch.tensor([[True, True, False, False]])
    shown = heatmap(_scores(0.2, 0.3, 0.9, 0.9), mask, TransferConfig(top_share=0.5))
    assert shown.weights.tolist() == [[0.0, 1.0, 0.0, 0.0]]


def test_soft_is_the_published_scaling() -> None:
    """(h - mean) / std, clipped to 1..3, min-max: worked out for one hot patch of sixteen."""
    scores = torch.zeros(1, 16)
    scores[0, 5] = 1.0
    shown = heatmap(scores, torch.ones(1, 16, dtype=torch.bool), TransferConfig(heatmap="soft"))
    assert (1 - 1 / 16) / math.sqrt(1 / 16 * 15 / 16) > 3  # its z-score is clipped to 3
    assert shown.weights[0, 5] == 1.0 and shown.weights.sum() == 1.0


def test_soft_scales_between_one_and_the_highest() -> None:
    """Scores 0 x 7, 1, 2: mean 1/3, std sqrt(0.444); z is 1.0 and 2.5, so that the weights are 0 and 1."""
    scores = torch.tensor([[0.0] * 7 + [1.0, 2.0]])
    shown = heatmap(scores, torch.ones(1, 9, dtype=torch.bool), TransferConfig(heatmap="soft"))
    torch.testing.assert_close(shown.weights[0, 7:], torch.tensor([0.0, 1.0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("value", [0.0, 0.3])
def test_a_constant_map_shows_the_whole_image_and_says_so(kind: str, value: float) -> None:
    mask = torch.tensor([[True, True, True, False]])
    shown = heatmap(torch.full((1, 4), value), mask, TransferConfig(heatmap=kind))
    assert shown.flat.tolist() == [True]
    assert shown.weights.tolist() == [[1.0, 1.0, 1.0, 0.0]]


@pytest.mark.parametrize("method", ["ipot", "cosine", "attention"])
def test_scores_stay_on_real_patches_and_come_from_rationale_words(method: str) -> None:
    torch.manual_seed(0)
    patches = torch.eye(8)[None, :6]
    words = torch.cat([patches[:, 2:3], patches[:, 4:5], torch.randn(1, 2, 8)], dim=1)
    word_mask = torch.tensor([[True, True, False, False]])
    patch_mask = torch.tensor([[True, True, True, True, True, False]])
    config = TransferConfig(method=method, beta=0.1)
    for word, patch in ((0, 2), (1, 4)):
        rationale = torch.zeros(1, 4, dtype=torch.bool)
        rationale[0, word] = True
        scores = score_patches(words, patches, word_mask, rationale, patch_mask, config)
        assert scores[0, 5] == 0.0 and scores.max() <= 1.0
        assert scores.argmax() == patch


@pytest.mark.parametrize("method", ["ipot", "cosine", "attention"])
def test_scores_of_a_row_do_not_depend_on_what_shares_the_batch(method: str) -> None:
    torch.manual_seed(1)
    words, patches = torch.randn(32, 7, 16), torch.randn(32, 9, 16)
    word_mask = torch.arange(7)[None] < torch.randint(1, 8, (32, 1))
    patch_mask = torch.arange(9)[None] < torch.randint(1, 10, (32, 1))
    rationale = torch.rand(32, 7) < 0.4
    config = TransferConfig(method=method)
    together = score_patches(words, patches, word_mask, rationale, patch_mask, config)
    for row in range(0, 32, 5):
        part = slice(row, row + 1)
        alone = score_patches(words[part], patches[part], word_mask[part], rationale[part], patch_mask[part], config)
        torch.testing.assert_close(alone, together[part], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", ["ipot", "cosine", "attention"])
def test_half_precision_around_it_changes_no_score(method: str) -> None:
    """Stage 2 learns from what it will be shown: training runs in autocast, serving does not."""
    torch.manual_seed(2)
    words, patches = torch.randn(4, 7, 16), torch.randn(4, 9, 16)
    every, cells = torch.ones(4, 7, dtype=torch.bool), torch.ones(4, 9, dtype=torch.bool)
    config = TransferConfig(method=method)
    alone = score_patches(words, patches, every, every, cells, config)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(score_patches(words, patches, every, every, cells, config), alone)


def test_a_rationale_of_padding_alone_scores_nothing() -> None:
    word_mask = torch.tensor([[True, False]])
    rationale = torch.tensor([[False, True]])
    scores = score_patches(torch.randn(1, 2, 4), torch.randn(1, 4, 4), word_mask, rationale, REAL, TransferConfig())
    assert not scores.any()


@pytest.mark.parametrize("seed", range(4))
def test_transport_with_the_least_beta_is_right_in_float32(seed: int) -> None:
    """Scores of widely spread costs, against float64; a smaller beta is refused since they are wrong there."""
    torch.manual_seed(seed)
    cost = cosine_cost(torch.randn(16, 20, 16), torch.randn(16, 49, 16))
    words, patches = torch.ones(16, 20, dtype=torch.bool), torch.ones(16, 49, dtype=torch.bool)
    plan, exact = (ipot(c, words, patches, beta=0.05, n_steps=50) for c in (cost, cost.double()))
    torch.testing.assert_close(patch_scores(plan, words).double(), patch_scores(exact, words), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "wrong",
    [{"top_share": 0.0}, {"top_share": 1.5}, {"beta": 0.0}, {"beta": 0.01}, {"beta": math.nan}, {"n_steps": 0}],
)
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TransferConfig(**wrong)
