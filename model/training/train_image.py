"""The image half of training, step by step: features, shared space, patch selection, stage 2's own encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from model import patches
from model.config import ImageConfig, SelectionConfig
from model.data import image_file
from model.data.datasets import ImageRow
from model.network import ImageSelector, TextSelector
from model.precision import mixed_precision
from model.records import Pixels
from model.selection import best_piece, choose_words
from model.training import fit_space
from model.training.fit_space import SpaceRows, SpaceSettings
from model.training.text_kit import TextKit
from model.transport import cosine_cost, ipot, patch_scores
from model.vision import VisionTower, cells_to_patches

Prepare = Callable[[int, Pixels], Pixels]
_MAX_WORDS = 40
BATCH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class WordRows:
    """Stage-1 words of N posts; posts without text have no real word."""

    vectors: Tensor  # (N, W, D) float16
    mask: Tensor  # (N, W)
    scores: Tensor  # (N, W)
    chosen: Tensor  # (N, W) bool


@torch.inference_mode()
def word_rows(rows: Sequence[ImageRow], kit: TextKit, selector: TextSelector) -> WordRows:
    """Encoder states (before the shared space), scores and choice of each post's first words."""
    N, W = len(rows), _MAX_WORDS
    vectors = torch.zeros(N, W, kit.config.width, dtype=torch.half)
    mask, chosen = torch.zeros(N, W, dtype=torch.bool), torch.zeros(N, W, dtype=torch.bool)
    scores = torch.zeros(N, W)
    for n, row in enumerate(rows):
        words = kit.tokenizer.split(row.text)
        if not any(word.selectable for word in words):
            continue
        tokens = kit.tokenizer.encode(words)
        hidden = selector.encoder(kit.embeddings(torch.tensor([tokens.input_ids])))  # (1, T, D)
        probs = selector.token_head(selector.gru(hidden)[0])[0, :, 0].sigmoid()
        word_scores = best_piece(probs.tolist(), tokens.words, words)
        owners = torch.tensor(tokens.words)
        for index in range(min(W, tokens.n_words)):
            own = owners == index
            vectors[n, index] = hidden[0, own].mean(0).half() if own.any() else 0.0
            mask[n, index] = True
            scores[n, index] = word_scores[index]
        for index in choose_words(words, word_scores, kit.selection):
            if index < W:
                chosen[n, index] = True
    return WordRows(vectors=vectors, mask=mask, scores=scores, chosen=chosen)


@torch.inference_mode()
def encode_images(rows: Sequence[ImageRow], encode: Callable[[Tensor], Tensor], size_px: int, title: str) -> Tensor:
    """`encode` over batches of whole images, stacked as float16; in mixed precision, so only for training."""
    outputs: list[Tensor] = []
    for start in tqdm(range(0, len(rows), BATCH), desc=title, mininterval=10.0):
        with mixed_precision():
            outputs.append(encode(pixel_batch(rows[start : start + BATCH], size_px)).half())
    return torch.cat(outputs)


def fit_image_space(
    selector: ImageSelector,
    word_space: nn.Linear,
    patch_rows: Tensor,
    words: WordRows,
    labels: Tensor,
    usable: Tensor,
    limits: SelectionConfig,
    seed: int,
) -> None:
    """Fits the shared space on the usable rows only."""
    index = usable.nonzero()[:, 0]
    rows = SpaceRows(
        patches=patch_rows[index],
        words=words.vectors[index],
        word_mask=words.mask[index],
        rationale=words.scores[index],
        chosen=words.chosen[index],
        labels=labels[index],
    )
    settings = SpaceSettings(n_evidence=limits.n_patches, temperature=limits.beta / limits.n_steps, seed=seed)
    fit_space.fit_space(selector, word_space, rows, settings)


@torch.inference_mode()
def select_patches(
    selector: ImageSelector, word_space: nn.Linear, patch_rows: Tensor, words: WordRows, limits: SelectionConfig
) -> Tensor:
    """Patch masks (N, P) by the classifier's rule: transport from words, or from class prototypes without any."""
    masks: list[Tensor] = []
    for start in range(0, len(patch_rows), 128):
        part = slice(start, start + 128)
        seen = selector.project(patch_rows[part].float())
        vectors = word_space(words.vectors[part].float())
        mask, chosen = words.mask[part].clone(), words.chosen[part].clone()
        bare = ~chosen.any(1)
        n_classes = len(selector.prototypes)
        vectors[bare, :n_classes] = selector.prototypes
        mask[bare] = torch.arange(mask.shape[1]) < n_classes
        chosen[bare] = F.one_hot(seen.class_logits[bare].argmax(1), mask.shape[1]).bool()
        cost = cosine_cost(vectors, seen.patch_vectors)
        whole = torch.ones(cost.shape[0], cost.shape[2], dtype=torch.bool)
        plan = ipot(cost, mask, whole, beta=limits.beta, n_steps=limits.n_steps)
        scores = patch_scores(plan, chosen)
        order = scores.sort(dim=1, descending=True, stable=True)
        kept = order.indices[:, : limits.n_patches]
        masks.append(torch.zeros_like(whole).scatter(1, kept, scores.gather(1, kept) > 0))
    return torch.cat(masks)


def keep_only(masks: Tensor, image: ImageConfig) -> Prepare:
    """A `prepare` that blanks everything outside each row's mask."""

    def prepare(index: int, pixels: Pixels) -> Pixels:
        return patches.blank_others(pixels, image.rows, image.cols, masks[index].nonzero()[:, 0].tolist())

    return prepare


@torch.inference_mode()
def tower_features(
    rows: Sequence[ImageRow], cells: Tensor, tower: VisionTower, image: ImageConfig, title: str
) -> Tensor:
    """[CLS] of a tower that sees only each row's cells (N, P), as (N, D) float16."""
    found: list[Tensor] = []
    for start in tqdm(range(0, len(rows), BATCH), desc=title, mininterval=10.0):
        part = slice(start, min(start + BATCH, len(rows)))
        pixel_values = pixel_batch(rows[part], image.size_px, keep_only(cells[part], image))
        found.append(tower(pixel_values, cells_to_patches(cells[part], image.rows, tower.side)).half())
    return torch.cat(found)


@torch.inference_mode()
def whole_features(rows: Sequence[ImageRow], tower: VisionTower, size_px: int) -> Tensor:
    """[CLS] of whole images, scaled with a sharp filter, as (N, D) float16."""
    found: list[Tensor] = []
    for start in tqdm(range(0, len(rows), BATCH), desc="whole images", mininterval=10.0):
        pixel_values = pixel_batch(
            rows[start : start + BATCH], size_px, lambda _, pixels: image_file.square(pixels, size_px)
        )
        found.append(tower(pixel_values).half())
    return torch.cat(found)


def pixel_batch(rows: Sequence[ImageRow], size_px: int, prepare: Prepare | None = None) -> Tensor:
    """Pixel values (N, 3, S, S) of the rows' images, each prepared by its index."""
    images = [image_file.read_image(row.path) for row in rows]
    if prepare is not None:
        images = [prepare(index, pixels) for index, pixels in enumerate(images)]
    return torch.stack([patches.to_pixel_values(pixels, size_px) for pixels in images])
