"""Finds the few words a reader decides from, greedily: the targets that teach stage 1 what evidence is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor
from tqdm import tqdm

from model.batches import TokenItem
from model.network import TextDecider
from model.precision import mixed_precision
from model.text import Word
from model.training import fit_text
from model.training.text_kit import TextKit

_N_CANDIDATES = 8  # words that are tried at every step, the best when shown alone
_ENOUGH = 0.05  # nats below the whole post's log-probability at which the search ends
_CHUNK = 256  # posts searched together


@dataclass(slots=True)
class _Search:
    """One post's search: what is chosen so far and what may still be."""

    words: Sequence[Word]
    label: int
    budget: int
    goal: float
    candidates: list[int]
    chosen: list[int] = field(default_factory=list)
    done: bool = False


def decisive_words(posts: Sequence[Sequence[Word]], kit: TextKit, reader: TextDecider) -> list[list[int]]:
    """For each post the words, best first, with which the reader comes nearest its decision on the whole post.

    Greedy forward selection within the selection's budget; it ends early where the words suffice.
    """
    found: list[list[int]] = []
    for start in tqdm(range(0, len(posts), _CHUNK), desc="evidence", mininterval=10.0):
        searches = _open(posts[start : start + _CHUNK], kit, reader)
        while any(not search.done for search in searches):
            _step(searches, kit, reader)
        found += [search.chosen for search in searches]
    return found


def _open(posts: Sequence[Sequence[Word]], kit: TextKit, reader: TextDecider) -> list[_Search]:
    limits = kit.selection
    whole = _log_probs([kit.tokenizer.encode(words).input_ids for words in posts], kit, reader)  # (N, 5)
    searches: list[_Search] = []
    for words, row in zip(posts, whole, strict=True):
        eligible = [index for index, word in enumerate(words) if word.selectable]
        searches.append(
            _Search(
                words=words,
                label=int(row.argmax()),
                budget=max(limits.min_words, math.floor(limits.max_word_share * len(words))),
                goal=float(row.max()) - _ENOUGH,
                candidates=eligible,
                done=not eligible,
            )
        )
    return searches


def _step(searches: Sequence[_Search], kit: TextKit, reader: TextDecider) -> None:
    """Adds to every open search the word that helps most; the first step also shortens the candidates."""
    trials = [(search, index) for search in searches if not search.done for index in search.candidates]
    shown = [kit.tokenizer.encode_selected(search.words, [*search.chosen, index]).input_ids for search, index in trials]
    scores: dict[int, list[tuple[float, int]]] = {}
    for (search, index), row in zip(trials, _log_probs(shown, kit, reader), strict=True):
        scores.setdefault(id(search), []).append((float(row[search.label]), index))
    for search in searches:
        if search.done:
            continue
        ranked = sorted(scores[id(search)], key=lambda scored: (-scored[0], scored[1]))
        best, index = ranked[0]
        search.chosen.append(index)
        search.candidates = [other for _, other in ranked[1 : 1 + _N_CANDIDATES]]
        search.done = best >= search.goal or len(search.chosen) >= search.budget or not search.candidates


def _log_probs(ids: Sequence[list[int]], kit: TextKit, reader: TextDecider) -> Tensor:
    items = [TokenItem(input_ids=one, label=0) for one in ids]
    with mixed_precision():
        return fit_text.decide_texts(reader, kit.embeddings, items, batch_size=256).float()
