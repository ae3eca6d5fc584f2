"""Trains a reader: a class model that answers for any subset of a post's words, whole posts included."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from model import fit_text, pretrained
from model.batches import TokenItem
from model.corpus import Corpus, sample
from model.data import TextRow
from model.fit_text import FitSettings
from model.network import TextDecider
from model.text_kit import ReadingKit, TextKit
from model.train_text import CLASS_WEIGHTS, whole_item

_THINNEST, _THICKEST = 0.2, 0.7  # shares of words that a thinned post keeps


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderSettings:
    """How much a reader sees; wider crisis tweets come first, CrisisMMD's own last."""

    n_humaid: int
    n_disagreed: int
    n_epochs: int  # over CrisisMMD's own posts, whole and thinned
    warm_up_rate: float
    learning_rate: float
    batch_size: int


def fit_reader(corpus: Corpus, kit: TextKit, weights: Path, settings: ReaderSettings, seed: int) -> TextDecider:
    """The text class model that evidence is measured with; stage 2 starts from it."""
    torch.manual_seed(seed)
    reader = TextDecider(kit.config, len(CLASS_WEIGHTS))
    pretrained.fill_text_encoder(reader.encoder, pretrained.minilm_state(weights))
    fit(reader, corpus, kit, settings, seed)
    return reader


def fit(reader: TextDecider, corpus: Corpus, kit: ReadingKit, settings: ReaderSettings, seed: int) -> None:
    """Teaches a pretrained reader the classes, first from wider tweets, then from CrisisMMD's own."""
    chance = random.Random(seed)
    wide = [*sample(corpus.humaid, settings.n_humaid, seed), *sample(corpus.disagreed, settings.n_disagreed, seed)]
    first = FitSettings(n_epochs=1, batch_size=settings.batch_size, learning_rate=settings.warm_up_rate, seed=seed)
    fit_text.fit_decider(reader, kit.embeddings, shown(wide, kit, chance, 0.7), first, CLASS_WEIGHTS)
    own = [*(whole_item(row, kit) for row in corpus.train), *thinned(corpus.train, kit, chance)]
    own += thinned(sample(corpus.disagreed, settings.n_disagreed // 3, seed + 1), kit, chance, 0.4)
    last = FitSettings(
        n_epochs=settings.n_epochs, batch_size=settings.batch_size, learning_rate=settings.learning_rate, seed=seed
    )
    fit_text.fit_decider(reader, kit.embeddings, own, last, CLASS_WEIGHTS)


def thinned(rows: Sequence[TextRow], kit: ReadingKit, chance: random.Random, weight: float = 1.0) -> list[TokenItem]:
    """Each post with a random part of its words; posts without a selectable word are dropped."""
    items: list[TokenItem] = []
    for row in rows:
        words = kit.tokenizer.split(row.text)
        eligible = [index for index, word in enumerate(words) if word.selectable]
        if eligible:
            n_kept = max(2, round(chance.uniform(_THINNEST, _THICKEST) * len(eligible)))
            kept = sorted(chance.sample(eligible, min(n_kept, len(eligible))))
            tokens = kit.tokenizer.encode_selected(words, kept)
            items.append(TokenItem(input_ids=tokens.input_ids, label=row.label, weight=weight))
    return items


def shown(rows: Sequence[TextRow], kit: ReadingKit, chance: random.Random, weight: float) -> list[TokenItem]:
    """Half of the posts whole, half thinned."""
    turned = chance.sample(list(rows), len(rows))
    half = len(turned) // 2
    return [*(whole_item(row, kit, weight) for row in turned[:half]), *thinned(turned[half:], kit, chance, weight)]
