"""Other ways to score an image's patches, for comparison with the transport: each gives (P,) scores, best highest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.transfer import Space

Scores = npt.NDArray[np.float64]
Shown = tuple[int, ...]  # some of an image's patches
Decide = Callable[[Sequence[Shown]], Scores]  # the explained class's probability for each


def uniform_noise(n_patches: int, seed: int) -> Scores:
    """Random scores: the floor."""
    return np.random.default_rng(seed).random(n_patches)


def cosine(space: Space) -> Scores:
    """The best cosine with any rationale word, in place of transport."""
    words = torch.nn.functional.normalize(space.words[0, list(space.rationale)], dim=1)
    near = words @ torch.nn.functional.normalize(space.patches[0], dim=1).T  # (R, P)
    return without_empty(near.amax(0), space)


def activation_norm(space: Space) -> Scores:
    """The length of each patch's vector: what a convolutional encoder has in place of attention; no gradient."""
    return without_empty(space.patches[0].norm(dim=1), space)


def integrated_gradients(
    forward: Callable[[Tensor], Tensor], pixel_values: Tensor, rows: int, cols: int, *, n_steps: int
) -> Scores:
    """Integrated gradients (Sundararajan et al. 2017) from grey, summed over each patch; `forward` is (B, ...) to (B,).

    Captum's implementation, four points of the path at a time.
    """
    from captum.attr import IntegratedGradients

    per_pixel = IntegratedGradients(forward).attribute(pixel_values, n_steps=n_steps, internal_batch_size=4)
    per_pixel = per_pixel.detach().sum(1)[0]  # (S, S)
    cells = per_pixel.unflatten(0, (rows, -1)).unflatten(2, (cols, -1)).sum((1, 3))  # (rows, cols)
    return cells.flatten().double().cpu().numpy()  # type: ignore[no-any-return]


def rise(decide: Decide, n_patches: int, *, n_masks: int, seed: int) -> Scores:
    """RISE (Petsiuk et al. 2018): the mean probability under random masks that show a patch, half of all each time.

    Masks are whole patches, so that RISE has the same units to choose from as every other way. Centred by the
    mean over masks, which leaves the order as it is but makes a patch that is never shown count as average.
    """
    masks = np.random.default_rng(seed).random((n_masks, n_patches)) < 0.5
    probs = decide([tuple(np.flatnonzero(mask).tolist()) for mask in masks])
    shown = masks.sum(0)
    sums = masks.T @ (probs - probs.mean())
    return np.asarray(sums / np.maximum(1, shown), dtype=np.float64)


def without_empty(scores: Tensor, space: Space) -> Scores:
    """Patches that hold no pixel come last, as they do in the transport."""
    values: Scores = scores.masked_fill(~space.patch_mask[0], float("-inf")).double().cpu().numpy()
    return values
