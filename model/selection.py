"""The rule that turns word scores into a rationale; training, measuring and serving all use this one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from model.config import SelectionConfig
from model.text import Word


def choose_words(
    words: Sequence[Word], scores: Sequence[float], limits: SelectionConfig, *, n_read: int | None = None
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
