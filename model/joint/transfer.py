"""Carries the rationale from words to patches, without image labels and without gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from model.joint.config import TransferConfig
from model.transport import cosine_cost, ipot, patch_scores

_FLAT = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Heatmap:
    """What stage 2 may see of each image. A flat map says nothing, so it shows the whole image."""

    weights: Tensor  # (B, P) in 0..1, zero outside the image
    flat: Tensor  # (B,) bool


@torch.no_grad()
def score_patches(
    words: Tensor,
    patches: Tensor,
    word_mask: Tensor,
    rationale_mask: Tensor,
    patch_mask: Tensor,
    config: TransferConfig,
) -> Tensor:
    """Scores in 0..1, (B, P), from (B, W, E) words and (B, P, E) patches; in float32, within autocast too.

    Transport is over all real words, the maximum over rationale words only: a plan of rationale words
    alone would give every patch the same mass. Its kernel is multiplied at every step, and so is a rounded cost.
    """
    rationale_mask = rationale_mask & word_mask
    with torch.autocast(words.device.type, enabled=False):
        words, patches = words.float(), patches.float()
        if config.method == "ipot":
            plan = ipot(cosine_cost(words, patches), word_mask, patch_mask, beta=config.beta, n_steps=config.n_steps)
            return patch_scores(plan, rationale_mask)
        if config.method == "cosine":
            near = (2.0 - cosine_cost(words, patches)) / 2.0  # (B, W, P) in 0..1
        else:
            logits = words @ patches.transpose(1, 2) / math.sqrt(words.shape[2])
            near = logits.masked_fill(~patch_mask[:, None, :], torch.finfo(logits.dtype).min).softmax(2)
    near = near.masked_fill(~(rationale_mask[:, :, None] & patch_mask[:, None, :]), 0.0)
    return near.amax(1) if words.shape[1] else near.new_zeros(patch_mask.shape)


def heatmap(scores: Tensor, patch_mask: Tensor, config: TransferConfig) -> Heatmap:
    """Hard: the top share, ties to the lower index, never a zero score. Soft: (h - mean)/std, clipped to 1..3."""
    real = patch_mask.to(scores.dtype)
    n = real.sum(1, keepdim=True).clamp(min=1)  # (B, 1)
    top = scores.masked_fill(~patch_mask, -math.inf).amax(1)
    low = scores.masked_fill(~patch_mask, math.inf).amin(1)
    flat = ~(top - low > _FLAT * top.abs().clamp(min=_FLAT))
    if config.heatmap == "hard":
        wanted = torch.ceil(config.top_share * n - 1e-4).long()  # (B, 1)
        order = scores.masked_fill(~patch_mask, -1.0).sort(dim=1, descending=True, stable=True).indices
        rank = torch.empty_like(order).scatter_(
            1, order, torch.arange(scores.shape[1], device=order.device).expand_as(order)
        )
        weights = ((rank < wanted) & (scores > 0)).to(scores.dtype)
    else:
        mean = (scores * real).sum(1, keepdim=True) / n
        spread = (((scores - mean) * real).square().sum(1, keepdim=True) / n).sqrt()
        clipped = ((scores - mean) / spread.clamp(min=1e-12)).clamp(1.0, 3.0)
        highest = clipped.masked_fill(~patch_mask, 1.0).amax(1, keepdim=True)
        flat = flat | (highest.squeeze(1) <= 1.0 + _FLAT)
        weights = (clipped - 1.0) / (highest - 1.0).clamp(min=_FLAT)
    weights = torch.where(flat[:, None], torch.ones_like(weights), weights)
    return Heatmap(weights=weights * real, flat=flat)


def token_rationale(owners: list[int], chosen: set[int], width: int) -> Tensor:
    """The pieces of the chosen words, (width,) bool."""
    mask = torch.zeros(width, dtype=torch.bool)
    mask[: len(owners)] = torch.tensor([owner in chosen for owner in owners])
    return mask


def real_tokens(owners: list[int], width: int) -> Tensor:
    """The pieces of words, without the special ones and padding, (width,) bool."""
    return F.pad(torch.tensor([owner >= 0 for owner in owners]), (0, width - len(owners)))
