"""The cross-modal transfer: words and patches in their shared space, and the patch scores that transport gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model import patches
from model.config import ModelConfig
from model.network import ImageSelector, TextSelection
from model.records import Pixels
from model.tokens import Tokens
from model.transport import cosine_cost, ipot, patch_scores

_FLAT = 1e-5  # of the highest score; rounding spreads equal ones by some 1e-7, words by far more


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """One post's words and patches where a cosine between them means something."""

    words: Tensor  # (1, W, E); class prototypes where the post has no rationale words
    rationale: tuple[int, ...]  # which of them are the rationale
    patches: Tensor  # (1, P, E)
    patch_mask: Tensor  # (1, P) bool, False for patches without a pixel


def word_vectors(tokens: Tokens, stage: TextSelection) -> Tensor:
    """Mean vector of each word that fitted, (1, W, E); a word without pieces stays at zero."""
    owners = torch.tensor(tokens.words, device=stage.token_vectors.device)
    real = owners >= 0
    vectors = stage.token_vectors.new_zeros(tokens.n_words, stage.token_vectors.shape[2])
    vectors.index_add_(0, owners[real], stage.token_vectors[0, real])
    counts = torch.bincount(owners[real], minlength=tokens.n_words).clamp(min=1)
    return (vectors / counts[:, None])[None]


def meet(
    selector: ImageSelector,
    config: ModelConfig,
    image: Pixels,
    pixel_values: Tensor,
    words: Tensor | None,
    chosen: Sequence[int],
) -> Space:
    """The patches of an image, scaled to `pixel_values` (3, S, S), with the words.

    Without rationale words the class prototypes stand in for them, and the likeliest one's is the rationale.
    """
    grid = config.image
    device = selector.prototypes.device
    seen = selector(pixel_values[None].to(device))
    if words is None or not chosen:
        words, chosen = selector.prototypes[None], (int(seen.class_logits[0].argmax()),)
    filled = patches.non_empty(image.shape[0], image.shape[1], grid.rows, grid.cols)
    return Space(words=words, rationale=tuple(chosen), patches=seen.patch_vectors, patch_mask=filled[None].to(device))


def transport(space: Space, *, beta: float, n_steps: int) -> Tensor:
    """Patch scores (P,) of the rationale words' mass under the transport plan over all words."""
    cost = cosine_cost(space.words, space.patches)
    word_mask = torch.ones(cost.shape[:2], dtype=torch.bool, device=cost.device)
    plan = ipot(cost, word_mask, space.patch_mask, beta=beta, n_steps=n_steps)
    rationale = torch.zeros_like(word_mask)
    rationale[0, list(space.rationale)] = True
    return patch_scores(plan, rationale)[0]


def is_flat(scores: Sequence[float], n_patches: int) -> bool:
    """Whether the n best would be picked by rounding alone: more patches have a score, and all have the same.

    Transport over one word gives such a map, whatever the image shows: each patch leaves it all of its mass.
    """
    told = [score for score in scores if score > 0.0]
    return len(told) > n_patches and max(told) - min(told) <= _FLAT * max(told)
