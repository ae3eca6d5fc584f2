"""Sitrep's classifier: selects a rationale, then decides from it alone. Knows no queues and no environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from model.errors import CheckpointError, InvalidExample, ModelError
from model.records import CLASSES, Example, ImageRationale, Prediction, TextSpan

if TYPE_CHECKING:
    from model.classifier import RationaleClassifier

__all__ = [
    "CLASSES",
    "CheckpointError",
    "Example",
    "ImageRationale",
    "InvalidExample",
    "ModelError",
    "Prediction",
    "RationaleClassifier",
    "TextSpan",
]


def __getattr__(name: str) -> Any:
    # torch takes a second to import; code that only needs the records should not wait for it
    if name == "RationaleClassifier":
        from model.classifier import RationaleClassifier

        return RationaleClassifier
    raise AttributeError(f"module 'model' has no attribute {name!r}")
