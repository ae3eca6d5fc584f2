"""IPOT: the optimal-transport plan between words and patches that carries the rationale across (no gradient)."""

from __future__ import annotations

import torch
from torch import Tensor


def cosine_cost(words: Tensor, patches: Tensor) -> Tensor:
    """1 - cosine between (B, W, D) words and (B, P, D) patches, as (B, W, P)."""
    words = torch.nn.functional.normalize(words, dim=-1)
    patches = torch.nn.functional.normalize(patches, dim=-1)
    return 1.0 - words @ patches.transpose(1, 2)


@torch.no_grad()
def ipot(
    cost: Tensor,
    word_mask: Tensor,
    patch_mask: Tensor,
    *,
    beta: float,
    n_steps: int,
    patch_weights: Tensor | None = None,
) -> Tensor:
    """The plan (B, P, W) with a uniform marginal over the unmasked words; padding has zero mass.

    The marginal over the unmasked patches is uniform too, or in proportion to `patch_weights` (B, P), none negative.

    Inexact Proximal point for Optimal Transport (Xie et al. 2020): the kernel is multiplied by the
    previous plan at every step, which sets it apart from Sinkhorn. In float32 a beta below 0.05 can leave the
    number range and give wrong masses or NaN.
    """
    B, W, P = cost.shape  # batch, words, patches
    joint = (patch_mask[:, :, None] & word_mask[:, None, :]).to(cost.dtype)  # (B, P, W)
    kernel = torch.exp(-cost.transpose(1, 2) / beta) * joint
    n_words = word_mask.sum(1, keepdim=True).clamp(min=1).to(cost.dtype)  # (B, 1)
    words_on, weights = word_mask.to(cost.dtype), patch_mask.to(cost.dtype)
    if patch_weights is not None:
        weights = weights * patch_weights.to(cost.dtype)
    patch_mass = weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(cost.dtype).tiny)  # (B, P)
    plan = joint
    sigma = words_on / n_words  # (B, W)
    for _ in range(n_steps):
        step = kernel * plan
        delta = patch_mass / _row_sums(step, sigma, patch_mask)  # (B, P)
        sigma = words_on / (n_words * _row_sums(step.transpose(1, 2), delta, word_mask))
        plan = delta[:, :, None] * step * sigma[:, None, :]
    return plan


def _row_sums(matrix: Tensor, vector: Tensor, row_mask: Tensor) -> Tensor:
    sums = (matrix @ vector[:, :, None]).squeeze(2)
    return torch.where(row_mask, sums, torch.ones_like(sums))


def patch_scores(plan: Tensor, rationale_mask: Tensor) -> Tensor:
    """h_k = max over rationale words j of plan[k, j], scaled so that 1 is the heaviest patch's whole mass; (B, P)."""
    heaviest = plan.sum(2).amax(1, keepdim=True).clamp(min=torch.finfo(plan.dtype).tiny)  # (B, 1)
    most = plan.masked_fill(~rationale_mask[:, None, :], 0.0).amax(2)
    return torch.where(most > 0, most / heaviest, most).clamp(0.0, 1.0)  # without words the plan is not a number
