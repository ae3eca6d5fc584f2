"""What a checkpoint is: architecture, calibration and provenance, saved beside the weights. No run settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from model.errors import CheckpointError
from model.records import HUMANITARIAN, TASKS


class _FromDict:
    __slots__ = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        names = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        if set(values) != names:
            wrong = sorted(names ^ set(values))
            raise CheckpointError(f"config.json: {cls.__name__} has missing or unknown keys {wrong}; re-export it")
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig(_FromDict):
    n_pieces: int
    max_tokens: int
    width: int
    n_heads: int
    ff_width: int
    n_selector_layers: int
    n_decider_layers: int
    gru_width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig(_FromDict):
    """Stage 1 is an EfficientNet-Lite, stage 2 a vision transformer whose patch grid the selection's grid divides."""

    size_px: int
    rows: int
    cols: int
    selector_width: float
    selector_depth: float
    selector_head_width: int
    decider_patch_px: int
    decider_width: int
    decider_layers: int
    decider_heads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionConfig(_FromDict):
    """How much evidence stage 2 may see, and the transport that places it on the image."""

    space_width: int
    word_threshold: float
    max_word_share: float
    min_words: int  # the budget of a post so short that its share would be less
    n_patches: int
    beta: float
    n_steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion(_FromDict):
    """Calibrated product of experts: logits = text_weight * text + image_weight * image + bias."""

    text_weight: float
    image_weight: float
    bias: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskConfig(_FromDict):
    """A further task of the checkpoint, decided from the same evidence by heads of its own."""

    classes: tuple[str, ...]
    fusion_both: Fusion
    fusion_text: Fusion
    fusion_image: Fusion
    prior: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig(_FromDict):
    name: str
    version: str
    classes: tuple[str, ...]
    languages: tuple[str, ...]  # BCP 47 primary subtags it was tested in
    text: TextConfig
    image: ImageConfig
    selection: SelectionConfig
    fusion_both: Fusion
    fusion_text: Fusion
    fusion_image: Fusion
    prior: tuple[float, ...]
    further: Mapping[str, TaskConfig]  # by name; the humanitarian task's own values stand above
    alert_threshold: float
    data_digest: str
    weights_sha256: str

    @property
    def tasks(self) -> dict[str, tuple[str, ...]]:
        """Every task and its classes."""
        return {HUMANITARIAN: self.classes, **{name: task.classes for name, task in self.further.items()}}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> ModelConfig:
        """A config from decoded JSON; every key must be there and known."""
        try:
            parsed = _parsed(values)
            if "further" in parsed:
                parsed["further"] = {
                    name: TaskConfig.from_dict(_parsed(task)) for name, task in parsed["further"].items()
                }
            config = cls.from_dict(parsed)
        except (AttributeError, TypeError) as error:
            raise CheckpointError(f"config.json: a section is not an object ({error}); re-export it") from error
        for task, classes in config.tasks.items():
            if classes != TASKS.get(task):
                raise CheckpointError(
                    f"config.json: classes of {task} are {classes}, this code knows {TASKS.get(task)}"
                )
        return config


_SECTIONS: Mapping[str, type[_FromDict]] = {
    "text": TextConfig,
    "image": ImageConfig,
    "selection": SelectionConfig,
    "fusion_both": Fusion,
    "fusion_text": Fusion,
    "fusion_image": Fusion,
}


def _parsed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _SECTIONS[key].from_dict(_tuples(value)) if key in _SECTIONS else value
        for key, value in _tuples(values).items()
    }


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
