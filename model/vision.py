"""A CLIP vision tower that reads only the patches it is given; never resizes and never normalises pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.sending import sent

_LAYER_NORM_EPS = 1e-5
_QUICK_GELU = 1.702


class VisionLayer(nn.Module):
    """A pre-norm transformer layer as in CLIP (Radford et al. 2021)."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.attention_norm = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.output_norm = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, hidden: Tensor, attend: Tensor | None = None, *, n_first: int | None = None) -> Tensor:
        """(B, N, D) to the same, or to the states (B, n_first, D) of the first places alone, for less work."""
        B, N, D = hidden.shape  # batch, [CLS] and patches, width
        M = N if n_first is None else n_first
        qkv = self.qkv(self.attention_norm(hidden)).view(B, N, 3, self.n_heads, D // self.n_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, nh, N, hs)
        mixed = F.scaled_dot_product_attention(query[:, :, :M], key, value, attn_mask=attend)
        hidden = hidden[:, :M] + self.out(mixed.transpose(1, 2).reshape(B, M, D))
        grown = self.up(self.output_norm(hidden))
        summed: Tensor = hidden + self.down(grown * torch.sigmoid(_QUICK_GELU * grown))
        return summed


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A patch mask as what is gathered by it; making one from a mask on a GPU waits for the GPU."""

    order: Tensor  # (B, N) indices of kept patches in grid order, then of others where a row keeps fewer than N
    attend: Tensor | None  # (B, 1, 1, 1 + N) bool, False for those others; None when there are none

    @classmethod
    def of(cls, keep: Tensor) -> Kept:
        """From a mask (B, P), True = kept."""
        counts = keep.sum(1)
        n_kept = int(counts.max())
        order = keep.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices[:, :n_kept]
        if int(counts.min()) == n_kept:
            return cls(order=order, attend=None)
        real = torch.arange(n_kept + 1, device=keep.device) <= counts[:, None]  # (B, 1 + N)
        return cls(order=order, attend=real[:, None, None, :])

    def to(self, device: str) -> Kept:
        attend = None if self.attend is None else sent(self.attend, device)
        return Kept(order=sent(self.order, device), attend=attend)


class VisionTower(nn.Module):
    """Square images to [CLS] over the patches kept; what was not kept is never embedded.

    Computes in the dtype of its weights and answers in that of its input.
    """

    def __init__(self, *, size_px: int, patch_px: int, width: int, n_layers: int, n_heads: int) -> None:
        super().__init__()
        self.side = size_px // patch_px
        self.patches = nn.Conv2d(3, width, patch_px, patch_px)
        self.first = nn.Parameter(torch.zeros(width))
        self.positions = nn.Parameter(torch.zeros(1 + self.side**2, width))
        self.norm = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)
        self.layers = nn.ModuleList(VisionLayer(width, n_heads) for _ in range(n_layers))

    def forward(self, pixel_values: Tensor, keep: Tensor | Kept | None = None) -> Tensor:
        """(B, 3, S, S) and patch mask (B, P), True = kept, to [CLS] after the last layer, (B, D)."""
        hidden, attend = self.embedded(pixel_values, keep)
        return cls_after(self.layers, hidden, attend).to(pixel_values.dtype)

    def embedded(self, pixel_values: Tensor, keep: Tensor | Kept | None = None) -> tuple[Tensor, Tensor | None]:
        """What the first layer is given: states (B, 1 + N, D), N the most kept, and what may be attended to.

        Patches come in grid order; rows that keep fewer than N end in states that nothing attends to.
        """
        B, side, px = len(pixel_values), self.side, self.patches.kernel_size[0]
        pixels = (
            pixel_values.to(self.norm.weight.dtype).reshape(B, 3, side, px, side, px).permute(0, 2, 4, 1, 3, 5)
        )  # (B, side, side, 3, px, px)
        pixels, positions = pixels.flatten(1, 2), self.positions[1:].expand(B, -1, -1)  # (B, P, ...), (B, P, D)
        attend = None
        if keep is not None:
            kept = keep if isinstance(keep, Kept) else Kept.of(keep)
            rows = torch.arange(B, device=pixels.device)[:, None]
            pixels, positions = pixels[rows, kept.order], positions[rows, kept.order]
            attend = kept.attend
        patches = F.linear(pixels.flatten(2), self.patches.weight.flatten(1), self.patches.bias) + positions
        return self.norm(torch.cat([(self.first + self.positions[0]).expand(B, 1, -1), patches], dim=1)), attend


def cls_after(layers: Iterable[nn.Module], hidden: Tensor, attend: Tensor | None = None) -> Tensor:
    """[CLS] (B, D) after the layers: of the last one no other state is worked out, for nothing reads it."""
    *lower, last = layers
    for layer in lower:
        hidden = layer(hidden, attend)
    summed: Tensor = last(hidden, attend, n_first=1)[:, 0]
    return summed


def cells_to_patches(cells: Tensor, cells_side: int, patches_side: int) -> Tensor:
    """A mask over a coarse square grid (B, C) as one over a finer grid (B, P) that it divides."""
    times = patches_side // cells_side
    grid = cells.view(-1, cells_side, cells_side)
    finer: Tensor = grid.repeat_interleave(times, 1).repeat_interleave(times, 2).flatten(1)
    return finer
