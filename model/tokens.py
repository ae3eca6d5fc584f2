"""Turns words into wordpiece ids and back-pointers to their words; holds no state but the vocabulary."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer

from model.errors import CheckpointError
from model.text import Segmenter, Word, split_words

HIDDEN = "*"  # what stage 2 reads in place of hidden words
_MAX_WORD_PIECES = 16
_REMEMBERED_FORMS = 16_384  # posts of one crisis repeat their words
_SURROGATE = re.compile("[\ud800-\udfff]")  # alone it is no character, and tokenizers raises TypeError
_BERT_PIECES, _MPNET_PIECES = ("[CLS]", "[SEP]", "[PAD]"), ("<s>", "</s>", "<pad>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Wordpieces with [CLS] and [SEP]; `words[t]` is the word of piece t, or -1 for the special ones."""

    input_ids: list[int]
    words: list[int]
    n_words: int  # words that fitted
    truncated: bool  # words, or parts of one, were left out


class WordTokenizer:
    """WordPiece over the checkpoint's own vocabulary, one word at a time."""

    def __init__(self, tokenizer: Tokenizer, *, max_tokens: int) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.max_tokens = max_tokens
        vocabulary = tokenizer.get_vocab()
        self.n_pieces = len(vocabulary)
        special = _MPNET_PIECES if _MPNET_PIECES[0] in vocabulary else _BERT_PIECES
        try:
            self.cls_id, self.sep_id, self.pad_id = (vocabulary[piece] for piece in special)
            self.hidden_id = vocabulary[HIDDEN]
        except KeyError as error:
            raise CheckpointError(f"tokenizer.json lacks the piece {error}; take it from the same release") from error
        self._pieces_of = lru_cache(maxsize=_REMEMBERED_FORMS)(self._encode)
        self._segmenter = Segmenter(sorted(vocabulary, key=vocabulary.__getitem__))

    @classmethod
    def from_file(cls, path: Path, *, max_tokens: int) -> WordTokenizer:
        try:
            return cls(Tokenizer.from_file(str(path)), max_tokens=max_tokens)
        except CheckpointError:
            raise
        except Exception as error:  # tokenizers raises bare Exception
            raise CheckpointError(f"{path} is not a readable tokenizer file; copy the checkpoint again") from error

    def split(self, text: str) -> list[Word]:
        """The words of a post; see `text.split_words`."""
        return split_words(text, self._segmenter)

    def encode(self, words: Sequence[Word]) -> Tokens:
        """All words, cut after the last one that fits `max_tokens`, and each where it has too many pieces."""
        pieces = [self._pieces_of(word.form) for word in words]
        packed = self._pack(pieces)
        if any(word.cut for word in words) or max(map(len, pieces), default=0) > _MAX_WORD_PIECES:
            return replace(packed, truncated=True)
        return packed

    def encode_selected(self, words: Sequence[Word], selected: Sequence[int], *, join_hidden: bool = True) -> Tokens:
        """Selected words only; each run of hidden words becomes one `*`, so not even its length is seen.

        Without `join_hidden` each hidden word becomes a `*` of its own, as in the paper.
        """
        keep = set(selected)
        packed: list[Sequence[int]] = []
        for index in range(len(words)):
            if index in keep:
                packed.append(self._pieces_of(words[index].form))
            elif index == 0 or index - 1 in keep or not join_hidden:
                packed.append([self.hidden_id])
        return self._pack(packed)

    def _encode(self, form: str) -> tuple[int, ...]:
        """The word's pieces, one more of them than is read: it tells that there are more."""
        ids = self._tokenizer.encode(_SURROGATE.sub("\ufffd", form), add_special_tokens=False).ids
        return tuple(ids[: _MAX_WORD_PIECES + 1])

    def _pack(self, pieces: Sequence[Sequence[int]]) -> Tokens:
        input_ids, words = [self.cls_id], [-1]
        n_words = 0
        for index, every in enumerate(pieces):
            ids = every[:_MAX_WORD_PIECES]
            if len(input_ids) + len(ids) + 1 > self.max_tokens:
                break
            input_ids += ids
            words += [index] * len(ids)
            n_words = index + 1
        return Tokens(
            input_ids=[*input_ids, self.sep_id],
            words=[*words, -1],
            n_words=n_words,
            truncated=n_words < len(pieces),
        )
