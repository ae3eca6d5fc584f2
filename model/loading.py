"""Loads any kind of checkpoint folder as a classifier; config.json says which kind it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from model import checkpoint
from model.classifier import RationaleClassifier
from model.errors import CheckpointError

if TYPE_CHECKING:
    from model.joint.classifier import JointClassifier


def load_classifier(
    path: Path, *, device: str = "cpu", n_threads: int | None = None
) -> RationaleClassifier | JointClassifier:
    """The folder's classifier, or `CheckpointError`; n_threads is set for the whole process."""
    kind = checkpoint.read_config(Path(path)).get("kind")
    if kind is None:
        return RationaleClassifier.load(path, device=device, n_threads=n_threads)
    if kind != "joint":
        raise CheckpointError(f"{Path(path) / checkpoint.CONFIG}: kind {kind!r} is unknown; update Sitrep or re-train")
    # transformers takes seconds to import; the shipped kind does without it
    from model.joint.classifier import JointClassifier

    return JointClassifier.load(path, device=device, n_threads=n_threads)
