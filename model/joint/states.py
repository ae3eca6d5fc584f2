"""What every joint encoder takes and gives, so that both stages and the transfer never ask which one it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace

from torch import Tensor, nn

from model.sending import sent

Grid = tuple[int, int]  # rows, cols


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """A padded batch. Without any image in it `pixel_values` and `seen` are None."""

    input_ids: Tensor  # (B, T)
    attention_mask: Tensor  # (B, T) bool
    pixel_values: Tensor | None = None  # (B, 3, H, W), zero where an image is padded or absent
    pixel_mask: Tensor | None = None  # (B, H, W) bool, True = inside an image
    seen: Tensor | None = None  # (B, P, C) cached `JointEncoder.see`, in place of pixels
    lengths: Tensor | None = None  # (B,) the mask's sums, on the CPU; None: to be summed

    def to(self, device: str) -> Inputs:
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "lengths"}
        return replace(self, **{key: sent(value, device) for key, value in values.items() if value is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class JointStates:
    """Words and patches that have seen one another; patches are row-major over the batch's grid."""

    token_states: Tensor  # (B, T, D)
    patch_states: Tensor  # (B, P, D)
    pooled: Tensor  # (B, D)
    grid: Grid  # of the padded batch, P = rows * cols; (0, 0) without images
    patch_mask: Tensor  # (B, P) bool, True = inside the image
    token_space: Tensor  # (B, T, E) where a cosine with a patch means something: transport happens here
    patch_space: Tensor  # (B, P, E)


class JointEncoder(nn.Module, ABC):
    """(input_ids, attention_mask, pixel_values, pixel_mask) -> JointStates; patch k is cell k of the image, always."""

    width: int
    patch_px: int

    @abstractmethod
    def see(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, P, C): patches before any word is known, so cacheable while frozen."""

    @abstractmethod
    def join(self, input_ids: Tensor, attention_mask: Tensor, seen: Tensor | None, patch_mask: Tensor) -> JointStates:
        """Words with patches already seen; `patch_mask` is (B, rows, cols), (B, 0, 0) without images."""

    @abstractmethod
    def seeing(self) -> nn.Module:
        """The module behind `see`, for freezing."""

    @abstractmethod
    def word_embedding(self) -> nn.Embedding:
        """The wordpiece table, for gradient evidence."""

    def alignment_loss(self, states: JointStates, word_mask: Tensor) -> Tensor | None:
        """What ties words and patches to one space, or None where pre-training did; `word_mask` is (B, T)."""
        return None

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor | None, pixel_mask: Tensor | None
    ) -> JointStates:
        return self.encode(
            Inputs(input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixel_values, pixel_mask=pixel_mask)
        )

    def encode(self, inputs: Inputs) -> JointStates:
        seen = inputs.seen
        if seen is None and inputs.pixel_values is not None and inputs.pixel_mask is not None:
            seen = self._see_pictured(inputs.pixel_values, inputs.pixel_mask.flatten(1).any(1))
        if inputs.pixel_mask is None:
            patch_mask = inputs.attention_mask.new_zeros(len(inputs.input_ids), 0, 0)
        else:
            patch_mask = inputs.pixel_mask[:, :: self.patch_px, :: self.patch_px]  # (B, rows, cols)
        return self.join(inputs.input_ids, inputs.attention_mask, seen, patch_mask)

    def _see_pictured(self, pixel_values: Tensor, pictured: Tensor) -> Tensor:
        """`see` for the rows that have an image, which are few in most posts' batches; zeros, all masked, elsewhere."""
        if pictured.all():
            return self.see(pixel_values)
        some = self.see(pixel_values[pictured])
        seen = some.new_zeros(len(pictured), *some.shape[1:])
        seen[pictured] = some
        return seen
