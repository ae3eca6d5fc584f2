"""`python -m model.large_reader`: what a text encoder of five times the size makes of whole texts; it ships nothing.

The shipped reader is MiniLM (22 M parameters). This trains MPNet (110 M, as recipe `dual` may take it) in the same way
on fewer of the wider tweets, and measures it by the same protocol, so that the table tells what being small costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import MPNetConfig, MPNetModel

from model import crossval, fit_text, pretrained, reading, summary
from model.corpus import Corpus, load_corpus
from model.data import TextRow
from model.heads import apply_fusion
from model.measures import classification
from model.network import TextDecider, masked_mean
from model.precision import mixed_precision
from model.protocol import OFFICIAL
from model.reading import ReaderSettings
from model.records import CLASSES
from model.steps import Run, measure_from_command_line
from model.tokens import WordTokenizer
from model.train_text import whole_item

SETTINGS = ReaderSettings(
    n_humaid=6_000, n_disagreed=3_000, n_epochs=2, warm_up_rate=5e-5, learning_rate=4e-5, batch_size=24
)
MEASURES = ("macro_f1", "accuracy", "weighted_f1")
PROTOCOL = f"by MPNet in place of the shipped reader: {OFFICIAL}"
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


def read_whole(rows: Sequence[TextRow], kit: LargeKit) -> Tensor:
    """Class log-probabilities (N, C) of whole texts, in mixed precision."""
    with mixed_precision():
        return fit_text.decide_texts(kit.reader, kit.embeddings, [whole_item(row, kit) for row in rows]).float()


def measure(run: Run, path: Path) -> None:
    """Trains the reader unless it is cached, and puts its figures into the summary at `path`."""
    run.claim()
    corpus = load_corpus(run.data)
    torch.manual_seed(run.seed)
    kit = make_kit(pretrained.mpnet_folder(run.weights))
    run.trained("large_reader", kit.reader, lambda: fit(corpus, kit, run.seed))
    fusion = crossval.fit_text_fusion(read_whole(corpus.dev, kit), torch.tensor([row.label for row in corpus.dev]))
    labels = np.array([row.label for row in corpus.test])
    scores = classification(labels, apply_fusion(fusion, read_whole(corpus.test, kit), None))
    for name in MEASURES:
        key = f"official_text.{name}.mpnet"
        summary.add(path, key, [float(str(scores[name]))], len(labels), PROTOCOL)
        print(f"{key} {scores[name]:.3f}")


def fit(corpus: Corpus, kit: LargeKit, seed: int) -> LargeReader:
    reading.fit(kit.reader, corpus, kit, SETTINGS, seed)
    return kit.reader


if __name__ == "__main__":
    measure_from_command_line(__doc__, measure)
