"""The shipped kind on a GPU: posts go through both stages in parts of a batch, and images are scaled there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model import patches
from model.batches import REPLAYED_STEP, Padded, padded
from model.classifier import (
    NO_IMAGE,
    ChosenWords,
    RationaleClassifier,
    Selection,
    choose_from,
    choose_patches,
    fuse,
)
from model.config import ModelConfig
from model.inputs import EncodedExample, encode_text
from model.network import ImageSelection, Network
from model.patches import BLANK
from model.records import Example, Pixels, Prediction
from model.replayed import Replayed, ReplayedModule
from model.scaling import ImageStack
from model.sending import Answer, sent
from model.tokens import WordTokenizer
from model.transfer import is_flat
from model.transport import cosine_cost, ipot, patch_scores
from model.turns import Turns, by_likeness
from model.vision import Kept, VisionTower, cells_to_patches


class BatchedRationaleClassifier(RationaleClassifier):
    """The same predictions as `RationaleClassifier`'s up to rounding, which what shares the call may change.

    In bf16 that may tip a word or patch at the border of the budget.
    """

    def __init__(
        self,
        network: Network,
        config: ModelConfig,
        tokenizer: WordTokenizer,
        *,
        device: str = "cuda",
        exact: bool = False,
        part_size: int = 256,
        replays: bool = True,
    ) -> None:
        super().__init__(network, config, tokenizer, device=device, exact=True)
        self.part_size = part_size
        stages = (network.text_selector, network.image_selector, network.text_decider)
        if not exact:
            for module in (*(stage.encoder for stage in stages), network.image_decider.tower):
                module.to(torch.bfloat16)
        self._scored: Callable[..., tuple[Tensor, ...]] = self._transport
        if replays:
            for stage in stages:
                stage.encoder = ReplayedModule(stage.encoder)  # type: ignore[assignment]
            network.image_decider.tower = ReplayedTower(network.image_decider.tower)  # type: ignore[assignment]
            self._scored = Replayed(self._transport)

    def encode(self, examples: Sequence[Example]) -> list[EncodedExample]:
        """The examples with their texts split and encoded ahead, in whichever thread."""
        return [encode_text(example, self.tokenizer) for example in examples]

    @torch.inference_mode()
    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction per example, in order; raises `ModelError`, never NaN."""
        return by_likeness(self.encode(examples), self._predicting, self.part_size)

    def _predicting(self, examples: Sequence[EncodedExample]) -> Turns[list[Prediction]]:
        """A part of a call: all of its posts have an image that stage 1 looks at or leaves alone, or none has one."""
        config, network = self.config, self.network
        whole = self.padded([example.tokens.input_ids for example in examples])
        stage = network.text_selector(network.embeddings(whole.input_ids), whole.mask, whole.lengths)
        token_probs = Answer(stage.token_logits.sigmoid())
        images = [patches.check_image(example.image) for example in examples if example.image is not None]
        stack = self.stack(images) if images else None
        seen = None
        if stack is not None and examples[0].image_rationale:
            seen = network.image_selector(normalised(stack.scaled()))
        yield
        chosen = [
            choose_from(example.words, example.tokens, row.tolist(), config.selection)
            for example, row in zip(examples, token_probs.get(), strict=True)
        ]
        if seen is not None:
            selections = yield from self._choosing_patches(
                stage.token_vectors, seen, examples, chosen, self._filled(images)
            )
        elif images:
            selections = [one.with_patches((), self._spread_patches()) for one in chosen]
        else:
            selections = [one.with_patches((), (), NO_IMAGE) for one in chosen]
        text, image = self._logits(examples, selections, stack)
        yield
        texts = text.get()
        pictures = None if image is None else image.get()
        return [
            self._told(
                example,
                selection,
                fuse(
                    config,
                    texts[k] if selection.words else None,
                    pictures[k] if pictures is not None and selection.patches else None,
                ),
            )
            for k, (example, selection) in enumerate(zip(examples, selections, strict=True))
        ]

    def _choosing_patches(
        self,
        token_vectors: Tensor,
        seen: ImageSelection,
        examples: Sequence[EncodedExample],
        chosen: Sequence[ChosenWords],
        filled: Tensor,
    ) -> Turns[list[Selection]]:
        """The whole choice for each example, as `RationaleClassifier.select` makes it."""
        n_patches = self.config.selection.n_patches
        answer = Answer(self._patch_scores(token_vectors, seen, examples, chosen, filled))
        yield
        scores = [tuple(row.tolist()) for row in answer.get()]
        flat = [bool(one.words) and is_flat(row, n_patches) for one, row in zip(chosen, scores, strict=True)]
        if any(flat):
            wordless = [replace(one, words=()) for one in chosen]
            answer = Answer(self._patch_scores(token_vectors, seen, examples, wordless, filled))
            yield
            told = answer.get()
            scores = [tuple(told[k].tolist()) if flat[k] else row for k, row in enumerate(scores)]
        return [
            choose_patches(one, row, n_patches, flat=is_so)
            for one, row, is_so in zip(chosen, scores, flat, strict=True)
        ]

    def _filled(self, images: Sequence[Pixels]) -> Tensor:
        """Which patches of each image hold a pixel, (B, P)."""
        grid = self.config.image
        return torch.stack([patches.non_empty(*image.shape[:2], grid.rows, grid.cols) for image in images])

    def _patch_scores(
        self,
        token_vectors: Tensor,
        seen: ImageSelection,
        examples: Sequence[EncodedExample],
        chosen: Sequence[ChosenWords],
        filled: Tensor,
    ) -> Tensor:
        """Patch scores (B, P) for the images of the examples; `filled` (B, P) are the patches with a pixel."""
        B, T = token_vectors.shape[:2]
        n_words = [example.tokens.n_words for example in examples]
        W = max(1, -(-max(n_words) // REPLAYED_STEP)) * REPLAYED_STEP
        owners = np.full((B, T), -1)
        words, rationale = np.zeros((B, W), dtype=bool), np.zeros((B, W), dtype=bool)
        for row, (example, one) in enumerate(zip(examples, chosen, strict=True)):
            owners[row, : len(example.tokens.words)] = example.tokens.words
            words[row, : n_words[row]] = True
            rationale[row, list(one.words)] = True
        masks = (sent(torch.from_numpy(array), self._device) for array in (owners, words, rationale))
        (scores,) = self._scored(
            token_vectors, *masks, seen.patch_vectors, seen.class_logits, sent(filled, self._device)
        )
        return scores

    def _transport(
        self,
        token_vectors: Tensor,
        owners: Tensor,
        word_mask: Tensor,
        rationale_mask: Tensor,
        patch_vectors: Tensor,
        class_logits: Tensor,
        patch_mask: Tensor,
    ) -> tuple[Tensor]:
        """Where a row has no rationale the class prototypes stand in for its words, as in `transfer.meet`."""
        prototypes, limits = self.network.image_selector.prototypes, self.config.selection
        n_classes, W = len(prototypes), word_mask.shape[1]
        places = torch.arange(W, device=word_mask.device)
        bare = ~rationale_mask.any(1, keepdim=True)  # (B, 1)
        words = word_means(token_vectors, owners, W)
        words = torch.where(bare[:, :, None], F.pad(prototypes, (0, 0, 0, W - n_classes)), words)
        word_mask = torch.where(bare, places < n_classes, word_mask)
        rationale_mask = torch.where(bare, places == class_logits.argmax(1, keepdim=True), rationale_mask)
        cost = cosine_cost(words, patch_vectors)
        plan = ipot(cost, word_mask, patch_mask, beta=limits.beta, n_steps=limits.n_steps)
        return (patch_scores(plan, rationale_mask),)

    def _logits(
        self, examples: Sequence[EncodedExample], selections: Sequence[Selection], stack: ImageStack | None
    ) -> tuple[Answer, Answer | None]:
        """Log-probabilities (B, 5) by each expert, from what is selected alone; of no use where that is nothing."""
        network, tokenizer = self.network, self.tokenizer
        left = self.padded(
            [
                tokenizer.encode_selected(example.words if one.words else (), one.words).input_ids
                for example, one in zip(examples, selections, strict=True)
            ]
        )
        text = network.text_decider(network.embeddings(left.input_ids), left.mask)
        image = None
        if stack is not None:
            keep = stack.kept([selection.patches for selection in selections])
            decider = network.image_decider
            cells = Kept.of(cells_to_patches(keep, decider.rows, decider.tower.side)).to(self._device)
            image = decider.class_head(decider.tower(normalised(stack.scaled(sent(keep, self._device))), cells))
        return _log_probs(text), None if image is None else _log_probs(image)

    def stack(self, images: Sequence[Pixels]) -> ImageStack:
        """The images, at least one, on the device."""
        grid = self.config.image
        return ImageStack.of(
            images, size_px=grid.size_px, grid=(grid.rows, grid.cols), kind="bilinear", device=self._device
        )

    def padded(self, ids: Sequence[list[int]]) -> Padded:
        """Wordpieces as a batch on the device."""
        return padded(ids, self.tokenizer.pad_id, step=REPLAYED_STEP).to(self._device)


class ReplayedTower(nn.Module):
    """A vision tower, replayed."""

    def __init__(self, tower: VisionTower) -> None:
        super().__init__()
        self.tower, self.side = tower, tower.side
        self._replayed = Replayed(lambda pixels, order, attend: (tower(pixels, Kept(order=order, attend=attend)),))

    def forward(self, pixel_values: Tensor, keep: Tensor | Kept) -> Tensor:
        """As `VisionTower.forward`."""
        kept = keep if isinstance(keep, Kept) else Kept.of(keep)
        (pooled,) = self._replayed(pixel_values, kept.order, kept.attend)
        return pooled


def word_means(token_vectors: Tensor, owners: Tensor, n_words: int) -> Tensor:
    """Mean vector of each word (B, W, E) over its pieces (B, T, E), zero without any.

    `owners` (B, T) is each piece's word, -1 for none.
    """
    member = owners[:, None, :] == torch.arange(n_words, device=owners.device)[None, :, None]  # (B, W, T)
    weights = member.to(token_vectors.dtype)
    return weights @ token_vectors / weights.sum(2, keepdim=True).clamp(min=1)


def normalised(levels: Tensor) -> Tensor:
    """Normalised as `patches.to_pixel_values` does."""
    return (levels.float() - BLANK) / 128.0


def _log_probs(class_logits: Tensor) -> Answer:
    return Answer(class_logits.float().log_softmax(1))
