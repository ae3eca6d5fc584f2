"""A joint checkpoint can be taken apart like the shipped kind, through the same measures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs
from PIL import Image

from model import Example
from model.data.labelled_posts import LabelledPost
from model.evaluation.ablated import WAYS, Case, ways_of
from model.evaluation.faithfulness import Settings, measure
from model.evaluation.insides import insides_of
from model.joint.classifier import JointClassifier
from model.joint.insides import JointInsides
from tests.model.conftest import noise

POST = Example(text="Bridge collapsed near the old mill, families trapped after the storm", image=noise(90, 70))


def case(classifier: JointClassifier, example: Example = POST) -> Case:
    return Case(
        classifier=classifier,
        insides=insides_of(classifier),
        example=example,
        selection=classifier.select(example),
        dice=np.random.default_rng(0),
    )


def test_every_way_decides_with_and_without_an_image(trained: JointClassifier) -> None:
    """The transfer's own other methods are its ways; each gives five probabilities."""
    names = ways_of(insides_of(trained))
    assert set(WAYS) - set(names) == {"activation_norm_instead_of_ipot"}

    for example in (POST, structs.replace(POST, image=None), structs.replace(POST, text="")):
        one = case(trained, example)
        for name in names:
            probs = WAYS[name](one)
            assert probs.shape == (5,)
            assert probs.sum() == pytest.approx(1.0)


def test_mask_alone_reads_no_content(trained: JointClassifier) -> None:
    """Other pixels at the same places change nothing."""
    one = case(trained)
    other = replace(one, example=structs.replace(POST, image=noise(90, 70, seed=7)))

    assert np.array_equal(WAYS["mask_alone"](one), WAYS["mask_alone"](other))
    assert not np.array_equal(one.decide(one.selection), other.decide(one.selection))


def test_fading_shows_the_best_patch_as_it_is(trained: JointClassifier) -> None:
    """With one patch of full score and the rest at none, soft is hard."""
    one = case(trained)
    n = len(one.selection.patch_scores)
    single = replace(one.selection, patch_scores=(1.0,) + (0.0,) * (n - 1), patches=(0,))

    assert WAYS["soft_heatmap"](replace(one, selection=single)) == pytest.approx(one.decide(single))


def test_patch_scores_are_compared(trained: JointClassifier, tmp_path: Path) -> None:
    """Every way is measured on the image's own decision, gradients included, and repeats."""
    Image.fromarray(noise(60, 80)).save(tmp_path / "a.png")
    post = LabelledPost(row_id="1", text=POST.text, image=tmp_path / "a.png", label=-1, spans=None, pixels="")
    settings = Settings(n_images=1, n_steps=4, n_masks=8, n_gradient_steps=4)

    made = measure(trained, [post], settings)

    assert set(made["methods"]) == {"transport", "cosine", "attention", "integrated_gradients", "rise", "random"}
    assert made == measure(trained, [post], settings)


def test_gradients_are_not_nothing(trained: JointClassifier) -> None:
    """They reach the pixels through both of the decider's halves."""
    insides = insides_of(trained)
    assert isinstance(insides, JointInsides)

    scores = insides.gradient_scores(POST, trained.select(POST), 0, n_steps=4)

    assert len(scores) == len(trained.select(POST).patch_scores)
    assert np.abs(scores).max() > 0.0
