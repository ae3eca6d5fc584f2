"""What a joint checkpoint is: encoder, limits of the evidence, calibration, provenance. No run settings."""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import msgspec

from model.errors import CheckpointError
from model.records import CLASSES, HUMANITARIAN, TASKS

KIND = "joint"
_LEAST_TOKENS = 3  # [CLS], [SEP] and a word's first piece
_LEAST_BETA = 0.05  # below it exp(-cost / beta) can leave float32's range: plans come out wrong or NaN


class EncoderConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which joint encoder, and how text and pixels come to it."""

    kind: Literal["vilt", "dual", "compact"]
    max_tokens: int
    size_px: int  # of the square, or of the short edge
    patch_px: int
    fit: Literal["square", "aspect"] = "square"  # squeeze to a square, or keep the aspect and pad (ViLT only)
    max_edge_px: int = 640  # of the long edge, where the aspect is kept
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    shape: dict[str, Any] = {}  # the architecture in the encoder's own words; filled from pretrained weights

    def __post_init__(self) -> None:
        if self.patch_px < 1 or self.size_px % self.patch_px or self.size_px < self.patch_px:
            raise ValueError(f"size_px {self.size_px} is not a multiple of patch_px {self.patch_px}")
        if self.max_tokens < _LEAST_TOKENS:
            raise ValueError(f"max_tokens {self.max_tokens} leaves no room for a word: at least {_LEAST_TOKENS}")
        if self.max_edge_px < self.patch_px:
            raise ValueError(f"max_edge_px {self.max_edge_px} is less than patch_px {self.patch_px}")
        if not all(map(math.isfinite, self.mean)) or not all(0.0 < spread < math.inf for spread in self.std):
            raise ValueError(f"mean {self.mean} and std {self.std} must be finite, and std above 0")
        if self.fit == "aspect" and self.kind != "vilt":
            raise ValueError(f'fit "aspect" needs the kind "vilt", not {self.kind!r}')


class WordLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which words stage 2 may read: the paper takes all at or above the threshold and one star a hidden word."""

    word_threshold: float = 0.5
    max_word_share: float = 1.0
    min_words: int = 1  # the budget of a post so short that its share would be less
    stars: Literal["each", "run"] = "each"  # one `*` for each hidden word, or for each run of them

    def __post_init__(self) -> None:
        if not 0.0 <= self.word_threshold <= 1.0:
            raise ValueError(f"word_threshold {self.word_threshold} is no probability")
        if not 0.0 < self.max_word_share <= 1.0:
            raise ValueError(f"max_word_share {self.max_word_share} is not a share above 0 and up to 1")
        if self.min_words < 0:
            raise ValueError(f"min_words {self.min_words} must be at least 0")


class TransferConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From words to patches: how patches are scored, and what of the picture stage 2 may see."""

    method: Literal["ipot", "cosine", "attention", "random", "off"] = "ipot"
    beta: float = 0.5
    n_steps: int = 50
    heatmap: Literal["hard", "soft"] = "hard"
    top_share: float = 0.25  # of the image's patches, for a hard heatmap

    def __post_init__(self) -> None:
        if not 0.0 < self.top_share <= 1.0:
            raise ValueError(f"top_share {self.top_share} is not a share above 0 and up to 1")
        if not _LEAST_BETA <= self.beta < math.inf:
            raise ValueError(
                f"beta {self.beta} must be at least {_LEAST_BETA}: float32 cannot hold a sharper transport"
            )
        if self.n_steps < 1:
            raise ValueError(f"n_steps {self.n_steps} must be at least 1")


class JointConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A checkpoint's config.json."""

    kind: Literal["joint"] = "joint"
    name: str
    version: str
    tasks: dict[str, tuple[str, ...]]
    languages: tuple[str, ...]  # BCP 47 primary subtags it was tested in
    encoder: EncoderConfig
    n_pieces: int
    gru_width: int
    words: WordLimits
    transfer: TransferConfig
    temperature: float  # of the humanitarian class logits, from dev rows
    temperatures: dict[str, float] = {}  # of the other tasks', each from its own; 1 where it is not there
    prior: tuple[float, ...]
    alert_threshold: float
    image_edge_px: int  # longest edge of the pictures as they were read for training
    recipe_digest: str
    data_digest: str
    weights_sha256: str
    tokenizer_sha256: str

    def to_json(self) -> str:
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode() + "\n"

    @classmethod
    def parse(cls, values: object) -> JointConfig:
        """A config from decoded JSON; every key must be there and known."""
        try:
            config = msgspec.convert(values, cls)
        except msgspec.ValidationError as error:
            raise CheckpointError(f"config.json: {error}; copy the checkpoint again") from error
        for task, classes in config.tasks.items():
            if tuple(classes) != TASKS.get(task):
                raise CheckpointError(
                    f"config.json: classes of {task} are {classes}, this code knows {TASKS.get(task)}"
                )
        _check_values(config)
        return config

    def temperature_of(self, task: str) -> float:
        """What the task's class logits are divided by."""
        return self.temperature if task == HUMANITARIAN else self.temperatures.get(task, 1.0)


def _check_values(config: JointConfig) -> None:
    """Raise `CheckpointError` for a value that would make a finding wrong, or end the first prediction."""
    prior, temperatures = config.prior, (config.temperature, *config.temperatures.values())
    cold = next((value for value in temperatures if not 0 < value < math.inf), None)
    is_distribution = len(prior) == len(CLASSES) and min(prior) >= 0 and abs(sum(prior) - 1) < 1e-3
    for what, right in (
        (f"the task {HUMANITARIAN} is not there", HUMANITARIAN in config.tasks),
        ("a prior is no distribution over the classes", is_distribution),
        (f"alert_threshold = {config.alert_threshold} is no probability", 0 < config.alert_threshold <= 1),
        (f"temperature = {cold} is not above 0", cold is None),
        (f"gru_width = {config.gru_width} is not above 0", config.gru_width > 0),
        (f"image_edge_px = {config.image_edge_px} is not above 0", config.image_edge_px > 0),
    ):
        if not right:
            raise CheckpointError(f"config.json: {what}; copy the checkpoint again")


def plain(value: object) -> Any:
    """A config or recipe as plain JSON values, for digests and records."""
    return json.loads(msgspec.json.encode(value))
