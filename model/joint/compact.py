"""The shipped model's small encoders behind the joint interface; words and patches meet in its shared space only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from model.encoders import Embeddings, LiteEncoder, TextEncoder
from model.joint.alignment import alignment
from model.joint.states import JointEncoder, JointStates
from model.network import Network, masked_mean

_PATCH_PX = 32  # an EfficientNet-Lite halves five times


class CompactEncoder(JointEncoder):
    """A BERT trunk and an EfficientNet-Lite, each projected to one width; a patch also sees its neighbours."""

    def __init__(
        self,
        embeddings: Embeddings,
        text: TextEncoder,
        token_space: nn.Linear,
        image: LiteEncoder,
        patch_space: nn.Linear,
    ) -> None:
        super().__init__()
        self.embeddings, self.text, self.image = embeddings, text, image
        self.token_space, self.patch_space = token_space, patch_space
        self.width, self.patch_px = token_space.out_features, _PATCH_PX
        self.pooler = nn.Linear(2 * self.width, self.width)
        self.log_scale = nn.Parameter(torch.tensor(2.5))

    @classmethod
    def of_shape(cls, shape: Mapping[str, Any]) -> Self:
        """New weights; see the recipes for the keys."""
        text_width, head_width, width = shape["text_width"], shape["head_width"], shape["width"]
        return cls(
            Embeddings(shape["n_pieces"], shape["max_tokens"], text_width),
            TextEncoder(shape["n_layers"], text_width, shape["n_heads"], shape["ff_width"]),
            nn.Linear(text_width, width),
            LiteEncoder(shape["image_width"], shape["image_depth"], head_width),
            nn.Linear(head_width, width),
        )

    @classmethod
    def of_network(cls, network: Network) -> Self:
        """Stage 1 of a `compact` checkpoint, sharing its modules; only the pooler is new."""
        text, image = network.text_selector, network.image_selector
        return cls(network.embeddings, text.encoder, text.space, image.encoder, image.space)

    def see(self, pixel_values: Tensor) -> Tensor:
        patches: Tensor = self.image(pixel_values)
        return patches

    def join(self, input_ids: Tensor, attention_mask: Tensor, seen: Tensor | None, patch_mask: Tensor) -> JointStates:
        _, rows, cols = patch_mask.shape
        tokens: Tensor = self.token_space(self.text(self.embeddings(input_ids), attention_mask))  # (B, T, D)
        patches: Tensor = tokens[:, :0] if seen is None else self.patch_space(seen)  # (B, P, D)
        flat = patch_mask.flatten(1)
        both = torch.cat([masked_mean(tokens, attention_mask), masked_mean(patches, flat)], dim=1)
        return JointStates(
            token_states=tokens,
            patch_states=patches,
            pooled=torch.tanh(self.pooler(both)),
            grid=(rows, cols),
            patch_mask=flat,
            token_space=tokens,
            patch_space=patches,
        )

    def alignment_loss(self, states: JointStates, word_mask: Tensor) -> Tensor | None:
        return alignment(states, word_mask, self.log_scale)

    def seeing(self) -> nn.Module:
        return self.image

    def word_embedding(self) -> nn.Embedding:
        return self.embeddings.pieces
