"""Sitrep's classifier: selects a rationale, then decides from it alone. Knows no queues and no environment.

Here is what serves the shipped kind, and `joint` has the kinds over joint encoders. `data` reads labelled posts,
`evaluation` measures, `training` makes the shipped checkpoint; what serves imports none of these three.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from model.errors import CheckpointError, InvalidExample, ModelError
from model.records import CLASSES, Example, ImageRationale, Prediction, TextSpan

if TYPE_CHECKING:
    from model.classifier import RationaleClassifier
    from model.loading import load_classifier

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
    "load_classifier",
]


def __getattr__(name: str) -> Any:
    # torch takes a second to import; code that only needs the records should not wait for it
    if name == "RationaleClassifier":
        from model.classifier import RationaleClassifier

        return RationaleClassifier
    if name == "load_classifier":
        from model.loading import load_classifier

        return load_classifier
    raise AttributeError(f"module 'model' has no attribute {name!r}")
