"""The two backbones, inference-shaped: a BERT trunk and an EfficientNet-Lite with folded batch norms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LAYER_NORM_EPS = 1e-12
# (repeats, kernel, stride, expansion, channels out) of EfficientNet-Lite0; Lite2 scales them 1.1 wide, 1.2 deep
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM_CHANNELS = 32


class Embeddings(nn.Module):
    """Wordpiece and position vectors, shared by both stages and never fine-tuned."""

    def __init__(self, n_pieces: int, max_tokens: int, width: int) -> None:
        super().__init__()
        self.pieces = _embedding(n_pieces, width)
        self.positions = _embedding(max_tokens, width)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def forward(self, input_ids: Tensor) -> Tensor:
        B, T = input_ids.shape  # batch, tokens
        positions: Tensor = self.positions.weight[:T]  # (T, D)
        embedded: Tensor = self.norm(self.pieces(input_ids) + positions)  # (B, T, D)
        return embedded


def _embedding(n_rows: int, width: int) -> nn.Embedding:
    made: nn.Embedding = nn.Embedding.from_pretrained(drawn(n_rows, width), freeze=False)  # type: ignore[no-untyped-call]
    return made


def drawn(*shape: int) -> Tensor:
    """Normal first values; none on the meta device, where torch would import for seconds to draw them."""
    values = torch.empty(shape)
    return values if values.is_meta else values.normal_()


class TextLayer(nn.Module):
    """A post-norm transformer layer as in BERT."""

    def __init__(self, width: int, n_heads: int, ff_width: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.up = nn.Linear(width, ff_width)
        self.down = nn.Linear(ff_width, width)
        self.output_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, attend: Tensor | None) -> Tensor:
        B, T, D = hidden.shape  # batch, tokens, width
        qkv = self.qkv(hidden).view(B, T, 3, self.n_heads, D // self.n_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, nh, T, hs)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attend)
        mixed = mixed.transpose(1, 2).reshape(B, T, D)
        hidden = self.attention_norm(hidden + self.dropout(self.out(mixed)))
        grown = self.down(F.gelu(self.up(hidden)))
        normed: Tensor = self.output_norm(hidden + self.dropout(grown))
        return normed


class TextEncoder(nn.Module):
    """Transformer layers over embedded wordpieces; without a mask every position is real (no padding).

    Computes in the dtype of its weights and answers in that of its input.
    """

    def __init__(self, n_layers: int, width: int, n_heads: int, ff_width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TextLayer(width, n_heads, ff_width) for _ in range(n_layers))

    def forward(self, embedded: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        attend = None if attention_mask is None else attention_mask[:, None, None, :]  # (B, 1, 1, T)
        hidden = embedded.to(next(self.parameters()).dtype)
        for layer in self.layers:
            hidden = layer(hidden, attend)
        return hidden.to(embedded.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockShape:
    kernel: int
    stride: int
    expansion: int
    channels_in: int
    channels_out: int


def lite_blocks(width: float, depth: float) -> list[BlockShape]:
    """The blocks of an EfficientNet-Lite; first and last stage keep their repeats, as in the Lite family."""
    blocks: list[BlockShape] = []
    channels = _STEM_CHANNELS
    for index, (repeats, kernel, stride, expansion, base_channels) in enumerate(_STAGES):
        fixed = index in (0, len(_STAGES) - 1)
        out = _round_channels(base_channels * width)
        for repeat in range(repeats if fixed else math.ceil(depth * repeats)):
            blocks.append(
                BlockShape(
                    kernel=kernel,
                    stride=stride if repeat == 0 else 1,
                    expansion=expansion,
                    channels_in=channels,
                    channels_out=out,
                )
            )
            channels = out
    return blocks


def _round_channels(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class SameConv(nn.Conv2d):
    """A convolution with bias and TensorFlow's "same" padding (the extra pixel goes right and below)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(channels_in, channels_out, kernel, stride, padding=padding, groups=groups)
        total = kernel - stride
        self._pad = (total // 2, total - total // 2) * 2 if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if self._pad is None else F.pad(x, self._pad))


class LiteBlock(nn.Module):
    """An inverted bottleneck without squeeze-and-excitation; batch norms are folded into the convolutions."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        middle = shape.channels_in * shape.expansion
        self.expand = SameConv(shape.channels_in, middle, 1) if shape.expansion > 1 else None
        self.depthwise = SameConv(middle, middle, shape.kernel, shape.stride, groups=middle)
        self.project = SameConv(middle, shape.channels_out, 1)
        self.skip = shape.stride == 1 and shape.channels_in == shape.channels_out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        y = self.project(F.relu6(self.depthwise(y), inplace=True))
        return torch.add(x, y) if self.skip else y


class LiteEncoder(nn.Module):
    """EfficientNet-Lite without its classifier: (B, 3, S, S) to one vector per 32-px patch, (B, P, C) float32.

    Computes in the dtype of its weights.
    """

    def __init__(self, width: float, depth: float, head_width: int) -> None:
        super().__init__()
        shapes = lite_blocks(width, depth)
        self.stem = SameConv(3, _STEM_CHANNELS, 3, stride=2)
        self.blocks = nn.ModuleList(map(LiteBlock, shapes))
        self.head = SameConv(shapes[-1].channels_out, head_width, 1)

    def forward(self, pixel_values: Tensor) -> Tensor:
        x = pixel_values.to(dtype=self.stem.weight.dtype, memory_format=torch.channels_last)
        x = F.relu6(self.stem(x))
        for block in self.blocks:
            x = block(x)
        patches: Tensor = F.relu6(self.head(x))  # (B, C, h, w)
        return patches.flatten(2).transpose(1, 2).float()  # patches row-major
