"""What the ablations and the comparison of patch scores need of a joint checkpoint's inside (`evaluation.insides`)."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import torch
from torch import Tensor

from model.classifier import Selection
from model.evaluation import attributions
from model.evaluation.attributions import Scores
from model.evaluation.measures import Probs
from model.joint.classifier import JointClassifier, JointEvidence
from model.joint.evidence import read
from model.joint.pixels import fade_others, grid_of, to_pixel_values
from model.joint.states import Inputs
from model.records import HUMANITARIAN, Example


class JointInsides:
    """Words and patches have seen one another; the ways are the transfer's own other methods."""

    ways: tuple[str, ...] = ("cosine", "attention")

    def __init__(self, classifier: JointClassifier) -> None:
        self._classifier = classifier
        config = classifier.config
        self._others = {
            way: JointClassifier(
                classifier.network,
                msgspec.structs.replace(
                    config, transfer=msgspec.structs.replace(config.transfer, method=way, heatmap="hard")
                ),
                classifier.tokenizer,
                device=classifier.kit.device,
            )
            for way in self.ways
        }

    def other_scores(self, example: Example, selection: Selection) -> dict[str, Scores]:
        return {way: np.array(other.select(example).patch_scores) for way, other in self._others.items()}

    def gradient_scores(self, example: Example, selection: Selection, target: int, *, n_steps: int) -> Scores:
        assert example.image is not None
        everything = replace(selection, words=(), patches=tuple(range(len(selection.patch_scores))))
        whole = self._classifier.mask(msgspec.structs.replace(example, text=""), everything).inputs
        assert whole is not None and whole.pixel_values is not None

        def log_prob(pixel_values: Tensor) -> Tensor:
            logits: Tensor = self._classifier.network.decider(_repeated(whole, pixel_values))[HUMANITARIAN]
            return logits.log_softmax(1)[:, target]

        rows, cols = self._grid(example)
        return attributions.integrated_gradients(log_prob, whole.pixel_values, rows, cols, n_steps=n_steps)

    @torch.inference_mode()
    def stage_one(self, example: Example, selection: Selection) -> Probs:
        """Under the temperature of stage 2, the only one there is."""
        kit = self._classifier.kit
        logits = self._classifier.network.selector(kit.batch([read(example, kit).item])).class_logits[HUMANITARIAN]
        probs: Probs = (logits[0].double() / self._classifier.config.temperature).softmax(0).cpu().numpy()
        return probs

    def without_content(self, example: Example, selection: Selection) -> JointEvidence:
        inputs = self._classifier.mask(example, selection).inputs
        if inputs is None:
            return JointEvidence(inputs=None)
        tokenizer = self._classifier.tokenizer
        special = torch.tensor(
            [tokenizer.cls_id, tokenizer.sep_id, tokenizer.hidden_id], device=inputs.input_ids.device
        )
        input_ids = torch.where(torch.isin(inputs.input_ids, special), inputs.input_ids, tokenizer.pad_id)
        pixel_values = None if inputs.pixel_values is None else torch.zeros_like(inputs.pixel_values)
        return JointEvidence(inputs=replace(inputs, input_ids=input_ids, pixel_values=pixel_values))

    def faded(self, example: Example, selection: Selection) -> JointEvidence:
        assert example.image is not None
        inputs = self._classifier.mask(example, selection).inputs
        assert inputs is not None and inputs.pixel_values is not None
        top = max(selection.patch_scores)
        faded = fade_others(example.image, self._grid(example), [score / top for score in selection.patch_scores])
        values = to_pixel_values(faded, self._grid(example), self._classifier.config.encoder)
        return JointEvidence(inputs=replace(inputs, pixel_values=values[None].to(inputs.pixel_values.device)))

    def _grid(self, example: Example) -> tuple[int, int]:
        assert example.image is not None
        return grid_of(example.image.shape[0], example.image.shape[1], self._classifier.config.encoder)


def _repeated(inputs: Inputs, pixel_values: Tensor) -> Inputs:
    """The same post for each of several versions of its pixels."""
    n = len(pixel_values)
    assert inputs.pixel_mask is not None
    return Inputs(
        input_ids=inputs.input_ids.expand(n, -1),
        attention_mask=inputs.attention_mask.expand(n, -1),
        pixel_values=pixel_values,
        pixel_mask=inputs.pixel_mask.expand(n, -1, -1),
    )
