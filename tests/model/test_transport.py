"""IPOT equals the formula, keeps its marginals, and gives padding nothing."""

import numpy as np
import torch

from model.transport import cosine_cost, ipot, patch_scores


def _reference(cost: np.ndarray, beta: float, n_steps: int) -> np.ndarray:
    """The paper's loop in float64 for one unpadded post; cost (W, P), plan (P, W)."""
    n_words, n_patches = cost.shape
    kernel = np.exp(-cost.T / beta)
    plan = np.ones((n_patches, n_words))
    sigma = np.ones(n_words) / n_words
    for _ in range(n_steps):
        step = kernel * plan
        delta = 1.0 / (n_patches * (step @ sigma))
        sigma = 1.0 / (n_words * (step.T @ delta))
        plan = delta[:, None] * step * sigma[None, :]
    return plan


def _masks(n_words: list[int], n_patches: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    words = torch.arange(max(n_words))[None] < torch.tensor(n_words)[:, None]
    patches = torch.arange(max(n_patches))[None] < torch.tensor(n_patches)[:, None]
    return words, patches


def test_plan_equals_the_formula_for_each_post_of_a_padded_batch() -> None:
    torch.manual_seed(0)
    cost = cosine_cost(torch.randn(3, 9, 8), torch.randn(3, 16, 8))
    words, patches = _masks([9, 4, 1], [16, 9, 12])
    plan = ipot(cost.double(), words, patches, beta=0.5, n_steps=50)
    for row, (n_words, n_patches) in enumerate([(9, 16), (4, 9), (1, 12)]):
        expected = _reference(cost[row, :n_words, :n_patches].double().numpy(), 0.5, 50)
        np.testing.assert_allclose(plan[row, :n_patches, :n_words].numpy(), expected, rtol=1e-9)


def test_marginals_are_uniform_and_padding_has_no_mass() -> None:
    torch.manual_seed(1)
    cost = cosine_cost(torch.randn(2, 6, 8), torch.randn(2, 10, 8))
    words, patches = _masks([6, 3], [10, 7])
    plan = ipot(cost, words, patches, beta=0.1, n_steps=200)
    for row, (n_words, n_patches) in enumerate([(6, 10), (3, 7)]):
        torch.testing.assert_close(plan[row].sum(0)[:n_words], torch.full((n_words,), 1 / n_words))
        # the row marginals are exact only in the limit
        rows = plan[row].sum(1)[:n_patches]
        torch.testing.assert_close(rows, torch.full((n_patches,), 1 / n_patches), atol=2e-3, rtol=0)
    assert plan[~patches].abs().sum() == 0 and plan.transpose(1, 2)[~words].abs().sum() == 0


def test_a_post_without_words_gives_zero_scores_not_nan() -> None:
    cost = torch.rand(1, 3, 4)
    plan = ipot(cost, torch.zeros(1, 3, dtype=torch.bool), torch.ones(1, 4, dtype=torch.bool), beta=0.1, n_steps=5)
    assert torch.equal(patch_scores(plan, torch.zeros(1, 3, dtype=torch.bool)), torch.zeros(1, 4))


def test_a_planted_patch_gets_the_rationale_words_mass() -> None:
    torch.manual_seed(2)
    words = torch.eye(8)[None, :4]  # word 0 is the rationale
    patches = torch.eye(8)[torch.tensor([1, 2, 3, 1, 2, 0, 3, 2])][None]  # only patch 5 looks like it
    every = torch.ones(1, 4, dtype=torch.bool)
    plan = ipot(cosine_cost(words, patches), every, torch.ones(1, 8, dtype=torch.bool), beta=0.1, n_steps=50)
    scores = patch_scores(plan, torch.tensor([[True, False, False, False]]))
    assert scores.argmax() == 5 and scores[0, 5] > 0.9
