"""The price of integer products: both kinds against float32, on one small checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.data.labelled_posts import LabelledPost
from model.evaluation import quickened, summary
from model.testing import tiny_checkpoint


def test_gaps_are_of_scores_labels_and_probabilities() -> None:
    labels = np.array([0, 1, 1, 1])
    exact = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]])
    quick = np.array([[0.8, 0.2], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])
    padded = [np.pad(probs, ((0, 0), (0, 3))) for probs in (exact, quick)]

    found = quickened.gaps(labels, *padded)

    assert found["accuracy"] == pytest.approx(0.25)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2 - 0.5)
    assert found["other_labels"] == 0.25
    assert found["probability"] == pytest.approx((0.1 + 0.2) / 4)


def test_both_kinds_come_into_the_summary(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    texts = ("bridge down", "help needed", "sunny day")
    posts = [
        LabelledPost(row_id=text, text=text, image=None, label=label, spans=None, pixels="")
        for label, text in enumerate(texts)
    ]

    quickened.measure(tiny_checkpoint(tmp_path / "tiny"), posts, tmp_path / "summary.json", "posts.tsv")

    figures = summary.read(tmp_path / "summary.json")
    measures = ("macro_f1", "accuracy", "other_labels", "probability")
    assert set(figures) == {f"compact.float32_gap.{name}.{kind}" for name in measures for kind in quickened.KINDS}
    assert all(figure["rows"] == 3 for figure in figures.values())
