"""Decisive words are found by what the reader answers, and the search keeps to its budget."""

from pathlib import Path

import pytest
import torch

from model.batches import TokenItem
from model.data.corpus import Corpus
from model.data.datasets import TextRow
from model.network import TextDecider
from model.training import fit_text
from model.training.evidence import decisive_words
from model.training.steps import Run, find_decisive_words
from model.training.text_kit import TextKit


@pytest.fixture(scope="module")
def reader(kit: TextKit) -> TextDecider:
    """A reader that learnt one thing: `bridge` means class 1, `music` class 2, all else class 0."""
    torch.manual_seed(0)
    reader = TextDecider(kit.config, 5)
    texts = {"bridge": 1, "music": 2}
    fillers = ("the city street power", "relief after water", "house road fire people")
    items = []
    for filler in fillers * 6:
        for word, label in (*texts.items(), ("city", 0)):
            words = kit.tokenizer.split(f"{filler} {word} near")
            items.append(TokenItem(input_ids=kit.tokenizer.encode(words).input_ids, label=label))
            shown = kit.tokenizer.encode_selected(words, [len(words) - 2]).input_ids
            items.append(TokenItem(input_ids=shown, label=label))
    settings = fit_text.FitSettings(n_epochs=12, batch_size=12, learning_rate=3e-3, head_learning_rate=1e-2)
    fit_text.fit_decider(reader, kit.embeddings, items, settings, torch.ones(5))
    return reader


@pytest.mark.parametrize("word", ["bridge", "music"])
def test_the_word_that_decides_comes_first(kit: TextKit, reader: TextDecider, word: str) -> None:
    words = kit.tokenizer.split(f"the city {word} street power near")
    (found,) = decisive_words([words], kit, reader)
    assert words[found[0]].form == word


def test_the_budget_holds(kit: TextKit, reader: TextDecider) -> None:
    posts = [kit.tokenizer.split("the city bridge street power near relief after water"), kit.tokenizer.split("music")]
    found = decisive_words(posts, kit, reader)
    assert 1 <= len(found[0]) <= 3 and found[1] == [0]


def test_words_that_are_no_evidence_are_never_found(kit: TextKit, reader: TextDecider) -> None:
    posts = [kit.tokenizer.split("https://t.co/x @user ..."), kit.tokenizer.split("https://t.co/x bridge @user")]
    assert decisive_words(posts, kit, reader) == [[], [1]]


def test_found_words_are_kept_for_the_next_run(kit: TextKit, reader: TextDecider, tmp_path: Path) -> None:
    """Also where a post has none; the second time nobody reads."""
    texts = ("the city street power", "the city bridge street power near")
    rows = [TextRow(row_id=text, text=text, label=1) for text in texts]
    corpus = Corpus(
        train=rows, disagreed=[], humaid=[], dev=[], test=[], nepal=[], images=[], free=[], tied=frozenset()
    )
    run = Run(data=tmp_path, weights=tmp_path, cache=tmp_path, seed=0)
    found = find_decisive_words(run, corpus, kit, reader)
    assert found == decisive_words([kit.tokenizer.split(text) for text in texts], kit, reader)
    assert found[1][0] == 2
    assert find_decisive_words(run, corpus, kit, None) == found  # type: ignore[arg-type]
