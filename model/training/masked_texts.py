"""Posts of which some words may be hidden: what text models learn to classify. Trains nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from model.batches import TokenItem
from model.data.datasets import TextRow
from model.training.text_kit import ReadingKit


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedText:
    """A labelled post with only the words left that stand at the places `kept`; all of them when it is None."""

    row: TextRow
    kept: tuple[int, ...] | None = None
    weight: float = 1.0  # of its loss


Teach = Callable[[Sequence[MaskedText]], Tensor]  # what a teacher makes of them: class probabilities (N, C)


def whole(rows: Iterable[TextRow], weight: float = 1.0) -> list[MaskedText]:
    """Posts as they are."""
    return [MaskedText(row=row, weight=weight) for row in rows]


def encode(texts: Sequence[MaskedText], kit: ReadingKit, soft_labels: Tensor | None = None) -> list[TokenItem]:
    """The texts as tokens, one item each; `soft_labels` are a teacher's class probabilities (N, C)."""
    taught = [()] * len(texts) if soft_labels is None else [tuple(row) for row in soft_labels.tolist()]
    items: list[TokenItem] = []
    for text, probs in zip(texts, taught, strict=True):
        words = kit.tokenizer.split(text.row.text)
        tokens = kit.tokenizer.encode(words) if text.kept is None else kit.tokenizer.encode_selected(words, text.kept)
        items.append(TokenItem(input_ids=tokens.input_ids, label=text.row.label, soft_labels=probs, weight=text.weight))
    return items
