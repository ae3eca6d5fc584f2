"""What every text step of training needs: how words become pieces and pieces become vectors."""

from __future__ import annotations

from dataclasses import dataclass

from model.config import SelectionConfig, TextConfig
from model.encoders import Embeddings
from model.network import TextDecider, TextSelector
from model.tokens import WordTokenizer


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
