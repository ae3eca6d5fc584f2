"""The rules that turn piece scores into a rationale of words; training, measuring and serving all use these."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from model.text import Word


class WordLimits(Protocol):
    """How much of the text may be a rationale; every kind of checkpoint's config has it."""

    @property
    def word_threshold(self) -> float: ...
    @property
    def max_word_share(self) -> float: ...
    @property
    def min_words(self) -> int: ...


def choose_words(
    words: Sequence[Word], scores: Sequence[float], limits: WordLimits, *, n_read: int | None = None
) -> list[int]:
    """Indices of the best words at or above the threshold, within the budget, in text order.

    Without any such word the best one stands in; only the first `n_read` words (all, by default) are eligible.
    The budget is a share of the post's words, and a few words where the post is short.
    """
    eligible = [index for index, word in enumerate(words[:n_read]) if word.selectable]
    ranked = sorted(eligible, key=lambda index: (-scores[index], index))
    budget = max(limits.min_words, math.floor(limits.max_word_share * len(words)))
    chosen = [index for index in ranked if scores[index] >= limits.word_threshold][:budget]
    return sorted(chosen or ranked[:1])


def best_piece(probs: Sequence[float], owners: Sequence[int], words: Sequence[Word]) -> list[float]:
    """A word's score is its best piece's, 0 for a word that is no evidence; `probs` may be padded on the right."""
    scores = [0.0] * len(words)
    for index, prob in zip(owners, probs, strict=False):
        if index >= 0 and words[index].selectable:
            scores[index] = max(scores[index], prob)
    return scores
