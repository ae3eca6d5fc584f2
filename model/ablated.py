"""The method with one part taken out or swapped: other selections and decisions over a finished checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from model import attributions, views
from model.classifier import Evidence, RationaleClassifier, Selection, fuse
from model.measures import Probs
from model.records import Example
from model.views import best


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One post with what the method selected of it."""

    classifier: RationaleClassifier
    example: Example
    selection: Selection
    dice: np.random.Generator

    def decide(self, selection: Selection) -> Probs:
        return views.decide(self.classifier, self.example, selection)

    def with_patches(self, scores: Sequence[float], n: int | None = None) -> Probs:
        """The same words with the n best patches of other scores; as many as were selected, by default."""
        n = len(self.selection.patches) if n is None else n
        return self.decide(replace(self.selection, patches=best(scores, n)))


@torch.inference_mode()
def _no_stage_2(case: Case) -> Probs:
    """Stage 1's own auxiliary heads, which saw everything, under the stage-2 calibration."""
    network, text, image = case.classifier.network, None, None
    if case.selection.words:
        tokens = case.classifier.tokenizer.encode(case.classifier.tokenizer.split(case.example.text))
        stage = network.text_selector(network.embeddings(torch.tensor([tokens.input_ids])))
        text = stage.class_logits[0].double().log_softmax(0).numpy()
    if case.example.image is not None:
        seen = network.image_selector(attributions.pixel_values_of(case.classifier, case.example.image))
        image = seen.class_logits[0].double().log_softmax(0).numpy()
    return fuse(case.classifier.config, text, image)


def _random_masks(case: Case) -> Probs:
    """As many words and patches as were selected, drawn from all that could have been."""
    words = case.classifier.tokenizer.split(case.example.text)
    open_words = [index for index, word in enumerate(words) if word.selectable]
    n_patches = len(case.selection.patch_scores)
    return case.decide(
        replace(
            case.selection,
            words=_draw(case.dice, open_words, len(case.selection.words)),
            patches=_draw(case.dice, range(n_patches), len(case.selection.patches)),
        )
    )


def _draw(dice: np.random.Generator, items: Sequence[int], n: int) -> tuple[int, ...]:
    return tuple(sorted(dice.choice(items, size=n, replace=False).tolist())) if n else ()


def _mask_alone(case: Case) -> Probs:
    """The decider reads where the rationale is and nothing of what it says: empty pieces, grey patches."""
    evidence = case.classifier.mask(case.example, case.selection)
    input_ids, kept = evidence.input_ids, case.classifier.tokenizer
    if input_ids is not None:
        special = torch.tensor([kept.cls_id, kept.sep_id, kept.hidden_id])
        input_ids = torch.where(torch.isin(input_ids, special), input_ids, kept.pad_id)
    pixel_values = evidence.pixel_values
    return case.classifier.decide(
        Evidence(
            input_ids=input_ids,
            pixel_values=None if pixel_values is None else torch.zeros_like(pixel_values),
            patch_mask=evidence.patch_mask,
        )
    )


def _soft_heatmap(case: Case) -> Probs:
    """Patches fade to grey with their score instead of being shown or not."""
    if case.example.image is None or not case.selection.patches:
        return case.decide(case.selection)
    grid = case.classifier.config.image
    heat = torch.tensor(case.selection.patch_scores).view(grid.rows, grid.cols)
    everything = replace(case.selection, patches=tuple(range(grid.rows * grid.cols)))
    evidence = case.classifier.mask(case.example, everything)
    assert evidence.pixel_values is not None
    shade = (heat / heat.max())[None, None]
    shade = torch.nn.functional.interpolate(shade, size=evidence.pixel_values.shape[2:], mode="nearest")
    return case.classifier.decide(replace(evidence, pixel_values=evidence.pixel_values * shade))


def _space_scores(score: Callable[..., Probs]) -> Callable[[Case], Probs]:
    def way(case: Case) -> Probs:
        if case.example.image is None:
            return case.decide(case.selection)
        return case.with_patches(score(case.classifier.space(case.example, case.selection)).tolist())

    return way


def _prototypes(case: Case) -> Probs:
    """Patches chosen by the class prototypes, as for an image without a post: no word has a say."""
    if case.example.image is None:
        return case.decide(case.selection)
    return case.with_patches(case.classifier.select(replace(case.example, text="")).patch_scores)


def _top(share: float) -> Callable[[Case], Probs]:
    return lambda case: case.with_patches(case.selection.patch_scores, round(share * len(case.selection.patch_scores)))


WAYS: Mapping[str, Callable[[Case], Probs]] = {
    "full_method_hard_masks": lambda case: case.decide(case.selection),
    "no_stage_2": _no_stage_2,
    "random_masks_of_equal_size": _random_masks,
    "mask_alone": _mask_alone,
    "cosine_instead_of_ipot": _space_scores(attributions.cosine),
    "activation_norm_instead_of_ipot": _space_scores(attributions.activation_norm),
    "top_10_percent_patches": _top(0.10),
    "top_25_percent_patches": _top(0.25),
    "top_50_percent_patches": _top(0.50),
    "soft_heatmap": _soft_heatmap,
    "transfer_off_class_prototypes": _prototypes,
    "transfer_off_all_patches": lambda case: case.with_patches(case.selection.patch_scores, 10**6),
}
SEEDED = ("random_masks_of_equal_size",)
