"""What the ablations and the comparison of patch scores need of a classifier's inside; no measure, no decision rule.

Each kind of checkpoint has one; everything else that is measured goes through the classifier's public steps.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from model import patches
from model.classifier import Evidence, RationaleClassifier, Selection, fuse
from model.errors import ModelError
from model.evaluation import attributions
from model.evaluation.attributions import Scores
from model.evaluation.measures import Probs
from model.evaluation.views import Stages
from model.int8 import Int8Linear
from model.network import ImageDecider
from model.records import Example

M = TypeVar("M", bound=nn.Module)


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
    # imports transformers, which takes seconds; a joint classifier has done so already
    from model.joint.classifier import JointClassifier
    from model.joint.insides import JointInsides

    if isinstance(classifier, JointClassifier):
        return JointInsides(classifier)
    raise NoInsides(f"{type(classifier).__name__} has no insides to take apart: evaluate without --faithful")


class CompactInsides:
    """Of the shipped kind. Stage 1 sees images by convolutions, which have no attention: `attention` is stage 2's."""

    ways: tuple[str, ...] = ("cosine", "attention", "activation_norm")

    def __init__(self, classifier: RationaleClassifier) -> None:
        self._classifier, self._network = classifier, classifier.network
        self._grid = classifier.config.image

    def other_scores(self, example: Example, selection: Selection) -> dict[str, Scores]:
        space = self._classifier.space(example, selection)
        attended = attributions.without_empty(self._attention(self._pixel_values(example)), space)
        norm = attributions.activation_norm(space)
        return {"cosine": attributions.cosine(space), "attention": attended, "activation_norm": norm}

    def gradient_scores(self, example: Example, selection: Selection, target: int, *, n_steps: int) -> Scores:
        def log_prob(pixel_values: Tensor) -> Tensor:
            logits: Tensor = self._float_decider(pixel_values, self._everything(len(pixel_values)))
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

    @torch.inference_mode()
    def _attention(self, pixel_values: Tensor) -> Tensor:
        """How much [CLS] attends to each cell in the last layer when it sees the whole image, over heads; (P,)."""
        tower, inputs = self._network.image_decider.tower, list[Tensor]()
        layer: Any = tower.layers[-1]
        hook = layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        try:
            tower(pixel_values)
        finally:
            hook.remove()
        B, N, D = inputs[0].shape  # 1, [CLS] and patches, width
        qkv = layer.qkv(layer.attention_norm(inputs[0])).view(N, 3, layer.n_heads, D // layer.n_heads)
        query, key, _ = qkv.permute(1, 2, 0, 3)  # each (nh, N, hs)
        weights: Tensor = (query[:, :1] @ key.transpose(1, 2) / (D // layer.n_heads) ** 0.5).softmax(2)  # (nh, 1, N)
        rows, cols = self._grid.rows, self._grid.cols
        fine = weights.mean(0)[0, 1:].view(rows, tower.side // rows, cols, tower.side // cols)
        return fine.sum((1, 3)).flatten()

    @cached_property
    def _float_decider(self) -> ImageDecider:
        """The decider with its int8 layers written out, for rounding has no gradient."""
        return _written_out(copy.deepcopy(self._network.image_decider))

    def _everything(self, n_images: int) -> Tensor:
        return torch.ones(n_images, self._grid.rows * self._grid.cols, dtype=torch.bool)

    def _pixel_values(self, example: Example) -> Tensor:
        assert example.image is not None
        return patches.to_pixel_values(example.image, self._grid.size_px)[None]


def _log_probs(class_logits: Tensor) -> Probs:
    return np.asarray(class_logits[0].double().log_softmax(0).numpy())


def _written_out(module: M) -> M:
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Int8Linear):
                n_in, n_out = child.weight.shape
                linear = nn.Linear(n_in, n_out, bias=child.bias is not None)
                linear.weight.data = (child.weight.float() * child.scale).t().contiguous()
                if child.bias is not None:
                    linear.bias.data = child.bias.clone()
                setattr(parent, name, linear.requires_grad_(False))
    return module
