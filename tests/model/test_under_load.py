"""What the classifier offers a worker under load: work done ahead, a cheap first look, and labels that cost less."""

from __future__ import annotations

import numpy as np
import pytest

from model import Example, InvalidExample, RationaleClassifier
from model.classifier import spread_patches
from tests.model.conftest import noise


def test_encoded_examples_predict_the_same_bytes(tiny: RationaleClassifier, posts: list[Example]) -> None:
    """What is done ahead in another thread changes nothing, whatever is missing from a post."""
    assert repr(tiny.predict(tiny.encode(posts))) == repr(tiny.predict(posts))
    spared = [Example(text=post.text, image=post.image, image_rationale=False) for post in posts]
    assert repr(tiny.predict(tiny.encode(spared))) == repr(tiny.predict(spared))


def test_encoding_refuses_what_predict_refuses(tiny: RationaleClassifier) -> None:
    with pytest.raises(InvalidExample, match="RGB"):
        tiny.encode([Example(text="flood", image=np.zeros((4, 4), np.uint8))])


def test_label_without_image_rationale_names_no_patches(tiny: RationaleClassifier) -> None:
    (prediction,) = tiny.predict([Example(text="bridge collapsed", image=noise(150, 230), image_rationale=False)])
    assert prediction.image is None
    assert prediction.spans
    assert prediction.fallbacks == ()


def test_label_without_image_rationale_skips_stage_1_on_the_image(tiny: RationaleClassifier) -> None:
    """And stage 2 sees as many patches as ever, spread evenly, and no other pixel."""
    post = Example(text="bridge collapsed", image=noise(150, 230), image_rationale=False)
    expected = tiny.predict([post])
    called: list[object] = []
    hook = tiny.network.image_selector.register_forward_pre_hook(lambda module, args: called.append(args))
    try:
        assert repr(tiny.predict([post])) == repr(expected)
        assert called == []
        tiny.predict([Example(text=post.text, image=post.image)])
        assert len(called) == 1
    finally:
        hook.remove()
    selection = tiny.select(post)
    assert selection.patch_scores == ()
    assert selection.patches == (2, 6, 10, 14)
    evidence = tiny.mask(post, selection)
    assert evidence.patch_mask is not None and evidence.patch_mask[0].nonzero()[:, 0].tolist() == [2, 6, 10, 14]


@pytest.mark.parametrize(
    ("n_cells", "n_patches", "expected"),
    [(9, 3, (1, 4, 7)), (4, 1, (2,)), (4, 9, (0, 1, 2, 3)), (64, 64, tuple(range(64)))],
)
def test_spread_covers_the_grid_evenly(n_cells: int, n_patches: int, expected: tuple[int, ...]) -> None:
    assert spread_patches(n_cells, n_patches) == expected


def test_image_alone_without_image_rationale_still_gets_a_label(tiny: RationaleClassifier) -> None:
    (prediction,) = tiny.predict([Example(text="", image=noise(90, 90), image_rationale=False)])
    assert prediction.image is None
    assert prediction.fallbacks == ("no_text",)


def test_triage_answers_in_order_and_rates_no_words_as_nothing(tiny: RationaleClassifier) -> None:
    texts = ["flood " * 60, "", "bridge collapsed", "https://t.co/x", "love music", "people missing after the fire"]
    probs = tiny.triage(texts)
    assert [prob == 0.0 for prob in probs] == [False, True, False, True, False, False]
    assert all(0.0 <= prob <= 1.0 for prob in probs)
    for text, prob in zip(texts, probs, strict=True):
        assert tiny.triage([text]) == pytest.approx([prob], abs=1e-5)
    assert tiny.triage([]) == []


def test_triage_of_the_shipped_checkpoint_tells_damage_and_casualties_from_the_rest(
    compact: RationaleClassifier,
) -> None:
    urgent = [
        "Bridge on the coast road collapsed, two lorries in the river",
        "Hospital roof torn off by the storm, power lines down",
        "At least 12 people killed and dozens injured in the landslide",
        "Family of five missing since the dam broke",
    ]
    others = [
        "Please donate blankets and drinking water at the town hall",
        "Our thoughts are with everyone tonight",
        "This new album is so good, on repeat all day",
        "The minister will speak about the storm at five",
    ]
    assert all(prob >= 0.5 for prob in compact.triage(urgent))
    assert all(prob < 0.5 for prob in compact.triage(others))
