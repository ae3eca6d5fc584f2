"""What a joint checkpoint is: encoder, limits of the evidence, calibration, provenance. No run settings."""

from __future__ import annotations

import json
import math
from typing import Any, Literal

import msgspec

from model.errors import CheckpointError
from model.records import CLASSES, HUMANITARIAN, TASKS

KIND = "joint"
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
        if self.size_px % self.patch_px or self.size_px < self.patch_px:
            raise ValueError(f"size_px {self.size_px} is not a multiple of patch_px {self.patch_px}")
        if self.fit == "aspect" and self.kind != "vilt":
            raise ValueError(f'fit "aspect" needs the kind "vilt", not {self.kind!r}')


class WordLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which words stage 2 may read: the paper takes all at or above the threshold and one star a hidden word."""

    word_threshold: float = 0.5
    max_word_share: float = 1.0
    min_words: int = 1  # the budget of a post so short that its share would be less
    stars: Literal["each", "run"] = "each"  # one `*` for each hidden word, or for each run of them


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
        prior = config.prior
        if HUMANITARIAN not in config.tasks or len(prior) != len(CLASSES) or not abs(sum(prior) - 1) < 1e-3:
            raise CheckpointError(
                f"config.json: the task {HUMANITARIAN} and its {len(CLASSES)} prior values, together 1, must be there"
            )
        for temperature in (config.temperature, *config.temperatures.values()):
            if not 0 < temperature < math.inf:
                raise CheckpointError(f"config.json: temperature = {temperature} is not above 0; copy it again")
        return config

    def temperature_of(self, task: str) -> float:
        """What the task's class logits are divided by."""
        return self.temperature if task == HUMANITARIAN else self.temperatures.get(task, 1.0)


def plain(value: object) -> Any:
    """A config or recipe as plain JSON values, for digests and records."""
    return json.loads(msgspec.json.encode(value))
