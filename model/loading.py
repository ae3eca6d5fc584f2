"""Loads any kind of checkpoint folder as a classifier; config.json says which kind it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from model import checkpoint
from model.batched import BatchedRationaleClassifier
from model.classifier import RationaleClassifier
from model.errors import CheckpointError

if TYPE_CHECKING:
    from model.joint.classifier import JointClassifier


def load_classifier(
    path: Path, *, device: str = "cpu", n_threads: int | None = None
) -> RationaleClassifier | JointClassifier:
    """The folder's classifier, or `CheckpointError`; n_threads is set for the whole process.

    On a GPU posts share its passes, in bf16: a prediction may then differ in its last digits with its company.
    """
    on_gpu = torch.device(device).type == "cuda"
    kind = checkpoint.read_config(Path(path)).get("kind")
    if kind is None:
        shipped = BatchedRationaleClassifier if on_gpu else RationaleClassifier
        return shipped.load(path, device=device, n_threads=n_threads)
    if kind != "joint":
        raise CheckpointError(f"{Path(path) / checkpoint.CONFIG}: kind {kind!r} is unknown; update Sitrep or re-train")
    # transformers takes seconds to import; the shipped kind does without it
    from model.joint.batched import BatchedJointClassifier
    from model.joint.classifier import JointClassifier
    from model.joint.config import JointConfig

    config = JointConfig.parse(checkpoint.read_config(Path(path)))
    if on_gpu and BatchedJointClassifier.serves(config):
        return BatchedJointClassifier.load(path, device=device, n_threads=n_threads, precision="bf16")
    return JointClassifier.load(path, device=device, n_threads=n_threads)
