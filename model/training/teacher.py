"""A text reader of five times the shipped one's size (MPNet), from which that one learns; it ships nothing itself.

It is trained as the shipped reader is, on fewer of the wider tweets, and tells what each text says of each class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import MPNetConfig, MPNetModel

from model.data.corpus import Corpus
from model.network import TextDecider, masked_mean
from model.precision import mixed_precision
from model.records import CLASSES
from model.tokens import WordTokenizer
from model.training import fit_text, reading
from model.training.masked_texts import MaskedText, encode
from model.training.reading import ReaderSettings

SETTINGS = ReaderSettings(
    n_humaid=6_000, n_disagreed=3_000, n_epochs=2, warm_up_rate=5e-5, learning_rate=4e-5, batch_size=24
)
_DROPOUT = 0.1
_MAX_TOKENS = 96


class LargeReader(TextDecider):
    """MPNet with a class head, over wordpiece vectors that stay as they are."""

    def __init__(self, config: MPNetConfig, n_classes: int) -> None:
        nn.Module.__init__(self)
        model = MPNetModel(config, add_pooling_layer=False)
        self.embeddings = model.embeddings.requires_grad_(False)
        self.encoder = model.encoder
        self.class_head = nn.Linear(config.hidden_size, n_classes)
        self.further = nn.ModuleDict()

    def pool(self, embedded: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """What the head reads, (B, D)."""
        minus = None
        if attention_mask is not None:
            minus = (~attention_mask[:, None, None, :]).to(embedded.dtype) * torch.finfo(embedded.dtype).min
        pooled = masked_mean(self.encoder(embedded, attention_mask=minus)[0].float(), attention_mask)
        return nn.functional.dropout(pooled, _DROPOUT, self.training)

    @torch.no_grad()
    def embed(self, input_ids: Tensor) -> Tensor:
        """Vectors (B, T, D) of wordpieces (B, T)."""
        vectors: Tensor = self.embeddings(input_ids=input_ids)
        return vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeKit:
    """How the large reader's words become pieces and vectors."""

    tokenizer: WordTokenizer
    reader: LargeReader

    def embeddings(self, input_ids: Tensor) -> Tensor:
        return self.reader.embed(input_ids)


def make_kit(folder: Path) -> LargeKit:
    """The pretrained encoder of a Hugging Face folder, with a new head."""
    reader = LargeReader(MPNetConfig.from_pretrained(folder), len(CLASSES))
    given = MPNetModel.from_pretrained(folder, add_pooling_layer=False)
    reader.embeddings.load_state_dict(given.embeddings.state_dict())
    reader.encoder.load_state_dict(given.encoder.state_dict())
    return LargeKit(tokenizer=WordTokenizer.from_file(folder / "tokenizer.json", max_tokens=_MAX_TOKENS), reader=reader)


def fit(corpus: Corpus, kit: LargeKit, seed: int) -> LargeReader:
    """Teaches the kit's reader the classes, in place."""
    reading.fit(kit.reader, corpus, kit, SETTINGS, seed)
    return kit.reader


def read(texts: Sequence[MaskedText], kit: LargeKit) -> Tensor:
    """Class log-probabilities (N, C), in mixed precision."""
    with mixed_precision():
        return fit_text.decide_texts(kit.reader, kit.embeddings, encode(texts, kit)).float()
