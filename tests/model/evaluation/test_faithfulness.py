"""Patch scores against decisions whose answer is known: the best order wins, each way finds what counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model import RationaleClassifier
from model.data.labelled_posts import LabelledPost
from model.evaluation import attributions
from model.evaluation.attributions import Scores, Shown
from model.evaluation.faithfulness import Areas, NoImages, Settings, areas, measure, summarise
from model.transfer import Space
from tests.model.conftest import noise

WEIGHTS = np.array([0.1, 0.6, 0.0, 0.3])


def decide(shown: Sequence[Shown]) -> Scores:
    """A class whose probability is the sum of its patches' weights."""
    return np.array([WEIGHTS[list(one)].sum() for one in shown])


def test_areas_of_the_best_order_by_hand() -> None:
    """In: 0, .6, .9, 1, 1. Out: 1, .4, .1, 0, 0. Trapezoids of width 1/4."""
    made = areas(WEIGHTS, decide, n_steps=4)

    assert made.insertion == pytest.approx((0.3 + 0.75 + 0.95 + 1.0) / 4)
    assert made.deletion == pytest.approx((0.7 + 0.25 + 0.05 + 0.0) / 4)


def test_worst_order_is_the_mirror_image() -> None:
    """What the best order gives in is what the worst gives out."""
    best, worst = areas(WEIGHTS, decide, n_steps=4), areas(-WEIGHTS, decide, n_steps=4)

    assert worst.insertion == pytest.approx(1.0 - best.insertion)
    assert best.deletion == pytest.approx(1.0 - best.insertion)
    assert best.insertion > 0.5 > worst.insertion


def test_fewer_steps_take_the_same_number_of_patches() -> None:
    """Ten steps over four patches still begin with nothing and end with all."""
    shown: list[int] = []

    def noted(sets: Sequence[Shown]) -> Scores:
        shown.extend(map(len, sets))
        return decide(sets)

    areas(WEIGHTS, noted, n_steps=10)

    assert shown[:11] == [0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4]
    assert shown[11:] == [4 - n for n in shown[:11]]


def test_rise_finds_the_weights_order_and_repeats() -> None:
    """Each patch's mean over the masks that show it, about half its weight; the same seed gives the same scores."""
    scores = attributions.rise(decide, 4, n_masks=4_000, seed=0)

    assert np.argsort(-scores).tolist() == [1, 3, 0, 2]
    assert scores == pytest.approx((WEIGHTS - WEIGHTS.mean()) / 2 + scores.mean(), abs=0.02)
    assert np.array_equal(
        attributions.rise(decide, 4, n_masks=50, seed=3), attributions.rise(decide, 4, n_masks=50, seed=3)
    )


def test_integrated_gradients_of_a_linear_model_are_its_terms() -> None:
    """w * x, summed over each 2 x 2 patch of a 4 x 4 image, to the right patch."""
    generator = torch.Generator().manual_seed(0)
    weights, pixels = torch.randn(3, 4, 4, generator=generator), torch.randn(1, 3, 4, 4, generator=generator)

    scores = attributions.integrated_gradients(lambda x: (x * weights).flatten(1).sum(1), pixels, 2, 2, n_steps=8)

    terms = (weights * pixels[0]).sum(0)
    expected = [terms[r : r + 2, c : c + 2].sum().item() for r in (0, 2) for c in (0, 2)]
    assert scores == pytest.approx(expected, abs=1e-5)


def test_integrated_gradients_add_up_to_the_change() -> None:
    """Completeness: from grey to the image, for a model that is not linear."""
    pixels = torch.full((1, 3, 4, 4), 0.5)

    scores = attributions.integrated_gradients(lambda x: x.flatten(1).sum(1) ** 2, pixels, 2, 2, n_steps=64)

    assert scores.sum() == pytest.approx(24.0**2, rel=1e-3)


def test_cosine_and_norm_by_hand() -> None:
    """Two words, the second the rationale; three patches, the last without a pixel."""
    space = Space(
        words=torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]),
        rationale=(1,),
        patches=torch.tensor([[[3.0, 4.0], [0.0, 1.0], [0.0, 9.0]]]),
        patch_mask=torch.tensor([[True, True, False]]),
    )

    assert attributions.cosine(space).tolist() == pytest.approx([0.8, 1.0, -np.inf])
    assert attributions.activation_norm(space).tolist() == pytest.approx([5.0, 1.0, -np.inf])


def test_gain_over_rise_is_the_mean_of_both_gains() -> None:
    """Insertion 0.6 against 0.5 is +20%, deletion 0.36 against 0.4 is +10%: 15%."""
    found = {"transport": Areas(insertion=0.6, deletion=0.36), "rise": Areas(insertion=0.5, deletion=0.4)}

    made = summarise([found, found])

    assert made["n"] == 2
    assert made["insertion_gain_over_rise"] == pytest.approx(0.2)
    assert made["deletion_gain_over_rise"] == pytest.approx(0.1)
    assert made["gain_over_rise"] == pytest.approx(0.15)


def post(path: Path | None) -> LabelledPost:
    return LabelledPost(row_id="1", text="bridge down", image=path, label=-1, spans=None, pixels="")


def test_measured_on_a_classifier(tiny: RationaleClassifier, tmp_path: Path) -> None:
    """Every way is there, areas are probabilities, an unreadable image is left out, the same seed repeats."""
    Image.fromarray(noise(60, 80)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    posts = [post(tmp_path / "a.png"), post(tmp_path / "b.png"), post(None)]
    settings = Settings(n_images=5, n_steps=4, n_masks=8, n_gradient_steps=4)

    made = measure(tiny, posts, settings)

    assert made["n"] == 1
    assert set(made["methods"]) == {
        "transport", "cosine", "attention", "activation_norm", "integrated_gradients", "rise", "random"
    }  # fmt: skip
    assert all(0.0 <= area <= 1.0 for areas in made["methods"].values() for area in areas.values())
    assert measure(tiny, posts, settings) == made


def test_without_images_there_is_nothing_to_measure(tiny: RationaleClassifier) -> None:
    with pytest.raises(NoImages, match="--faithful"):
        measure(tiny, [post(None)], Settings())
