"""The method with one part taken out or swapped: other selections and decisions over a finished checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from msgspec import structs

from model.classifier import Selection
from model.evaluation import views
from model.evaluation.insides import Insides
from model.evaluation.measures import Probs
from model.evaluation.views import Stages, best
from model.records import Example


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One post with what the method selected of it."""

    classifier: Stages
    insides: Insides
    example: Example
    selection: Selection
    dice: np.random.Generator

    def decide(self, selection: Selection) -> Probs:
        return views.decide(self.classifier, self.example, selection)

    def with_patches(self, scores: Sequence[float], n: int | None = None) -> Probs:
        """The same words with the n best patches of other scores; as many as were selected, by default."""
        n = len(self.selection.patches) if n is None else n
        return self.decide(replace(self.selection, patches=best(scores, n)))


def ways_of(insides: Insides) -> tuple[str, ...]:
    """The names in `WAYS` that this kind of checkpoint has."""
    return tuple(name for name in WAYS if _NEEDED.get(name, insides.ways[0]) in insides.ways)


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


def _other_patches(name: str) -> Callable[[Case], Probs]:
    def way(case: Case) -> Probs:
        if case.example.image is None:
            return case.decide(case.selection)
        return case.with_patches(case.insides.other_scores(case.example, case.selection)[name].tolist())

    return way


def _soft_heatmap(case: Case) -> Probs:
    if case.example.image is None or not case.selection.patches:
        return case.decide(case.selection)
    return case.classifier.decide(case.insides.faded(case.example, case.selection))


def _without_words(case: Case) -> Probs:
    """Patches chosen as for an image without a post, by what stands for the classes: no word has a say."""
    if case.example.image is None:
        return case.decide(case.selection)
    return case.with_patches(case.classifier.select(structs.replace(case.example, text="")).patch_scores)


def _top(share: float) -> Callable[[Case], Probs]:
    return lambda case: case.with_patches(case.selection.patch_scores, round(share * len(case.selection.patch_scores)))


WAYS: Mapping[str, Callable[[Case], Probs]] = {
    "full_method_hard_masks": lambda case: case.decide(case.selection),
    "no_stage_2": lambda case: case.insides.stage_one(case.example, case.selection),
    "random_masks_of_equal_size": _random_masks,
    "mask_alone": lambda case: case.classifier.decide(case.insides.without_content(case.example, case.selection)),
    "cosine_instead_of_ipot": _other_patches("cosine"),
    "attention_instead_of_ipot": _other_patches("attention"),
    "activation_norm_instead_of_ipot": _other_patches("activation_norm"),
    "top_10_percent_patches": _top(0.10),
    "top_25_percent_patches": _top(0.25),
    "top_50_percent_patches": _top(0.50),
    "soft_heatmap": _soft_heatmap,
    "transfer_off_class_prototypes": _without_words,
    "transfer_off_all_patches": lambda case: case.with_patches(case.selection.patch_scores, 10**6),
}
_NEEDED = {f"{name}_instead_of_ipot": name for name in ("cosine", "attention", "activation_norm")}
SEEDED = ("random_masks_of_equal_size",)
