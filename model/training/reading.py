"""Trains a reader: a class model that answers for any subset of a post's words, whole posts included."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from model.data.corpus import Corpus, sample
from model.data.datasets import TextRow
from model.network import TextDecider
from model.training import fit_text, pretrained
from model.training.fit_text import FitSettings
from model.training.masked_texts import MaskedText, Teach, encode, whole
from model.training.text_kit import ReadingKit, TextKit
from model.training.train_text import CLASS_WEIGHTS

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


def fit_reader(
    corpus: Corpus, kit: TextKit, weights: Path, settings: ReaderSettings, seed: int, teach: Teach | None = None
) -> TextDecider:
    """The text class model that evidence is measured with; stage 2 starts from it."""
    torch.manual_seed(seed)
    reader = TextDecider(kit.config, len(CLASS_WEIGHTS))
    pretrained.fill_text_encoder(reader.encoder, pretrained.minilm_state(weights))
    fit(reader, corpus, kit, settings, seed, teach)
    return reader


def fit(
    reader: TextDecider,
    corpus: Corpus,
    kit: ReadingKit,
    settings: ReaderSettings,
    seed: int,
    teach: Teach | None = None,
) -> None:
    """Teaches a pretrained reader the classes, first from wider tweets, then from CrisisMMD's own."""
    chance = random.Random(seed)
    wide = [*sample(corpus.humaid, settings.n_humaid, seed), *sample(corpus.disagreed, settings.n_disagreed, seed)]
    texts = half_thinned(wide, kit, chance, 0.7)
    n_wide = len(texts)
    texts += [*whole(corpus.train), *thinned(corpus.train, kit, chance)]
    disagreed = sample(corpus.disagreed, settings.n_disagreed // 3, seed + 1)
    texts += thinned(disagreed, kit, chance, 0.4)
    if teach is not None:  # who tells what the text says; the label may be the image's
        texts += whole(disagreed, 0.4)
    items = encode(texts, kit, None if teach is None else teach(texts))
    warm_up = FitSettings(n_epochs=1, batch_size=settings.batch_size, learning_rate=settings.warm_up_rate, seed=seed)
    fit_text.fit_decider(reader, kit.embeddings, items[:n_wide], warm_up, CLASS_WEIGHTS)
    last = FitSettings(
        n_epochs=settings.n_epochs, batch_size=settings.batch_size, learning_rate=settings.learning_rate, seed=seed
    )
    fit_text.fit_decider(reader, kit.embeddings, items[n_wide:], last, CLASS_WEIGHTS)


def thinned(rows: Sequence[TextRow], kit: ReadingKit, chance: random.Random, weight: float = 1.0) -> list[MaskedText]:
    """Each post with a random part of its words; posts without a selectable word are dropped."""
    texts: list[MaskedText] = []
    for row in rows:
        words = kit.tokenizer.split(row.text)
        eligible = [index for index, word in enumerate(words) if word.selectable]
        if eligible:
            n_kept = max(2, round(chance.uniform(_THINNEST, _THICKEST) * len(eligible)))
            kept = sorted(chance.sample(eligible, min(n_kept, len(eligible))))
            texts.append(MaskedText(row=row, kept=tuple(kept), weight=weight))
    return texts


def half_thinned(rows: Sequence[TextRow], kit: ReadingKit, chance: random.Random, weight: float) -> list[MaskedText]:
    """Half of the posts whole, half thinned."""
    turned = chance.sample(list(rows), len(rows))
    half = len(turned) // 2
    return [*whole(turned[:half], weight), *thinned(turned[half:], kit, chance, weight)]
