"""Stage 1 at work: which words and patches are a post's rationale, and what stage 2 may read of it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model import patches
from model.classifier import FLAT_HEATMAP, NO_IMAGE, ChosenWords, Selection, choose_from
from model.inputs import EncodedExample, words_of
from model.joint.batch import Item, collate
from model.joint.config import EncoderConfig, TransferConfig, WordLimits
from model.joint.network import Selected, Selector
from model.joint.pixels import fade_others, grid_of, to_pixel_values
from model.joint.states import Grid, Inputs
from model.joint.transfer import heatmap, real_tokens, score_patches, token_rationale
from model.records import HUMANITARIAN, Example, Pixels
from model.sending import Answer, sent
from model.text import Word
from model.tokens import Tokens, WordTokenizer
from model.turns import Turns, in_turns

# a row's patch scores, chosen patches, and whether the map told no patch from another
_Map = tuple[tuple[float, ...], tuple[int, ...], bool]
Score = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, ...]]


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
    words: Sequence[Word]
    tokens: Tokens
    item: Item
    full_patches: Tensor | None  # (P,) bool, cells that hold a pixel; None without an image


def read(example: Example, kit: Kit, seen: Tensor | None = None, *, scales: bool = True) -> Reading:
    """The post encoded; `seen` stands in for its pixels when the encoder has already looked at them.

    Without `scales` the pixels are left to who asked.
    """
    if isinstance(example, EncodedExample):
        words, tokens = example.words, example.tokens
    else:
        words = kit.tokenizer.split(example.text)
        tokens = kit.tokenizer.encode(words)
    if example.image is None:
        return Reading(
            text=example.text, words=words, tokens=tokens, item=Item(input_ids=tokens.input_ids), full_patches=None
        )
    image = patches.check_image(example.image)
    grid = grid_of(image.shape[0], image.shape[1], kit.encoder)
    values = to_pixel_values(image, grid, kit.encoder) if seen is None and scales else None
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
    (selections,) = in_turns([selecting(selector, kit.batch([reading.item for reading in readings]), readings, kit)])
    return selections


def selecting(
    selector: Selector, inputs: Inputs, readings: Sequence[Reading], kit: Kit, *, score: Score | None = None
) -> Turns[list[Selection]]:
    """The same in turns, over the readings' own batch; call it in inference mode. `score` does as `scored` does."""
    score = score or partial(scored, config=kit.transfer)
    out = selector(inputs)
    token_probs = Answer(out.token_logits.float().sigmoid())
    class_logits = Answer(out.class_logits[HUMANITARIAN])
    yield
    probs = token_probs.get()
    by_words = [
        choose_from(reading.words, reading.tokens, row.tolist(), kit.words)
        for reading, row in zip(readings, probs, strict=True)
    ]
    pictured = [k for k, reading in enumerate(readings) if reading.full_patches is not None]
    worded, wordless = [k for k in pictured if by_words[k].words], [k for k in pictured if not by_words[k].words]
    maps: dict[int, _Map] = {}
    if worded:
        chosen_words = [(readings[k].tokens.words, set(by_words[k].words)) for k in worded]
        maps |= zip(
            worded, (yield from _choosing_patches(out, worded, chosen_words, readings, kit, score)), strict=True
        )
    if wordless:
        described, owners = _describe(inputs, wordless, kit)
        likeliest = class_logits.get()[wordless].argmax(1).tolist()
        rationales = [(owners, {w for w, c in _description_words(kit) if c == label}) for label in likeliest]
        rows = list(range(len(wordless)))
        shown = [readings[k] for k in wordless]
        chosen = yield from _choosing_patches(selector(described), rows, rationales, shown, kit, score)
        maps |= zip(wordless, chosen, strict=True)
    return [_selection(by_words[k], maps.get(k)) for k in range(len(readings))]


def shown(example: Example, selection: Selection, kit: Kit) -> Item | None:
    """All that stage 2 may read of the post, hidden words as `*` and hidden patches grey; None without any evidence."""
    if not selection.words and not selection.patches:
        return None
    input_ids = shown_ids(example, selection, kit)
    if not selection.patches or example.image is None:
        return Item(input_ids=input_ids)
    grid = grid_of(example.image.shape[0], example.image.shape[1], kit.encoder)
    kept = _keep(example.image, grid, selection, kit.transfer)
    return Item(input_ids=input_ids, grid=grid, pixel_values=to_pixel_values(kept, grid, kit.encoder))


def shown_ids(example: Example, selection: Selection, kit: Kit) -> list[int]:
    """The wordpieces of the selected words, `*` in place of others; only the special ones when none is selected."""
    words = words_of(example, kit.tokenizer) if selection.words else []
    return kit.tokenizer.encode_selected(words, selection.words, join_hidden=kit.words.stars == "run").input_ids


