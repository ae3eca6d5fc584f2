"""What the tests of both batched classifiers share: where they run, and how like two predictions must be."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from model import Prediction

DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def assert_alike(ours: Sequence[Prediction], theirs: Sequence[Prediction], *, tolerance: float) -> None:
    """The same evidence, but for a score at the border of the budget; probabilities within the tolerance."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.fallbacks == other.fallbacks
        assert [(span.start, span.end) for span in one.spans] == [(span.start, span.end) for span in other.spans]
        assert (one.image is None) == (other.image is None)
        if one.image is not None and other.image is not None:
            assert (one.image.rows, one.image.cols) == (other.image.rows, other.image.cols)
            assert one.image.scores == pytest.approx(other.image.scores, abs=tolerance)
            assert len(one.image.selected) == len(one.image.boxes)
        assert one.probs == pytest.approx(other.probs, abs=tolerance)
