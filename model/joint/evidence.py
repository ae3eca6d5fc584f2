"""Stage 1 at work: which words and patches are a post's rationale, and what stage 2 may read of it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model import patches
from model.classifier import NO_EVIDENCE, NO_IMAGE, NO_RATIONALE_TOKEN, NO_TEXT, TEXT_TRUNCATED, Selection
from model.errors import ModelError
from model.joint.batch import Item, collate
from model.joint.config import EncoderConfig, TransferConfig, WordLimits
from model.joint.network import Selected, Selector
from model.joint.pixels import fade_others, grid_of, to_pixel_values
from model.joint.states import Grid, Inputs
from model.joint.transfer import heatmap, real_tokens, score_patches, token_rationale
from model.records import HUMANITARIAN, Example, Pixels
from model.selection import best_piece, choose_words
from model.text import Word
from model.tokens import Tokens, WordTokenizer

FLAT_HEATMAP = "flat_heatmap"  # the transfer told no patch from another: the whole image is shown

# without words a description of each class stands in for them, the likeliest class's as the rationale
_DESCRIPTIONS = (
    "injured dead missing people",
    "damaged collapsed buildings roads bridges",
    "ordinary life",
    "disaster news map",
    "rescue donations volunteers shelter",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """What turns posts into inputs and scores into a rationale; training and serving share it."""

    tokenizer: WordTokenizer
    encoder: EncoderConfig
    words: WordLimits
    transfer: TransferConfig
    device: str = "cpu"

    def batch(self, items: Sequence[Item]) -> Inputs:
        inputs = collate(items, pad_id=self.tokenizer.pad_id, patch_px=self.encoder.patch_px)
        return inputs.to(self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A whole post as stage 1 reads it."""

    text: str
    words: list[Word]
    tokens: Tokens
    item: Item
    full_patches: Tensor | None  # (P,) bool, cells that hold a pixel; None without an image


def read(example: Example, kit: Kit, seen: Tensor | None = None) -> Reading:
    """The post encoded; `seen` stands in for its pixels when the encoder has already looked at them."""
    words = kit.tokenizer.split(example.text)
    tokens = kit.tokenizer.encode(words)
    if example.image is None:
        return Reading(
            text=example.text, words=words, tokens=tokens, item=Item(input_ids=tokens.input_ids), full_patches=None
        )
    image = patches.check_image(example.image)
    grid = grid_of(image.shape[0], image.shape[1], kit.encoder)
    values = to_pixel_values(image, grid, kit.encoder) if seen is None else None
    return Reading(
        text=example.text,
        words=words,
        tokens=tokens,
        item=Item(input_ids=tokens.input_ids, grid=grid, pixel_values=values, seen=seen),
        full_patches=patches.non_empty(image.shape[0], image.shape[1], *grid),
    )


@torch.inference_mode()
def select(selector: Selector, readings: Sequence[Reading], kit: Kit) -> list[Selection]:
    """Stage 1's choice for each post, in order; the selector must be in eval mode."""
    out = selector(kit.batch([reading.item for reading in readings]))
    probs = _finite(out.token_logits.float().sigmoid()).cpu()
    partial = [_choose_words(reading, row.tolist(), kit) for reading, row in zip(readings, probs, strict=True)]
    wordless = [k for k, (_, chosen, _) in enumerate(partial) if readings[k].full_patches is not None and not chosen]
    maps: dict[int, tuple[tuple[float, ...], tuple[int, ...], bool]] = {}
    worded = [k for k, reading in enumerate(readings) if reading.full_patches is not None and k not in wordless]
    if worded:
        chosen_words = [(readings[k].tokens.words, set(partial[k][1])) for k in worded]
        maps |= zip(worded, _choose_patches(out, worded, chosen_words, readings, kit), strict=True)
    if wordless:
        described, owners = _describe(readings, wordless, kit)
        likeliest = out.class_logits[HUMANITARIAN][wordless].argmax(1).tolist()
        rationales = [(owners, {w for w, c in _description_words(kit) if c == label}) for label in likeliest]
        rows = list(range(len(wordless)))
        shown = [readings[k] for k in wordless]
        maps |= zip(
            wordless, _choose_patches(selector(kit.batch(described)), rows, rationales, shown, kit), strict=True
        )
    return [_selection(readings[k], *partial[k], maps.get(k)) for k in range(len(readings))]


def shown(example: Example, selection: Selection, kit: Kit) -> Item | None:
    """All that stage 2 may read of the post, hidden words as `*` and hidden patches grey; None without any evidence."""
    if not selection.words and not selection.patches:
        return None
    words = kit.tokenizer.split(example.text) if selection.words else []
    tokens = kit.tokenizer.encode_selected(words, selection.words, join_hidden=kit.words.stars == "run")
    if not selection.patches or example.image is None:
        return Item(input_ids=tokens.input_ids)
    grid = grid_of(example.image.shape[0], example.image.shape[1], kit.encoder)
    kept = _keep(example.image, grid, selection, kit.transfer)
    return Item(input_ids=tokens.input_ids, grid=grid, pixel_values=to_pixel_values(kept, grid, kit.encoder))


