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
def ipot(cost: Tensor, word_mask: Tensor, patch_mask: Tensor, *, beta: float, n_steps: int) -> Tensor:
    """The plan (B, P, W) with uniform marginals over the unmasked words and patches; padding has zero mass.

    Inexact Proximal point for Optimal Transport (Xie et al. 2020): the kernel is multiplied by the
    previous plan at every step, which sets it apart from Sinkhorn. In float32 a beta below 0.05 can leave the
    number range and give wrong masses or NaN.
    """
    B, W, P = cost.shape  # batch, words, patches
    joint = (patch_mask[:, :, None] & word_mask[:, None, :]).to(cost.dtype)  # (B, P, W)
    kernel = torch.exp(-cost.transpose(1, 2) / beta) * joint
    n_words = word_mask.sum(1, keepdim=True).clamp(min=1).to(cost.dtype)  # (B, 1)
    n_patches = patch_mask.sum(1, keepdim=True).clamp(min=1).to(cost.dtype)
    words_on, patches_on = word_mask.to(cost.dtype), patch_mask.to(cost.dtype)
    plan = joint
    sigma = words_on / n_words  # (B, W)
    for _ in range(n_steps):
        step = kernel * plan
        delta = patches_on / (n_patches * _row_sums(step, sigma, patch_mask))  # (B, P)
        sigma = words_on / (n_words * _row_sums(step.transpose(1, 2), delta, word_mask))
        plan = delta[:, :, None] * step * sigma[:, None, :]
    return plan


def _row_sums(matrix: Tensor, vector: Tensor, row_mask: Tensor) -> Tensor:
    sums = (matrix @ vector[:, :, None]).squeeze(2)
    return torch.where(row_mask, sums, torch.ones_like(sums))


def patch_scores(plan: Tensor, rationale_mask: Tensor) -> Tensor:
    """h_k = max over rationale words j of plan[k, j], scaled so that 1 is a patch's whole mass; (B, P)."""
    n_patches = (plan.sum(2) > 0).sum(1, keepdim=True).clamp(min=1).to(plan.dtype)
    masked = plan.masked_fill(~rationale_mask[:, None, :], 0.0)
    return (masked.amax(2) * n_patches).clamp(0.0, 1.0)
