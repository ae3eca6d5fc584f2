"""What a training run does, read from a small TOML file; everything in it has a name, a type and a default."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from model.errors import ModelError
from model.joint.config import EncoderConfig, TransferConfig, WordLimits, plain
from model.records import HUMANITARIAN, TASKS

RECIPES = Path(__file__).parent.parent / "recipes"


class RecipeError(ModelError):
    """A recipe that does not exist or says something unknown; the message names it and the fix."""


class SelectorRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Stage 1. The paper's alpha is used with its authors' reduction: mean over tokens, sum over posts."""

    gru_width: int = 128
    alpha: float = 0.09
    over_tokens: Literal["sum", "mean"] = "mean"
    over_posts: Literal["sum", "mean"] = "sum"
    class_weight: float = 1.0  # of the auxiliary class loss; 0 turns it off
    alignment_weight: float = 0.0  # of the loss that ties words and patches to one space
    evidence: Literal["auto", "always", "never"] = "auto"  # class evidence as targets; auto: without human rationales
    evidence_epochs: int = 2
    evidence_share: float = 0.35  # of a post's words that count as evidence for its class


class TrainingRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Both stages alike; defaults are the paper's."""

    n_epochs: int = 10
    batch_size: int = 8
    learning_rate: float = 2e-5
    head_learning_rate: float | None = None  # of what is not pretrained; None: the same
    weight_decay: float = 1e-4
    patience: int = 3  # epochs without a better dev Macro-F1
    clip_norm: float = 1.0
    warmup_share: float = 0.0
    label_smoothing: float = 0.0
    class_balance: float = 0.0  # power of the inverse class frequency; 0: unweighted
    precision: Literal["float32", "bf16"] = "bf16"  # float32 in any case where bf16 would only be emulated
    freeze_vision: bool = False  # and cache what it sees
    save_every_s: float = 300.0
    n_loaders: int = 4  # threads that read and resize images

    def __post_init__(self) -> None:
        if min(self.n_epochs, self.batch_size, self.patience, self.n_loaders) < 1:
            raise ValueError("n_epochs, batch_size, patience and n_loaders must be at least 1")


class DataRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    drop_copies: bool = False  # leave out training rows that share a tweet or text with a held-out one
    max_edge_px: int = 640


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run of the two stages over a joint encoder."""

    trainer: Literal["joint"] = "joint"
    name: str
    summary: str
    seed: int = 0
    tasks: dict[str, float] = msgspec.field(default_factory=lambda: {HUMANITARIAN: 1.0})  # weights of the class losses
    pretrained: str | None = None  # hub id that --weights replaces; None: new weights unless --weights is given
    needs_weights: bool = False
    vocabulary_size: int = 2000  # of a new tokenizer, where there are no pretrained weights
    int8_weights: bool = False
    encoder: EncoderConfig
    words: WordLimits = WordLimits()
    transfer: TransferConfig = TransferConfig()
    selector: SelectorRecipe = SelectorRecipe()
    training: TrainingRecipe = TrainingRecipe()
    data: DataRecipe = DataRecipe()

    def __post_init__(self) -> None:
        for task in self.tasks:
            if task not in TASKS:
                raise ValueError(f"task {task!r} is unknown; there are {', '.join(TASKS)}")
        if HUMANITARIAN not in self.tasks:
            raise ValueError(f"tasks must have {HUMANITARIAN}")
        if self.training.freeze_vision and self.encoder.fit == "aspect":
            raise ValueError('freeze_vision needs images of one size: fit = "square"')

    def digest(self) -> str:
        """Changes with anything that the recipe says."""
        return hashlib.sha256(json.dumps(plain(self), sort_keys=True).encode()).hexdigest()


class CompactRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hands over to `model.training.train`, which makes the shipped kind."""

    trainer: Literal["compact"]
    name: str
    summary: str
    seed: int = 0
    head_seeds: int = 5


def recipe_names() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe | CompactRecipe:
    """A shipped recipe by its name, or any TOML file; overrides are `section.key=value` with a TOML value."""
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"no recipe {name!r}; there are {', '.join(recipe_names())}, or give a FILE.toml") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path} is not a readable TOML file: {error}") from error
    for override in overrides:
        _override(values, override)
    kind: type[Recipe | CompactRecipe] = CompactRecipe if values.get("trainer") == "compact" else Recipe
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise RecipeError(f"recipe {name}: {error}".replace("$.", "").replace("`$`", "the top level")) from error


def _override(values: dict[str, Any], override: str) -> None:
    key, given, text = override.partition("=")
    if not given or not key:
        raise RecipeError(f"--set {override!r} is not KEY=VALUE, as in --set transfer.method=cosine")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    *sections, last = key.split(".")
    place = values
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise RecipeError(f"--set {override!r}: {section} is not a section")
    place[last] = value
