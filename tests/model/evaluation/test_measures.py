"""Scores on hand-computed numbers; see test_explanation.py for the others."""

import numpy as np
import pytest

from model.evaluation.measures import classification
from model.records import CLASSES


def test_every_class_has_its_f1_even_without_a_row() -> None:
    made = classification(np.array([0, 0, 1]), np.eye(5)[[0, 2, 1]])

    assert made["per_class_f1"] == pytest.approx(dict(zip(CLASSES, (2 / 3, 1, 0, 0, 0), strict=True)))
