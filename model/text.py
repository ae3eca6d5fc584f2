"""Splits a post into words and normalises each for the model; never loses a word's place in the original."""

from __future__ import annotations

import html
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence

from msgspec import Struct

_WORD = re.compile(r"\S+")
_URL = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_USER = re.compile(r"(?<!\w)@\w+")
_MARKED = re.compile(r"[&@#\uff03]|https?://|www\.", re.IGNORECASE)  # most words are not, and need none of the others
_HASHTAG = re.compile(r"[#\uff03](\w+)")
_CAMEL = re.compile(  # over the kinds of a hashtag's characters, see `_kind`
    r"(?:Am*)+(?=Am*a)|(?:Am*)?(?:am*)+|(?:Am*)+|(?:1m*)+|(?:-m*)+"
)
_LOWER_WORD = re.compile(r"[a-z]+")
_JOINERS = "\u200c\u200d"

URL_FORM, USER_FORM = "http", "user"
_MAX_TAG_CHARS = 48  # segmentation is quadratic; longer tags stay whole
_MAX_FORM_CHARS = 100


class Word(Struct, frozen=True, kw_only=True):
    """A whitespace-delimited word: `text[start:end]` of the original, and the form the model reads."""

    start: int
    end: int
    form: str
    cut: bool = False  # the model reads less of it than there is
    selectable: bool  # False for links, user names and bare punctuation, which are never evidence


class Segmenter:
    """Splits lower-case hashtags into known words by the cheapest path; rank in `vocabulary` is the cost."""

    def __init__(self, vocabulary: Iterable[str]) -> None:
        words = [word for word in vocabulary if _LOWER_WORD.fullmatch(word)]
        words = [word for word in words if len(word) > 2 or word in _SHORT_WORDS]
        scale = math.log(len(words) + 1)
        self._costs = {word: math.log((rank + 1) * scale + 1) for rank, word in enumerate(words)}
        self._longest = max(map(len, words), default=0)

    def split(self, word: str) -> list[str]:
        """The cheapest split of a lower-case ASCII word, or the word itself if none covers it."""
        if word in self._costs or len(word) < 5 or len(word) > _MAX_TAG_CHARS:
            return [word]
        best: list[tuple[float, int]] = [(0.0, 0)]
        for end in range(1, len(word) + 1):
            best.append(min(self._steps(word, end, best), default=(math.inf, end)))
        if math.isinf(best[-1][0]):
            return [word]
        parts: list[str] = []
        end = len(word)
        while end:
            start = best[end][1]
            parts.append(word[start:end])
            end = start
        return parts[::-1]

    def _steps(self, word: str, end: int, best: Sequence[tuple[float, int]]) -> Iterable[tuple[float, int]]:
        for start in range(max(0, end - self._longest), end):
            cost = self._costs.get(word[start:end])
            if cost is not None:
                yield best[start][0] + cost, start


_SHORT_WORDS = frozenset(
    {"a", "i", "am", "an", "as", "at", "be", "by", "do", "go", "he", "if", "in", "is", "it", "me", "my", "no", "of"}
    | {"on", "or", "so", "to", "up", "us", "we", "la", "el", "de", "sa", "tx", "fl", "ca", "pr", "uk"}
)


def split_words(text: str, segmenter: Segmenter) -> list[Word]:
    """All whitespace-delimited words in order; their spans are disjoint and cover every other character."""
    return [_word(match, segmenter) for match in _WORD.finditer(text)]


def _word(match: re.Match[str], segmenter: Segmenter) -> Word:
    form = bare = match.group()
    if _MARKED.search(form):
        form, bare = _plain(html.unescape(form), segmenter)
    return Word(
        start=match.start(),
        end=match.end(),
        form=form[:_MAX_FORM_CHARS],
        cut=len(form) > _MAX_FORM_CHARS,
        selectable=any(map(_is_content, bare)),
    )


def _plain(form: str, segmenter: Segmenter) -> tuple[str, str]:
    """What the model reads of a word with marks in it, and what of that may be evidence."""
    bare = _USER.sub(" ", _URL.sub(" ", form))
    form = _USER.sub(f" {USER_FORM} ", _URL.sub(f" {URL_FORM} ", form))
    parts: list[str] = []
    at = 0
    for tag in _HASHTAG.finditer(_bases(form)):
        parts += [form[at : tag.start()], *_tag_words(form[tag.start(1) : tag.end()], segmenter)]
        at = tag.end()
    return " ".join(" ".join([*parts, form[at:]]).split()), bare


def _bases(form: str) -> str:
    """The form with each combining mark, and a joiner after one, as the character that it stands on.

    To `re` a mark is no part of a word, and many scripts have some in nearly every one.
    """
    if form.isascii():
        return form
    bases, on_mark = form[:1], False
    for char in form[1:]:
        on_mark = _is_mark(char) or (on_mark and char in _JOINERS)
        bases += bases[-1] if on_mark else char
    return bases


def _tag_words(tag: str, segmenter: Segmenter) -> list[str]:
    parts: list[str] = []
    for match in _CAMEL.finditer("".join(map(_kind, tag))):
        part = tag[slice(*match.span())]
        lower = part.lower()
        parts += segmenter.split(lower) if _LOWER_WORD.fullmatch(lower) else [part]
    return parts


def _kind(char: str) -> str:
    """`A` for an upper-case letter, `a` for a lower-case one, `1` for a digit, `_` itself, else `-`; any script.

    `m` is a mark on any of them.
    """
    if _is_mark(char) or char in _JOINERS:
        return "m"
    if char.isupper():
        return "A"
    if char.islower():
        return "a"
    return "1" if char.isdecimal() else "_" if char == "_" else "-"


def _is_mark(char: str) -> bool:
    return unicodedata.category(char) in ("Mn", "Mc")


def _is_content(char: str) -> bool:
    return char.isalnum() or unicodedata.category(char) == "So"
