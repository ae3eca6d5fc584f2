"""What a checkpoint is: architecture, calibration and provenance, saved beside the weights. No run settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import msgspec

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
    tokenizer_sha256: str

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
        _check_values(config)
        return config


def _check_values(config: ModelConfig) -> None:
    """Raise `CheckpointError` for a value that would make a finding wrong, or end the first prediction."""
    try:
        msgspec.convert(config.to_dict(), ModelConfig)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"config.json: {error}; copy the checkpoint again") from error
    image, selection = config.image, config.selection
    heads: list[ModelConfig | TaskConfig] = [config, *config.further.values()]
    fusions = [fusion for head in heads for fusion in (head.fusion_both, head.fusion_text, head.fusion_image)]
    finite = [value for one in fusions for value in (one.text_weight, one.image_weight, *one.bias)]
    side = image.size_px // max(1, image.decider_patch_px)
    for what, right in (
        ("a fusion's bias has not one value for each class", all(_fits(head) for head in heads)),
        ("a fusion has a value that is not finite", all(map(math.isfinite, finite))),
        ("a prior is no distribution over the classes", all(_is_distribution(head) for head in heads)),
        (f"alert_threshold = {config.alert_threshold} is no probability", 0 < config.alert_threshold <= 1),
        (f"beta = {selection.beta} is not above 0", 0 < selection.beta < math.inf),
        (f"n_steps = {selection.n_steps} is not above 0", selection.n_steps > 0),
        (f"max_word_share = {selection.max_word_share} is no share", 0 < selection.max_word_share <= 1),
        (f"rows = {image.rows}, cols = {image.cols} do not divide a side of {side} patches", _divides(image, side)),
    ):
        if not right:
            raise CheckpointError(f"config.json: {what}; copy the checkpoint again")


def _fits(head: ModelConfig | TaskConfig) -> bool:
    fusions = (head.fusion_both, head.fusion_text, head.fusion_image)
    return {len(fusion.bias) for fusion in fusions} == {len(head.classes)}


def _is_distribution(head: ModelConfig | TaskConfig) -> bool:
    prior = head.prior
    return len(prior) == len(head.classes) and min(prior) >= 0 and abs(sum(prior) - 1) < 1e-3


def _divides(image: ImageConfig, side: int) -> bool:
    return image.rows == image.cols > 0 and side > 0 and side % image.rows == 0


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