def _keep(image: Pixels, grid: Grid, selection: Selection, transfer: TransferConfig) -> Pixels:
    """A soft heatmap's own choice is faded by its scores; any other choice is shown at full strength."""
    own = tuple(k for k, score in enumerate(selection.patch_scores) if score > 0)
    if transfer.heatmap == "soft" and transfer.method != "off" and selection.patches == own:
        return fade_others(image, grid, selection.patch_scores)
    return patches.blank_others(image, *grid, selection.patches)


def _choosing_patches(
    out: Selected,
    rows: Sequence[int],
    rationales: Sequence[tuple[list[int], set[int]]],
    readings: Sequence[Reading],
    kit: Kit,
    score: Score,
) -> Turns[list[_Map]]:
    """The map of each row, over the row's own grid; see `_Map`."""
    states, T = out.states, out.token_logits.shape[1]
    device = states.patch_mask.device
    word_mask = sent(torch.stack([real_tokens(owners, T) for owners, _ in rationales]), device)
    rationale = sent(torch.stack([token_rationale(owners, chosen, T) for owners, chosen in rationales]), device)
    full = np.zeros((len(rows), states.patch_mask.shape[1]), dtype=bool)
    cells = [_cells(readings[k].item.grid, states.grid[1]) for k in rows]
    for n, k in enumerate(rows):
        filled = readings[k].full_patches
        assert filled is not None
        full[n, cells[n][filled.numpy()]] = True
    patch_mask = sent(torch.from_numpy(full), device)
    if kit.transfer.method == "off":
        scores, weights = patch_mask.float(), patch_mask.float()
        flat = torch.zeros(len(rows), dtype=torch.bool)
    elif kit.transfer.method == "random":
        scores = torch.zeros(patch_mask.shape)
        for n, k in enumerate(rows):
            own = torch.Generator().manual_seed(zlib.crc32(readings[k].text.encode("utf-8", "surrogatepass")))
            scores[n, cells[n]] = torch.rand(len(cells[n]), generator=own)
        scores = scores.to(device) * patch_mask
        heat = heatmap(scores, patch_mask, kit.transfer)
        weights, flat = heat.weights, heat.flat
    else:
        index = sent(torch.tensor(rows), device)
        scores, weights, flat = score(
            states.token_space[index], states.patch_space[index], word_mask, rationale, patch_mask
        )
    answers = [Answer(told) for told in (weights if kit.transfer.heatmap == "soft" else scores, weights, flat)]
    yield
    told, shares, is_flat = (answer.get() for answer in answers)
    told = told.clip(0.0, 1.0)
    return [
        (
            tuple(told[n, cell].tolist()),
            tuple((shares[n, cell] > 0).nonzero()[0].tolist()),
            bool(is_flat[n]),
        )
        for n, cell in enumerate(cells)
    ]


def scored(
    words: Tensor,
    patches: Tensor,
    word_mask: Tensor,
    rationale_mask: Tensor,
    patch_mask: Tensor,
    *,
    config: TransferConfig,
) -> tuple[Tensor, Tensor, Tensor]:
    """Patch scores (B, P), what a heatmap makes of them (B, P), and whether it is flat (B,)."""
    scores = score_patches(words, patches, word_mask, rationale_mask, patch_mask, config)
    heat = heatmap(scores, patch_mask, config)
    return scores, heat.weights, heat.flat


@lru_cache(maxsize=256)
def _cells(grid: Grid, n_cols: int) -> npt.NDArray[np.intp]:
    """Where the patches of an image's own grid lie in a wider one's."""
    return (np.arange(grid[0])[:, None] * n_cols + np.arange(grid[1])).flatten()


def _selection(chosen: ChosenWords, seen: _Map | None) -> Selection:
    if seen is None:
        return chosen.with_patches((), (), NO_IMAGE)
    scores, picked, flat = seen
    return chosen.with_patches(scores, picked, *([FLAT_HEATMAP] if flat else []))


def _describe(inputs: Inputs, rows: Sequence[int], kit: Kit) -> tuple[Inputs, list[int]]:
    """The images of those rows, each with the class descriptions for its text."""
    tokens = kit.tokenizer.encode(kit.tokenizer.split(" ".join(_DESCRIPTIONS)))
    device = inputs.input_ids.device
    input_ids = sent(torch.tensor([tokens.input_ids] * len(rows)), device)
    index = sent(torch.tensor(rows), device)
    images = {name: getattr(inputs, name) for name in ("pixel_values", "pixel_mask", "seen")}
    own = {name: None if value is None else value[index] for name, value in images.items()}
    described = Inputs(input_ids=input_ids, attention_mask=torch.ones_like(input_ids, dtype=torch.bool), **own)
    return described, tokens.words


def _description_words(kit: Kit) -> list[tuple[int, int]]:
    """(word, class) of every word of the class descriptions."""
    classes = [label for label, text in enumerate(_DESCRIPTIONS) for _ in text.split()]
    return list(enumerate(classes))
