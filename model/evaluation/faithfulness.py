"""Do the best-scored patches drive the image's own decision? Deletion and insertion areas, ours against others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import structs
from tqdm import tqdm

from model.classifier import RationaleClassifier, Selection
from model.data.labelled_posts import LabelledPost
from model.errors import ModelError
from model.evaluation import attributions
from model.evaluation.attributions import Decide, Scores, Shown
from model.evaluation.insides import Insides, insides_of
from model.evaluation.judging import example_of, spread, try_image
from model.evaluation.measures import Probs
from model.evaluation.views import Stages
from model.records import Example

OURS, RISE = "transport", "rise"
_N_TOGETHER = 4  # sets of patches decided in a pass


class NoImages(ModelError):
    """No post has an image that can be read; the message names the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How many images, evenly spread over the posts, and how much work for each."""

    n_images: int = 100
    n_steps: int = 10  # equal steps in which patches come in and go out
    n_masks: int = 256  # of RISE: a decision each
    n_gradient_steps: int = 32
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Areas:
    """Under the class's probability while patches come in (high is good) and go out (low is good), best first."""

    insertion: float
    deletion: float


def measure(classifier: Stages, posts: Sequence[LabelledPost], settings: Settings) -> dict[str, Any]:
    """Mean areas of every way to score patches, and our gain over RISE; uses no label.

    The explained class is what the image alone gets when all of it is shown. Every way orders the same patches and
    gives up the same number at each step.
    """
    with_image = [index for index, post in enumerate(posts) if post.image is not None]
    chosen = sorted(spread(with_image, settings.n_images))
    insides = insides_of(classifier)
    found: list[dict[str, Areas]] = []
    for index in tqdm(chosen, desc="faithfulness", unit="image", disable=None):
        image = try_image(posts[index].image, classifier.image_edge_px)
        if image is not None:
            example = example_of(posts[index], image)
            found.append(areas_of(classifier, insides, example, settings, seed=settings.seed + index))
    if not found:
        raise NoImages("no post has an image that can be read, so there is no image faithfulness: leave out --faithful")
    return {"rise_masks": settings.n_masks, **summarise(found)}


def summarise(found: Sequence[Mapping[str, Areas]]) -> dict[str, Any]:
    """Means over images. The gain is the mean of the relative gains in insertion and in deletion area."""
    methods = {
        name: {
            "insertion": float(np.mean([one[name].insertion for one in found])),
            "deletion": float(np.mean([one[name].deletion for one in found])),
        }
        for name in found[0]
    }
    ours, rise = methods[OURS], methods[RISE]
    by_insertion = ours["insertion"] / rise["insertion"] - 1.0
    by_deletion = 1.0 - ours["deletion"] / rise["deletion"]
    return {
        "n": len(found),
        "methods": methods,
        "insertion_gain_over_rise": by_insertion,
        "deletion_gain_over_rise": by_deletion,
        "gain_over_rise": (by_insertion + by_deletion) / 2.0,
    }


def areas_of(
    classifier: Stages, insides: Insides, example: Example, settings: Settings, *, seed: int
) -> dict[str, Areas]:
    """Both areas for every way to score one image's patches."""
    selection = classifier.select(example)
    probs = _ImageAlone(classifier, example, selection)
    everything = tuple(range(len(selection.patch_scores)))
    target = int(probs([everything])[0].argmax())

    def decide(shown: Sequence[Shown]) -> Scores:
        return probs(shown)[:, target]

    scored: dict[str, Scores] = {
        OURS: np.array(selection.patch_scores),
        **insides.other_scores(example, selection),
        "integrated_gradients": insides.gradient_scores(example, selection, target, n_steps=settings.n_gradient_steps),
        RISE: attributions.rise(decide, len(everything), n_masks=settings.n_masks, seed=seed),
        "random": attributions.uniform_noise(len(everything), seed),
    }
    return {name: areas(scores, decide, settings.n_steps) for name, scores in scored.items()}


def areas(scores: Scores, decide: Decide, n_steps: int) -> Areas:
    """Trapezoids over equal steps from nothing to everything; ties go to the earlier patch."""
    order = np.argsort(-scores, kind="stable")
    counts = [round(step * len(order) / n_steps) for step in range(n_steps + 1)]
    inserted = decide([tuple(sorted(order[:k].tolist())) for k in counts])
    deleted = decide([tuple(sorted(order[k:].tolist())) for k in counts])
    widths = np.diff(counts) / len(order)
    return Areas(insertion=_area(inserted, widths), deletion=_area(deleted, widths))


def _area(heights: Scores, widths: npt.NDArray[np.float64]) -> float:
    return float(((heights[1:] + heights[:-1]) / 2.0 * widths).sum())


class _ImageAlone:
    """What the image alone is decided to be when some of its patches are shown, each set decided once."""

    def __init__(self, classifier: Stages, example: Example, selection: Selection) -> None:
        self._classifier, self._example = classifier, structs.replace(example, text="")
        self._selection = replace(selection, words=())
        self._known: dict[Shown, Probs] = {}

    def __call__(self, shown: Sequence[Shown]) -> Probs:
        """Class probabilities (N, 5) for N sets of patches."""
        unknown = sorted(set(shown) - self._known.keys(), key=lambda one: (len(one), one))  # like sizes pad little
        for start in range(0, len(unknown), _N_TOGETHER):
            part = unknown[start : start + _N_TOGETHER]
            self._known.update(zip(part, self._decide(part), strict=True))
        return np.stack([self._known[one] for one in shown])

    def _decide(self, shown: Sequence[Shown]) -> Sequence[Probs]:
        classifier = self._classifier
        evidence = [classifier.mask(self._example, replace(self._selection, patches=one)) for one in shown]
        if isinstance(classifier, RationaleClassifier):
            return list(classifier.decide_images(evidence))
        return [classifier.decide(one) for one in evidence]
