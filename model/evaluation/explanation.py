"""ERASER's measures of an explanation (DeYoung et al. 2020): what the prediction loses without it or with it alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model.classifier import Selection
from model.evaluation import views
from model.evaluation.measures import Labels, Probs, classification, probability_drop
from model.evaluation.views import FULL, RATIONALE, REMOVED, VIEWS, Stages
from model.records import CLASSES, Example

THRESHOLDS = (0.01, 0.05, 0.10, 0.20, 0.50)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """One post's class probabilities (5,) when shown in each way."""

    by_view: Mapping[str, npt.NDArray[np.float64]]
    kept: tuple[npt.NDArray[np.float64], ...]  # only the top share, for each of THRESHOLDS
    removed: tuple[npt.NDArray[np.float64], ...]  # all but the top share


def look(classifier: Stages, example: Example, selection: Selection) -> Looks:
    """Decides one post in every view and at every threshold: about fifteen decisions."""
    tops = [views.top(selection, share) for share in THRESHOLDS]
    return Looks(
        by_view={name: views.decide(classifier, example, views.view(name, selection)) for name in VIEWS},
        kept=tuple(views.decide(classifier, example, chosen) for chosen in tops),
        removed=tuple(views.decide(classifier, example, views.without(selection, chosen)) for chosen in tops),
    )


def measures(looks: Sequence[Looks]) -> dict[str, object]:
    """Probability lost by the class that the full input gets, averaged over posts; no label is used.

    Comprehensiveness: lost without the rationale (high is good). Sufficiency: lost with the rationale alone (low is
    good). AOPC averages both over the shares of `THRESHOLDS`; `aopc` itself is that of comprehensiveness.
    """
    full = _stack(looks, FULL)
    lost_removed = [probability_drop(full, np.stack([one.removed[k] for one in looks])) for k in range(len(THRESHOLDS))]
    lost_kept = [probability_drop(full, np.stack([one.kept[k] for one in looks])) for k in range(len(THRESHOLDS))]
    return {
        "n": len(looks),
        "comprehensiveness": probability_drop(full, _stack(looks, REMOVED)),
        "sufficiency": probability_drop(full, _stack(looks, RATIONALE)),
        "aopc": float(np.mean(lost_removed)),
        "aopc_sufficiency": float(np.mean(lost_kept)),
        "thresholds": list(THRESHOLDS),
        "comprehensiveness_at": lost_removed,
        "sufficiency_at": lost_kept,
    }


def classifications(
    looks: Sequence[Looks], labels: Labels, classes: Sequence[str] = CLASSES
) -> dict[str, dict[str, object]]:
    """The scores of every view."""
    return {name: classification(labels, _stack(looks, name), classes) for name in VIEWS}


def macro_f1_drop(scores: Mapping[str, Mapping[str, object]]) -> float:
    """Macro-F1 of the full input minus Macro-F1 without the rationale."""
    full, removed = (scores[name]["macro_f1"] for name in (FULL, REMOVED))
    assert isinstance(full, float) and isinstance(removed, float)
    return full - removed


def _stack(looks: Sequence[Looks], name: str) -> Probs:
    return np.stack([one.by_view[name] for one in looks])
