"""The rule that turns word scores into a rationale, on scores worked out by hand."""

import pytest

from model.config import SelectionConfig
from model.selection import choose_words
from model.text import Word


def limits(*, share: float = 0.35, min_words: int = 2) -> SelectionConfig:
    return SelectionConfig(
        space_width=4, word_threshold=0.5, max_word_share=share, min_words=min_words, n_patches=1, beta=0.1, n_steps=1
    )


def words(*selectable: bool) -> list[Word]:
    return [
        Word(start=2 * index, end=2 * index + 1, form="w", selectable=fact) for index, fact in enumerate(selectable)
    ]


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ([0.9, 0.1, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.8], [0, 9]),  # at or above the threshold, in text order
        ([0.9, 0.6, 0.7, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1, 0.8], [0, 2, 9]),  # the share of ten words is three
        ([0.5] * 10, [0, 1, 2]),  # ties go to the earlier word
        ([0.4, 0.45, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], [1]),  # none reaches it: the best stands in
    ],
)
def test_best_words_within_the_budget(scores: list[float], chosen: list[int]) -> None:
    assert choose_words(words(*[True] * 10), scores, limits()) == chosen


def test_short_post_may_show_a_few_words() -> None:
    assert choose_words(words(True, True), [0.6, 0.9], limits(min_words=4)) == [0, 1]
    assert choose_words(words(True, True), [0.6, 0.9], limits(min_words=1)) == [1]


def test_unselectable_and_unread_words_are_never_chosen() -> None:
    assert choose_words(words(False, True, True), [0.9, 0.6, 0.8], limits(), n_read=2) == [1]
    assert choose_words(words(False, False), [0.9, 0.9], limits()) == []
