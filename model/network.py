"""Stage 1 (selector) and stage 2 (decider): separate weights, tensors in and named tensors out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.config import ImageConfig, ModelConfig, TextConfig
from model.encoders import Embeddings, LiteEncoder, TextEncoder, drawn
from model.records import HUMANITARIAN
from model.sending import sent
from model.vision import VisionTower, cells_to_patches


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSelection:
    token_logits: Tensor  # (B, T) pre-sigmoid rationale scores
    class_logits: Tensor  # (B, 5) auxiliary
    token_vectors: Tensor  # (B, T, E) in the space shared with patches


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSelection:
    patch_vectors: Tensor  # (B, P, E)
    class_logits: Tensor  # (B, 5) auxiliary


class TextSelector(nn.Module):
    """Reads the whole text: a rationale score, a class guess and a shared-space vector per wordpiece."""

    def __init__(self, text: TextConfig, space_width: int, n_classes: int) -> None:
        super().__init__()
        self.encoder = TextEncoder(text.n_selector_layers, text.width, text.n_heads, text.ff_width)
        self.gru = nn.GRU(text.width, text.gru_width, batch_first=True, bidirectional=True)
        self.token_head = nn.Linear(2 * text.gru_width, 1)
        self.class_head = nn.Linear(text.width, n_classes)
        self.space = nn.Linear(text.width, space_width)

    def forward(
        self, embedded: Tensor, attention_mask: Tensor | None = None, lengths: Tensor | None = None
    ) -> TextSelection:
        """`lengths` as in `run_gru`."""
        hidden = self.encoder(embedded, attention_mask)  # (B, T, D)
        states = run_gru(self.gru, hidden, attention_mask, lengths)
        return TextSelection(
            token_logits=self.token_head(states).squeeze(2),
            class_logits=self.class_head(masked_mean(hidden, attention_mask)),
            token_vectors=self.space(hidden),
        )


class ImageSelector(nn.Module):
    """Places patches in the shared space and holds one prototype per class there."""

    def __init__(self, image: ImageConfig, space_width: int, n_classes: int) -> None:
        super().__init__()
        self.encoder = LiteEncoder(image.selector_width, image.selector_depth, image.selector_head_width)
        self.space = nn.Linear(image.selector_head_width, space_width)
        self.prototypes = nn.Parameter(drawn(n_classes, space_width))
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, pixel_values: Tensor) -> ImageSelection:
        return self.project(self.encoder(pixel_values))

    def project(self, patches: Tensor) -> ImageSelection:
        """From encoder patches (B, P, C); class evidence is pooled softly over patches."""
        vectors = self.space(patches)
        near = nn.functional.normalize(vectors, dim=2) @ nn.functional.normalize(self.prototypes, dim=1).T
        patch_logits = near * self.log_scale.exp()  # (B, P, 5)
        return ImageSelection(patch_vectors=vectors, class_logits=soft_max_pool(patch_logits))


class TextDecider(nn.Module):
    """Classifies the selected words alone; further tasks have a head each on the same encoder."""

    def __init__(self, text: TextConfig, n_classes: int, further: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.encoder = TextEncoder(text.n_decider_layers, text.width, text.n_heads, text.ff_width)
        self.class_head = nn.Linear(text.width, n_classes)
        self.further = _heads(text.width, further)

    def forward(self, embedded: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        class_logits: Tensor = self.class_head(self.pool(embedded, attention_mask))  # (B, 5)
        return class_logits

    def pool(self, embedded: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """What the heads read, (B, D)."""
        return masked_mean(self.encoder(embedded, attention_mask), attention_mask)


class ImageDecider(nn.Module):
    """Classifies an image from the selected cells alone: no other patch is ever embedded."""

    def __init__(self, image: ImageConfig, n_classes: int, further: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.rows = image.rows
        self.tower = VisionTower(
            size_px=image.size_px,
            patch_px=image.decider_patch_px,
            width=image.decider_width,
            n_layers=image.decider_layers,
            n_heads=image.decider_heads,
        )
        self.class_head = nn.Linear(image.decider_width, n_classes)
        self.further = _heads(image.decider_width, further)

    def forward(self, pixel_values: Tensor, patch_mask: Tensor) -> Tensor:
        """(B, 3, S, S) and the selected cells (B, P) to class logits (B, 5)."""
        class_logits: Tensor = self.class_head(self.pool(pixel_values, patch_mask))
        return class_logits

    def pool(self, pixel_values: Tensor, patch_mask: Tensor) -> Tensor:
        """What the heads read, (B, D): [CLS]."""
        pooled: Tensor = self.tower(pixel_values, cells_to_patches(patch_mask, self.rows, self.tower.side))
        return pooled


class Network(nn.Module):
    """All weights of a checkpoint. The frozen wordpiece embeddings are the only ones both stages read."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        text, image, n_classes = config.text, config.image, len(config.classes)
        space_width = config.selection.space_width
        further = {name: len(task.classes) for name, task in config.further.items()}
        self.embeddings = Embeddings(text.n_pieces, text.max_tokens, text.width)
        self.text_selector = TextSelector(text, space_width, n_classes)
        self.image_selector = ImageSelector(image, space_width, n_classes)
        self.text_decider = TextDecider(text, n_classes, further)
        self.image_decider = ImageDecider(image, n_classes, further)


def run_gru(gru: nn.GRU, hidden: Tensor, attention_mask: Tensor | None, lengths: Tensor | None = None) -> Tensor:
    """A GRU's states (B, T, 2 H), never over padding; without a mask every position is real.

    `lengths` (B,) on the CPU are the mask's sums, for which one on a GPU would have to be waited for.
    """
    if attention_mask is None:
        states: Tensor = gru(hidden)[0]
        return states
    if lengths is None:
        lengths = attention_mask.sum(1).cpu()
    # sorted here, since packing would copy its own order to a GPU and wait
    order = lengths.argsort(descending=True, stable=True)
    by_length = hidden[sent(order, hidden.device)]
    packed = nn.utils.rnn.pack_padded_sequence(by_length, lengths[order], batch_first=True)
    states, _ = nn.utils.rnn.pad_packed_sequence(gru(packed)[0], batch_first=True, total_length=hidden.shape[1])
    return states[sent(order.argsort(), hidden.device)]


def head_of(decider: TextDecider | ImageDecider, task: str) -> nn.Module:
    """What makes a task's class logits (B, C) of what the decider pooled."""
    return decider.class_head if task == HUMANITARIAN else decider.further[task]


def masked_mean(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """The mean over real positions, (B, N, D) to (B, D)."""
    if mask is None:
        return hidden.mean(1)
    weights = mask.to(hidden.dtype)[:, :, None]
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def soft_max_pool(patch_logits: Tensor) -> Tensor:
    """Log-mean-exp over patches: a strong patch counts, a lone one does not decide; (B, P, C) to (B, C)."""
    return torch.logsumexp(patch_logits, dim=1) - torch.log(torch.tensor(float(patch_logits.shape[1])))


def _heads(width: int, further: Mapping[str, int] | None) -> nn.ModuleDict:
    return nn.ModuleDict({task: nn.Linear(width, n_classes) for task, n_classes in (further or {}).items()})
