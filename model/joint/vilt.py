"""ViLT, the paper's encoder: one transformer over words and patches, patches in reading order.

Hugging Face's own `visual_embed` draws patches in a random order; it is never called here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.joint.states import JointEncoder, JointStates


class ViltEncoder(JointEncoder):
    """Words attend to patches from the first layer on; transport happens between the final states."""

    def __init__(self, shape: Mapping[str, Any]) -> None:
        from transformers import ViltConfig, ViltModel

        super().__init__()
        self.vilt = ViltModel(ViltConfig.from_dict(dict(shape)))
        self.width = int(self.vilt.config.hidden_size)
        self.patch_px = int(self.vilt.config.patch_size)

    @classmethod
    def pretrained(cls, source: str) -> tuple[ViltEncoder, dict[str, Any]]:
        """From a local folder or a hub id, with the shape that rebuilds it."""
        from transformers import ViltModel

        vilt = ViltModel.from_pretrained(source)
        shape: dict[str, Any] = vilt.config.to_diff_dict()
        encoder = cls(shape)
        encoder.vilt.load_state_dict(vilt.state_dict())
        return encoder, shape

    def see(self, pixel_values: Tensor) -> Tensor:
        patches: Tensor = self.vilt.embeddings.patch_embeddings(pixel_values)  # (B, D, rows, cols)
        return patches.flatten(2).transpose(1, 2)

    def join(self, input_ids: Tensor, attention_mask: Tensor, seen: Tensor | None, patch_mask: Tensor) -> JointStates:
        B, rows, cols = patch_mask.shape  # batch, patch rows, patch columns
        T = input_ids.shape[1]  # tokens
        table = self.vilt.embeddings.position_embeddings  # (1, 1 + grid, D), the image's [CLS] first
        cls = (self.vilt.embeddings.cls_token + table[:, :1]).expand(B, -1, -1)  # (B, 1, D)
        image_embeds = cls if seen is None else torch.cat([cls, seen + self._positions(patch_mask)], dim=1)
        flat = patch_mask.flatten(1)
        image_mask = torch.cat([flat.any(1, keepdim=True), flat], dim=1)  # (B, 1 + P); no image, no image [CLS]
        out = self.vilt(
            input_ids=input_ids,
            attention_mask=attention_mask.long(),
            image_embeds=self.vilt.embeddings.dropout(image_embeds),
            pixel_mask=image_mask.long(),
        )
        states: Tensor = out.last_hidden_state  # (B, T + 1 + P, D)
        tokens, patches = states[:, :T], states[:, T + 1 :]
        return JointStates(
            token_states=tokens,
            patch_states=patches,
            pooled=out.pooler_output,
            grid=(rows, cols),
            patch_mask=flat,
            token_space=tokens,
            patch_space=patches,
        )

    def seeing(self) -> nn.Module:
        return self.vilt.embeddings.patch_embeddings  # type: ignore[no-any-return]

    def word_embedding(self) -> nn.Embedding:
        return self.vilt.get_input_embeddings()  # type: ignore[no-any-return]

    def _positions(self, patch_mask: Tensor) -> Tensor:
        """The learnt positions stretched over each image's own rows and columns, (B, P, D); padding gets zeros."""
        table = self.vilt.embeddings.position_embeddings[:, 1:]
        side = int(table.shape[1] ** 0.5)
        square = table.transpose(1, 2).reshape(1, self.width, side, side)
        _, rows, cols = patch_mask.shape
        heights, widths = patch_mask.any(2).sum(1).tolist(), patch_mask.any(1).sum(1).tolist()
        stretched: dict[tuple[int, int], Tensor] = {}
        for size in set(zip(heights, widths, strict=True)):
            own = (
                F.interpolate(square, size=size, mode="bilinear", align_corners=True)
                if all(size)
                else square[..., :0, :0]
            )
            stretched[size] = F.pad(own, (0, cols - size[1], 0, rows - size[0]))
        laid = torch.cat([stretched[size] for size in zip(heights, widths, strict=True)])  # (B, D, rows, cols)
        return laid.flatten(2).transpose(1, 2)
