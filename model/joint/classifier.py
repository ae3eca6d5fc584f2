"""A joint checkpoint as a classifier, with the face of `RationaleClassifier`; never trains."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.classifier import Selection, located, merge_spans, task_probs
from model.errors import ModelError
from model.inputs import words_of
from model.joint import folder
from model.joint.config import JointConfig
from model.joint.evidence import Kit, read, select, shown
from model.joint.network import TwoStage
from model.joint.pixels import grid_of
from model.joint.states import Inputs
from model.records import HUMANITARIAN, Example, ImageRationale, Prediction
from model.tokens import WordTokenizer

Precision = Literal["float32", "bf16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JointEvidence:
    """All that stage 2 reads; None when nothing was selected."""

    inputs: Inputs | None


class JointClassifier:
    """A loaded checkpoint. One example at a time, so its bytes never depend on what shares the call."""

    def __init__(
        self,
        network: TwoStage,
        config: JointConfig,
        tokenizer: WordTokenizer,
        *,
        device: str = "cpu",
        precision: Precision = "float32",
    ) -> None:
        self.network = network.to(device).eval()
        self._precision = precision
        self.kit = Kit(
            tokenizer=tokenizer, encoder=config.encoder, words=config.words, transfer=config.transfer, device=device
        )
        self.tokenizer = tokenizer
        self.config = config
        self.name = config.name
        self.version = config.version
        self.digest = f"sha256:{config.weights_sha256}"
        self.classes = tuple(config.tasks[HUMANITARIAN])
        self.languages = tuple(config.languages)
        self.alert_threshold = config.alert_threshold
        self.image_edge_px = config.image_edge_px

    @classmethod
    def load(
        cls, path: Path, *, device: str = "cpu", n_threads: int | None = None, precision: Precision = "float32"
    ) -> Self:
        """Reads a checkpoint folder or raises `CheckpointError`; n_threads is set for the whole process."""
        if n_threads is not None:
            torch.set_num_threads(n_threads)
        network, config, tokenizer = folder.load(Path(path))
        return cls(network, config, tokenizer, device=device, precision=precision)

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """One prediction per example, in order. Equal examples give equal bytes; raises `ModelError`, never NaN."""
        return [self._predict_one(example) for example in examples]

    def predict_tasks(self, examples: Sequence[Example]) -> list[dict[str, dict[str, float]]]:
        """Calibrated class probabilities of every task, from the same evidence."""
        return task_probs(self, examples)

    def select(self, example: Example) -> Selection:
        """Stage 1: which words and which patches are the rationale."""
        with self._autocast():
            return select(self.network.selector, [read(example, self.kit)], self.kit)[0]

    def mask(self, example: Example, selection: Selection) -> JointEvidence:
        """What stage 2 may read of the example; every other word and pixel is gone."""
        item = shown(example, selection, self.kit)
        return JointEvidence(inputs=None if item is None else self.kit.batch([item]))

    def decide(self, evidence: JointEvidence) -> npt.NDArray[np.float64]:
        """Stage 2: calibrated class probabilities (5,) from the evidence alone; the prior without any."""
        return self.decide_tasks(evidence, (HUMANITARIAN,))[HUMANITARIAN]

    @torch.inference_mode()
    def decide_tasks(
        self, evidence: JointEvidence, tasks: Sequence[str] | None = None
    ) -> dict[str, npt.NDArray[np.float64]]:
        """The same for some tasks of the checkpoint, or for all."""
        tasks = tuple(tasks or self.config.tasks)
        if evidence.inputs is None:
            return {task: self._prior(task) for task in tasks}
        with self._autocast():
            logits = self.network.decider(evidence.inputs)
        return {task: softmax(logits[task][0].double().cpu() / self.config.temperature_of(task)) for task in tasks}

    def _prior(self, task: str) -> npt.NDArray[np.float64]:
        n_classes = len(self.config.tasks[task])
        return np.asarray(self.config.prior if task == HUMANITARIAN else [1.0 / n_classes] * n_classes)

    def _predict_one(self, example: Example) -> Prediction:
        selection = self.select(example)
        return self._told(example, selection, self.decide(self.mask(example, selection)))

    def image_rationale(self, example: Example, selection: Selection) -> ImageRationale | None:
        """Where the selected patches lie; None without an image."""
        if example.image is None:
            return None
        height, width = example.image.shape[:2]
        return located(example.image, selection, *grid_of(height, width, self.config.encoder))

    def _told(self, example: Example, selection: Selection, probs: npt.NDArray[np.float64]) -> Prediction:
        return Prediction(
            label=self.classes[int(probs.argmax())],
            probs=dict(zip(self.classes, probs.tolist(), strict=True)),
            spans=merge_spans(words_of(example, self.tokenizer), selection),
            image=self.image_rationale(example, selection),
            fallbacks=selection.fallbacks,
        )

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(
            torch.device(self.kit.device).type, dtype=torch.bfloat16, enabled=self._precision == "bf16"
        )


def softmax(logits: Tensor) -> npt.NDArray[np.float64]:
    """Probabilities of one row of logits (C,); raises `ModelError` for what is not finite."""
    if not torch.isfinite(logits).all():
        raise ModelError("the network produced a value that is not finite; the checkpoint is damaged")
    probs: npt.NDArray[np.float64] = logits.softmax(0).numpy()
    return probs
