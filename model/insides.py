"""What the ablations and the comparison of patch scores need of a classifier's inside; no measure, no decision rule.

Each kind of checkpoint has one; everything else that is measured goes through the classifier's public steps.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from model import attributions, patches
from model.attributions import Scores
from model.classifier import Evidence, RationaleClassifier, Selection, fuse
from model.errors import ModelError
from model.measures import Probs
from model.records import Example
from model.views import Stages


class NoInsides(ModelError):
    """A kind of checkpoint whose inside nobody has described yet; the message names it."""


class Insides(Protocol):
    """An image is needed for all but `stage_one` and `without_content`."""

    ways: tuple[str, ...]  # to score patches by what stage 1 knows, in place of transport

    def other_scores(self, example: Example, selection: Selection) -> dict[str, Scores]:
        """The patches' scores in each of these ways."""
        ...

    def gradient_scores(self, example: Example, selection: Selection, target: int, *, n_steps: int) -> Scores:
        """Integrated gradients of the image's own decision for a class."""
        ...

    def stage_one(self, example: Example, selection: Selection) -> Probs:
        """Class probabilities (5,) by stage 1's auxiliary heads, which saw everything."""
        ...

    def without_content(self, example: Example, selection: Selection) -> Any:
        """Evidence that says where the rationale is and nothing of what it is: empty pieces, grey patches."""
        ...

    def faded(self, example: Example, selection: Selection) -> Any:
        """Evidence with patches that fade to grey with their score, instead of being shown or not."""
        ...


def insides_of(classifier: Stages) -> Insides:
    """The inside of a classifier; raises `NoInsides` for a kind without one."""
    if isinstance(classifier, RationaleClassifier):
        return CompactInsides(classifier)
    raise NoInsides(f"{type(classifier).__name__} has no insides to take apart: evaluate without --faithful")


class CompactInsides:
    """Of the shipped kind: a convolutional image encoder without attention, text and image decided apart."""

    ways: tuple[str, ...] = ("cosine", "activation_norm")

    def __init__(self, classifier: RationaleClassifier) -> None:
        self._classifier, self._network = classifier, classifier.network
        self._grid = classifier.config.image

    def other_scores(self, example: Example, selection: Selection) -> dict[str, Scores]:
        space = self._classifier.space(example, selection)
        return {"cosine": attributions.cosine(space), "activation_norm": attributions.activation_norm(space)}

    def gradient_scores(self, example: Example, selection: Selection, target: int, *, n_steps: int) -> Scores:
        def log_prob(pixel_values: Tensor) -> Tensor:
            shown = torch.ones(len(pixel_values), self._grid.rows * self._grid.cols, dtype=torch.bool)
            logits: Tensor = self._network.image_decider(pixel_values, shown)
            return logits.log_softmax(1)[:, target]

        return attributions.integrated_gradients(
            log_prob, self._pixel_values(example), self._grid.rows, self._grid.cols, n_steps=n_steps
        )

    @torch.inference_mode()
    def stage_one(self, example: Example, selection: Selection) -> Probs:
        """Under the calibration of stage 2, the only one there is."""
        text = image = None
        if selection.words:
            tokens = self._classifier.tokenizer.encode(self._classifier.tokenizer.split(example.text))
            embedded = self._network.embeddings(torch.tensor([tokens.input_ids]))
            text = _log_probs(self._network.text_selector(embedded).class_logits)
        if example.image is not None:
            image = _log_probs(self._network.image_selector(self._pixel_values(example)).class_logits)
        return fuse(self._classifier.config, text, image)

    def without_content(self, example: Example, selection: Selection) -> Evidence:
        evidence = self._classifier.mask(example, selection)
        tokenizer, input_ids, pixel_values = self._classifier.tokenizer, evidence.input_ids, evidence.pixel_values
        if input_ids is not None:
            special = torch.tensor([tokenizer.cls_id, tokenizer.sep_id, tokenizer.hidden_id])
            input_ids = torch.where(torch.isin(input_ids, special), input_ids, tokenizer.pad_id)
        if pixel_values is not None:
            pixel_values = torch.zeros_like(pixel_values)
        return replace(evidence, input_ids=input_ids, pixel_values=pixel_values)

    def faded(self, example: Example, selection: Selection) -> Evidence:
        everything = replace(selection, patches=tuple(range(len(selection.patch_scores))))
        evidence = self._classifier.mask(example, everything)
        assert evidence.pixel_values is not None
        heat = torch.tensor(selection.patch_scores).view(1, 1, self._grid.rows, self._grid.cols)
        shade = torch.nn.functional.interpolate(heat / heat.max(), size=evidence.pixel_values.shape[2:], mode="nearest")
        return replace(evidence, pixel_values=evidence.pixel_values * shade)

    def _pixel_values(self, example: Example) -> Tensor:
        assert example.image is not None
        return patches.to_pixel_values(example.image, self._grid.size_px)[None]


def _log_probs(class_logits: Tensor) -> Probs:
    return np.asarray(class_logits[0].double().log_softmax(0).numpy())
