"""Measures of explanations on a toy classifier whose every decision can be worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from model.classifier import Selection
from model.evaluation import explanation, views
from model.evaluation.measures import classification, f1, iou_matches, reliability, token_f1
from model.records import CLASSES, Example

DAMAGE = CLASSES.index("infrastructure_and_utility_damage")
NOTHING = CLASSES.index("not_humanitarian")


@dataclass
class Toy:
    """Damage is as probable as the shown words' weights say, plus 0.1 a patch; the rest is "not humanitarian"."""

    weights: tuple[float, ...] = (0.4, 0.2, 0.0, 0.1)
    classes: tuple[str, ...] = CLASSES
    tokenizer: Any = None
    asked: list[Selection] = field(default_factory=list)

    def select(self, example: Example) -> Selection:
        raise NotImplementedError

    def image_rationale(self, example: Example, selection: Selection) -> None:
        raise NotImplementedError

    def mask(self, example: Example, selection: Selection) -> Selection:
        self.asked.append(selection)
        return selection

    def decide(self, evidence: Selection) -> npt.NDArray[np.float64]:
        probs = np.zeros(len(CLASSES))
        probs[DAMAGE] = sum(self.weights[word] for word in evidence.words) + 0.1 * len(evidence.patches)
        probs[NOTHING] = 1.0 - probs[DAMAGE]
        return probs


CHOSEN = Selection(
    word_scores=(0.9, 0.8, 0.1, 0.3), words=(0, 1), patch_scores=(0.2, 0.7), patches=(1,), fallbacks=()
)  # fmt: skip
POST = Example(text="bridge down so sad")


def test_views_are_the_rationale_its_opposite_and_its_halves() -> None:
    """Four words, two patches; the first two words and the second patch are the rationale."""
    shown = {name: views.view(name, CHOSEN) for name in views.VIEWS}

    assert {name: (one.words, one.patches) for name, one in shown.items()} == {
        "rationale_only": ((0, 1), (1,)),
        "full": ((0, 1, 2, 3), (0, 1)),
        "rationale_removed": ((2, 3), (0,)),
        "text_rationale_only": ((0, 1), ()),
        "image_rationale_only": ((), (1,)),
    }


def test_post_without_readable_words_has_none_in_any_view() -> None:
    """Links and user names are never shown as if they were evidence."""
    links = Selection(word_scores=(0.0, 0.0), words=(), patch_scores=(0.1,), patches=(0,), fallbacks=("no_text",))

    assert views.whole(links).words == views.top(links, 1.0).words == ()


@pytest.mark.parametrize(
    ("share", "words", "patches"), [(0.01, (0,), (1,)), (0.5, (0, 1), (1,)), (0.51, (0, 1, 3), (0, 1))]
)
def test_top_share_is_rounded_up(share: float, words: tuple[int, ...], patches: tuple[int, ...]) -> None:
    """At least one word and one patch, the best scored, in order."""
    chosen = views.top(CHOSEN, share)

    assert (chosen.words, chosen.patches) == (words, patches)


def test_eraser_measures_on_hand_computed_numbers() -> None:
    """Full 0.9; rationale 0.7; without it 0.2: comprehensiveness 0.7, sufficiency 0.2."""
    looks = [explanation.look(Toy(), POST, CHOSEN)]

    made = explanation.measures(looks)

    assert made["comprehensiveness"] == pytest.approx(0.9 - 0.2)
    assert made["sufficiency"] == pytest.approx(0.9 - 0.7)
    # top 1 to 20%: the first word and the second patch, 0.5; top 50%: the rationale
    assert made["comprehensiveness_at"] == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.7])
    assert made["sufficiency_at"] == pytest.approx([0.4, 0.4, 0.4, 0.4, 0.2])
    assert made["aopc"] == pytest.approx((4 * 0.5 + 0.7) / 5)
    assert made["aopc_sufficiency"] == pytest.approx((4 * 0.4 + 0.2) / 5)


def test_measures_follow_the_class_of_the_full_input() -> None:
    """Without weights the full input says "not humanitarian", and what that class loses is measured."""
    made = explanation.measures([explanation.look(Toy(weights=(0.0,) * 4), POST, CHOSEN)])

    assert made["comprehensiveness"] == pytest.approx(0.8 - 0.9)


def test_macro_f1_drop_is_full_minus_removed() -> None:
    """Two posts: both right in full (1.0); without the rationale both are "not humanitarian": F1 2/3 and 0."""
    nothing = Selection(word_scores=(0.1,) * 4, words=(2,), patch_scores=(), patches=(), fallbacks=())
    looks = [explanation.look(Toy(), POST, CHOSEN), explanation.look(Toy(weights=(0.0,) * 4), POST, nothing)]

    scores = explanation.classifications(looks, np.array([DAMAGE, NOTHING]))

    assert scores["full"]["macro_f1"] == 1.0
    assert scores["rationale_removed"]["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert explanation.macro_f1_drop(scores) == pytest.approx(1 - 1 / 3)


def test_classification_on_hand_computed_numbers() -> None:
    """Labels a a b c; predictions a b b b: F1 2/3, 1/2, 0."""
    probs = np.eye(5)[[0, 1, 1, 1]] * 0.8 + 0.04

    made = classification(np.array([0, 0, 1, 2]), probs)

    assert made["accuracy"] == 0.5
    assert made["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert made["weighted_f1"] == pytest.approx((2 * 2 / 3 + 1 / 2 + 0) / 4)
    per_class = made["per_class"]
    assert isinstance(per_class, dict)
    assert per_class[CLASSES[0]] == pytest.approx({"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "n": 2})
    assert per_class[CLASSES[4]] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "n": 0}
    assert made["ece"] == pytest.approx(0.84 - 0.5)


def test_macro_average_counts_a_class_that_is_only_predicted() -> None:
    """As scikit-learn has it: a wrong class costs, even where no row has it."""
    made = classification(np.array([0, 0]), np.eye(5)[[0, 3]])

    assert made["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_reliability_bins() -> None:
    """Two confident posts, one of them right, and an unsure one that is right."""
    probs = np.array([[0.95, 0.05, 0, 0, 0], [0.93, 0.07, 0, 0, 0], [0.45, 0.55, 0, 0, 0]])

    bins = reliability(np.array([0, 1, 1]), probs)

    assert [(round(b.confidence, 2), b.accuracy, round(b.share, 2)) for b in bins] == [
        (0.55, 1.0, 0.33),
        (0.94, 0.5, 0.67),
    ]


@pytest.mark.parametrize(
    ("selected", "precision", "recall"),
    [
        ("110010", 1 / 2, 1.0),  # the first run is the people's, the second is beside it
        ("100000", 1.0, 1.0),  # half of the marked run: just enough
        ("111110", 0.0, 0.0),  # 2 of 5 words
        ("000000", 0.0, 0.0),
        ("110000", 1.0, 1.0),
    ],
)
def test_iou_matches_runs_of_words(selected: str, precision: float, recall: float) -> None:
    """People marked the first two of six words."""
    marked = [True, True, False, False, False, False]

    assert iou_matches(marked, [on == "1" for on in selected]) == (precision, recall)


def test_f1_of_both() -> None:
    """The harmonic mean, and 0 without either; of words, the shared twice over all."""
    assert f1(0.5, 1.0) == pytest.approx(2 / 3)
    assert f1(0.0, 0.0) == 0.0
    assert token_f1([True, True, False], [True, False, False]) == pytest.approx(2 / 3)
