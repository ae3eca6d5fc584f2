"""Loads any kind of checkpoint folder as a classifier; config.json says which kind it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from model import checkpoint
from model.batched import BatchedRationaleClassifier
from model.classifier import RationaleClassifier
from model.errors import CheckpointError, ModelError
from model.precision import is_bf16_fast
from model.records import IMAGE_EDGE_PX, Example

if TYPE_CHECKING:
    from model.joint.batched import BatchedJointClassifier
    from model.joint.classifier import JointClassifier

_WARM_WORDS = (14, 30, 46)  # of most posts' lengths; graphs for others are made when they come
B = TypeVar("B", BatchedRationaleClassifier, "BatchedJointClassifier")


def load_classifier(
    path: Path, *, device: str = "cpu", n_threads: int | None = None
) -> RationaleClassifier | JointClassifier:
    """The folder's classifier, or `CheckpointError`; n_threads is set for the whole process.

    On a GPU posts share its passes, in bf16 where it has that: a prediction may then differ in its last digits with
    its company.
    """
    check_device(device)
    on_gpu = torch.device(device).type == "cuda"
    kind = checkpoint.read_config(Path(path)).get("kind")
    if kind is None and on_gpu:
        return _warmed(
            BatchedRationaleClassifier.load(path, device=device, n_threads=n_threads, exact=not is_bf16_fast(device))
        )
    if kind is None:
        return RationaleClassifier.load(path, device=device, n_threads=n_threads)
    if kind != "joint":
        raise CheckpointError(f"{Path(path) / checkpoint.CONFIG}: kind {kind!r} is unknown; update Sitrep or re-train")
    # transformers takes seconds to import; the shipped kind does without it
    from model.joint.batched import BatchedJointClassifier
    from model.joint.classifier import JointClassifier, Precision
    from model.joint.config import JointConfig

    config = JointConfig.parse(checkpoint.read_config(Path(path)))
    if on_gpu and BatchedJointClassifier.serves(config):
        precision: Precision = "bf16" if is_bf16_fast(device) else "float32"
        return _warmed(BatchedJointClassifier.load(path, device=device, n_threads=n_threads, precision=precision))
    return JointClassifier.load(path, device=device, n_threads=n_threads)


def check_device(device: str) -> None:
    """Raises `ModelError` where torch cannot compute on the device."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        why = " ".join(str(error).split())[:120]
        raise ModelError(
            f"device {device!r} cannot be used ({why}): give cpu, or a GPU that this build of torch finds"
        ) from error


def _warmed(classifier: B) -> B:
    """The classifier, once what full batches need on a GPU is compiled and captured: their first would take seconds."""
    image = np.zeros((IMAGE_EDGE_PX, IMAGE_EDGE_PX, 3), dtype=np.uint8)
    for n_words in _WARM_WORDS:
        for picture in (None, image):
            classifier.predict([Example(text="flood " * n_words, image=picture)] * classifier.part_size)
    return classifier
