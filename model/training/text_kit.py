"""What every text step of training needs: how words become pieces and pieces become vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from model.config import SelectionConfig, TextConfig
from model.encoders import Embeddings
from model.network import TextDecider, TextSelector
from model.tokens import WordTokenizer

Embed = Callable[[Tensor], Tensor]  # pieces (B, T) to vectors (B, T, D)


class ReadingKit(Protocol):
    """How words become pieces, and pieces vectors."""

    @property
    def tokenizer(self) -> WordTokenizer: ...

    @property
    def embeddings(self) -> Embed: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TextKit:
    """What every text step needs."""

    tokenizer: WordTokenizer
    tokenizer_json: str
    embeddings: Embeddings
    config: TextConfig
    selection: SelectionConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The text models of one training run, and the vectors they read."""

    kit: TextKit
    reader: TextDecider
    selector: TextSelector
    decider: TextDecider
