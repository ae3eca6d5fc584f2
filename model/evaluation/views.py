"""Other selections over the same post: what stage 2 decides when it is shown more, less or the opposite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from model.classifier import Selection
from model.records import HUMANITARIAN, Example, ImageRationale

RATIONALE, FULL, REMOVED = "rationale_only", "full", "rationale_removed"
TEXT_ONLY, IMAGE_ONLY = "text_rationale_only", "image_rationale_only"
VIEWS = (RATIONALE, FULL, REMOVED, TEXT_ONLY, IMAGE_ONLY)


class Stages(Protocol):
    """The public steps of a classifier, which is all that most measures need of it."""

    classes: tuple[str, ...]
    tokenizer: Any
    image_edge_px: int  # longest edge of pictures as it was taught on them

    def select(self, example: Example) -> Selection: ...

    def image_rationale(self, example: Example, selection: Selection) -> ImageRationale | None: ...

    def mask(self, example: Example, selection: Selection) -> Any: ...

    def decide(self, evidence: Any) -> npt.NDArray[np.float64]: ...


class TaskStages:
    """Another task of the same checkpoint: the same rationale, that task's classes."""

    def __init__(self, stages: Stages, task: str, classes: Sequence[str]) -> None:
        self._stages, self._task = stages, task
        self.classes, self.tokenizer = tuple(classes), stages.tokenizer
        self.image_edge_px = stages.image_edge_px

    def select(self, example: Example) -> Selection:
        return self._stages.select(example)

    def image_rationale(self, example: Example, selection: Selection) -> ImageRationale | None:
        return self._stages.image_rationale(example, selection)

    def mask(self, example: Example, selection: Selection) -> Any:
        return self._stages.mask(example, selection)

    def decide(self, evidence: Any) -> npt.NDArray[np.float64]:
        probs: npt.NDArray[np.float64] = self._stages.decide_tasks(evidence, (self._task,))[self._task]  # type: ignore[attr-defined]
        return probs


def tasks_of(classifier: Stages) -> Mapping[str, Sequence[str]]:
    """The tasks that a checkpoint decides: more than the humanitarian one where it has `decide_tasks`."""
    if hasattr(classifier, "decide_tasks"):
        tasks: Mapping[str, Sequence[str]] = classifier.config.tasks  # type: ignore[attr-defined]
        return tasks
    return {HUMANITARIAN: classifier.classes}


def for_task(classifier: Stages, task: str) -> Stages:
    """The classifier as it decides one of its tasks."""
    return classifier if task == HUMANITARIAN else TaskStages(classifier, task, tasks_of(classifier)[task])


def decide(classifier: Stages, example: Example, selection: Selection) -> npt.NDArray[np.float64]:
    """Class probabilities (5,) from the selected words and patches alone."""
    return classifier.decide(classifier.mask(example, selection))


def view(name: str, selection: Selection) -> Selection:
    """One of `VIEWS` of a post, made from its rationale."""
    if name == RATIONALE:
        return selection
    if name == FULL:
        return whole(selection)
    if name == REMOVED:
        return without(selection, selection)
    return replace(selection, patches=()) if name == TEXT_ONLY else replace(selection, words=())


def whole(selection: Selection) -> Selection:
    """Every word and every patch; no words where stage 1 could read none."""
    words = tuple(range(len(selection.word_scores))) if selection.words else ()
    return replace(selection, words=words, patches=tuple(range(len(selection.patch_scores))))


def without(selection: Selection, removed: Selection) -> Selection:
    """Every word and patch but the removed ones."""
    everything = whole(selection)
    return replace(
        everything,
        words=tuple(sorted(set(everything.words) - set(removed.words))),
        patches=tuple(sorted(set(everything.patches) - set(removed.patches))),
    )


def top(selection: Selection, share: float) -> Selection:
    """The best-scored share of words and of patches, rounded up; ties to the earlier one."""
    everything = whole(selection)
    words = best(selection.word_scores, math.ceil(share * len(everything.words))) if everything.words else ()
    return replace(
        everything, words=words, patches=best(selection.patch_scores, math.ceil(share * len(everything.patches)))
    )


def best(scores: Sequence[float], n: int) -> tuple[int, ...]:
    """Positions of the n best scores, in order; ties to the earlier one."""
    return tuple(sorted(sorted(range(len(scores)), key=lambda index: (-scores[index], index))[:n]))
