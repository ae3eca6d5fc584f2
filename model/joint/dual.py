"""A text tower and a CLIP vision tower, joined by a learned cross-modal transformer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.encoders import TextEncoder
from model.joint.alignment import alignment
from model.joint.states import JointEncoder, JointStates

_TEXT, _VISION = "text", "vision"  # folders of a weights folder


class DualEncoder(JointEncoder):
    """Towers are projected to one width, where the contrastive loss makes cosines meaningful, then joined."""

    def __init__(self, shape: Mapping[str, Any]) -> None:
        from transformers import AutoConfig, AutoModel, CLIPVisionConfig, CLIPVisionModel

        super().__init__()
        text = dict(shape[_TEXT])
        text_config = AutoConfig.for_model(text.pop("model_type"), **text)
        self.text = AutoModel.from_config(text_config, add_pooling_layer=False)
        self.vision = CLIPVisionModel(CLIPVisionConfig.from_dict(dict(shape[_VISION])))
        vision_config = self.vision.config
        self.width = int(shape["width"])
        self.patch_px = int(vision_config.patch_size)
        self.token_space = nn.Sequential(
            nn.LayerNorm(text_config.hidden_size), nn.Linear(text_config.hidden_size, self.width)
        )
        self.patch_space = nn.Sequential(
            nn.LayerNorm(vision_config.hidden_size), nn.Linear(vision_config.hidden_size, self.width)
        )
        self.log_scale = nn.Parameter(torch.tensor(2.5))
        self.modality = nn.Parameter(torch.zeros(2, self.width))
        self.summary = nn.Parameter(torch.randn(1, 1, self.width) * 0.02)
        self.cross = TextEncoder(int(shape["n_layers"]), self.width, int(shape["n_heads"]), 4 * self.width)
        self.pooler = nn.Linear(self.width, self.width)

    @classmethod
    def pretrained(cls, source: str, shape: Mapping[str, Any]) -> tuple[DualEncoder, dict[str, Any]]:
        """Both towers from `SOURCE/text` and `SOURCE/vision`, Hugging Face folders; the joining part is new."""
        from transformers import AutoModel, CLIPVisionModel

        text = AutoModel.from_pretrained(Path(source) / _TEXT, add_pooling_layer=False)
        vision = CLIPVisionModel.from_pretrained(Path(source) / _VISION)
        full = dict(shape) | {_TEXT: text.config.to_diff_dict(), _VISION: vision.config.to_diff_dict()}
        full[_TEXT]["model_type"] = text.config.model_type
        encoder = cls(full)
        encoder.text.load_state_dict(text.state_dict())
        encoder.vision.load_state_dict(vision.state_dict())
        return encoder, full

    def see(self, pixel_values: Tensor) -> Tensor:
        """(B, P, C) without the tower's own [CLS]."""
        native = pixel_values.shape[2:] == (self.vision.config.image_size,) * 2
        states: Tensor = self.vision(pixel_values, interpolate_pos_encoding=not native).last_hidden_state
        return states[:, 1:]

    def join(self, input_ids: Tensor, attention_mask: Tensor, seen: Tensor | None, patch_mask: Tensor) -> JointStates:
        B, rows, cols = patch_mask.shape  # batch, patch rows, patch columns
        T = input_ids.shape[1]  # tokens
        hidden: Tensor = self.text(
            input_ids=input_ids, attention_mask=_added(attention_mask, self.text.dtype)
        ).last_hidden_state
        tokens: Tensor = self.token_space(hidden)  # (B, T, D)
        patches: Tensor = tokens[:, :0] if seen is None else self.patch_space(seen)  # (B, P, D)
        flat = patch_mask.flatten(1)
        summary = self.summary.expand(B, -1, -1).to(tokens.dtype)
        laid = torch.cat([summary, tokens + self.modality[0], patches + self.modality[1]], dim=1)
        mask = torch.cat(
            [torch.ones_like(flat[:, :1] if flat.shape[1] else attention_mask[:, :1]), attention_mask, flat], 1
        )
        states: Tensor = self.cross(laid, mask)  # (B, 1 + T + P, D)
        return JointStates(
            token_states=states[:, 1 : T + 1],
            patch_states=states[:, T + 1 :],
            pooled=torch.tanh(self.pooler(states[:, 0])),
            grid=(rows, cols),
            patch_mask=flat,
            token_space=tokens,
            patch_space=patches,
        )

    def alignment_loss(self, states: JointStates, word_mask: Tensor) -> Tensor | None:
        return alignment(states, word_mask, self.log_scale)

    def seeing(self) -> nn.Module:
        return self.vision  # type: ignore[no-any-return]

    def word_embedding(self) -> nn.Embedding:
        return self.text.get_input_embeddings()  # type: ignore[no-any-return]


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What masks attention (B, 1, 1, T) by being added; a mask of two axes would be looked into, and waited for."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)[:, None, None, :]