def _keep(image: Pixels, grid: Grid, selection: Selection, transfer: TransferConfig) -> Pixels:
    """A soft heatmap's own choice is faded by its scores; any other choice is shown at full strength."""
    own = tuple(k for k, score in enumerate(selection.patch_scores) if score > 0)
    if transfer.heatmap == "soft" and transfer.method != "off" and selection.patches == own:
        return fade_others(image, grid, selection.patch_scores)
    return patches.blank_others(image, *grid, selection.patches)


def _choose_words(reading: Reading, probs: list[float], kit: Kit) -> tuple[list[float], tuple[int, ...], list[str]]:
    scores = best_piece(probs, reading.tokens.words, reading.words)
    chosen = tuple(choose_words(reading.words, scores, kit.words, n_read=reading.tokens.n_words))
    fallbacks = [TEXT_TRUNCATED] if reading.tokens.truncated else []
    if not chosen:
        fallbacks.append(NO_TEXT)
    elif max(scores[index] for index in chosen) < kit.words.word_threshold:
        fallbacks.append(NO_RATIONALE_TOKEN)
    return scores, chosen, fallbacks


def _choose_patches(
    out: Selected,
    rows: Sequence[int],
    rationales: Sequence[tuple[list[int], set[int]]],
    readings: Sequence[Reading],
    kit: Kit,
) -> list[tuple[tuple[float, ...], tuple[int, ...], bool]]:
    """Scores, chosen patches and whether the map was flat, of each row, over the row's own grid."""
    states, T = out.states, out.token_logits.shape[1]
    device = states.patch_mask.device
    word_mask = torch.stack([real_tokens(owners, T) for owners, _ in rationales]).to(device)
    rationale = torch.stack([token_rationale(owners, chosen, T) for owners, chosen in rationales]).to(device)
    patch_mask = torch.zeros(len(rows), states.patch_mask.shape[1], dtype=torch.bool)
    cells: list[Tensor] = []
    for n, k in enumerate(rows):
        height, width = readings[k].item.grid
        cell = (torch.arange(height)[:, None] * states.grid[1] + torch.arange(width)[None]).flatten()
        full = readings[k].full_patches
        assert full is not None
        patch_mask[n, cell[full]] = True
        cells.append(cell)
    patch_mask = patch_mask.to(device)
    if kit.transfer.method == "off":
        scores = patch_mask.float()
        weights, flat = scores, torch.zeros(len(rows), dtype=torch.bool)
    else:
        if kit.transfer.method == "random":
            scores = torch.zeros(patch_mask.shape)
            for n, k in enumerate(rows):
                own = torch.Generator().manual_seed(zlib.crc32(readings[k].text.encode("utf-8", "surrogatepass")))
                scores[n, cells[n]] = torch.rand(len(cells[n]), generator=own)
            scores = scores.to(device) * patch_mask
        else:
            index = torch.tensor(rows, device=device)
            scores = score_patches(
                states.token_space[index], states.patch_space[index], word_mask, rationale, patch_mask, kit.transfer
            )
        heat = heatmap(_finite(scores), patch_mask, kit.transfer)
        weights, flat = heat.weights, heat.flat
    told = weights if kit.transfer.heatmap == "soft" else scores
    told, weights = told.cpu(), weights.cpu()
    return [
        (
            tuple(told[n, cell].clamp(0.0, 1.0).tolist()),
            tuple((weights[n, cell] > 0).nonzero()[:, 0].tolist()),
            bool(flat[n]),
        )
        for n, cell in enumerate(cells)
    ]


def _selection(
    reading: Reading,
    word_scores: list[float],
    chosen: tuple[int, ...],
    fallbacks: list[str],
    seen: tuple[tuple[float, ...], tuple[int, ...], bool] | None,
) -> Selection:
    scores, picked, flat = seen if seen is not None else ((), (), False)
    if reading.full_patches is None:
        fallbacks = [*fallbacks, NO_IMAGE]
    if flat:
        fallbacks = [*fallbacks, FLAT_HEATMAP]
    if not chosen and not picked:
        fallbacks = [*fallbacks, NO_EVIDENCE]
    return Selection(
        word_scores=tuple(word_scores),
        words=chosen,
        patch_scores=scores,
        patches=picked,
        fallbacks=tuple(fallbacks),
    )


def _describe(readings: Sequence[Reading], rows: Sequence[int], kit: Kit) -> tuple[list[Item], list[int]]:
    tokens = kit.tokenizer.encode(kit.tokenizer.split(" ".join(_DESCRIPTIONS)))
    items = [
        Item(
            input_ids=tokens.input_ids,
            grid=readings[k].item.grid,
            pixel_values=readings[k].item.pixel_values,
            seen=readings[k].item.seen,
        )
        for k in rows
    ]
    return items, tokens.words


def _description_words(kit: Kit) -> list[tuple[int, int]]:
    """(word, class) of every word of the class descriptions."""
    classes = [label for label, text in enumerate(_DESCRIPTIONS) for _ in text.split()]
    return list(enumerate(classes))


def _finite(values: Tensor) -> Tensor:
    if not torch.isfinite(values).all():
        raise ModelError("the network produced a value that is not finite; the checkpoint is damaged")
    return values
