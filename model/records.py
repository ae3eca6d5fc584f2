"""The values that go into and come out of the classifier; no torch, no I/O."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from msgspec import Struct

CLASSES = (
    "affected_individuals",
    "infrastructure_and_utility_damage",
    "not_humanitarian",
    "other_relevant_information",
    "rescue_volunteering_or_donation_effort",
)

HUMANITARIAN = "humanitarian"  # the task whose classes a finding has
TASKS: dict[str, tuple[str, ...]] = {
    HUMANITARIAN: CLASSES,
    "informative": ("informative", "not_informative"),
    "damage": ("little_or_no_damage", "mild_damage", "severe_damage"),
}

Pixels = npt.NDArray[np.uint8]
IMAGE_EDGE_PX = 384  # longest edge of a picture as the shipped kind is taught, and as workers prepare it unless told


class Example(Struct, frozen=True, kw_only=True):
    """One post for the classifier: the original text, and at most one RGB image (H, W, 3) in uint8.

    Without `image_rationale` stage 1 leaves the image alone: stage 2 sees patches spread evenly over it, none named.
    A struct, since there is one for every post and a frozen dataclass takes six times as long to make.
    """

    text: str
    image: Pixels | None = None
    image_rationale: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSpan:
    """Selected words `text[start:end]`, whole words of the original text; score in 0..1."""

    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRationale:
    """Patch scores over a grid, row-major, and the selected patches as fractions of the given image."""

    rows: int
    cols: int
    scores: tuple[float, ...]
    selected: tuple[int, ...]
    boxes: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A label with calibrated probabilities (summing to 1) and the only evidence stage 2 was shown."""

    label: str
    probs: dict[str, float]
    spans: tuple[TextSpan, ...]
    image: ImageRationale | None
    fallbacks: tuple[str, ...]
