"""The public promise: same post, same bytes; stage 2 sees only what was selected; every post gets an answer."""

import copy
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model import CLASSES, Example, InvalidExample, ModelError, RationaleClassifier
from model.classifier import FLAT_HEATMAP, ChosenWords, choose_patches, top_patches
from model.errors import CheckpointError
from model.patches import edges
from model.records import TASKS
from model.testing import tiny_checkpoint
from tests.model.conftest import noise


def test_same_posts_twice_give_the_same_bytes(tiny: RationaleClassifier, posts: list[Example]) -> None:
    assert repr(tiny.predict(posts)) == repr(tiny.predict(posts))


def test_a_post_alone_equals_the_post_among_thirty_two(tiny: RationaleClassifier, posts: list[Example]) -> None:
    together = tiny.predict(posts * 4)
    for index, post in enumerate(posts):
        assert repr(tiny.predict([post])[0]) == repr(together[index]) == repr(together[index + 3 * len(posts)])


def test_probabilities_cover_all_classes_and_sum_to_one(tiny: RationaleClassifier, posts: list[Example]) -> None:
    for prediction in tiny.predict(posts):
        assert tuple(prediction.probs) == CLASSES
        assert math.isclose(sum(prediction.probs.values()), 1.0, abs_tol=1e-9)
        assert prediction.label == max(prediction.probs, key=prediction.probs.__getitem__)


def test_spans_are_whole_words_in_order_within_budget(tiny: RationaleClassifier, posts: list[Example]) -> None:
    for post, prediction in zip(posts, tiny.predict(posts), strict=True):
        words = [(word.start, word.end) for word in tiny.tokenizer.split(post.text)]
        starts, ends = {start for start, _ in words}, {end for _, end in words}
        last = -1
        for span in prediction.spans:
            assert span.start in starts and span.end in ends and span.start > last
            assert 0.0 <= span.score <= 1.0
            last = span.end
        n_selected = sum(len(post.text[span.start : span.end].split()) for span in prediction.spans)
        assert n_selected <= max(1, 0.35 * len(words))


def test_fallbacks_say_what_was_missing(tiny: RationaleClassifier, posts: list[Example]) -> None:
    fallbacks = [prediction.fallbacks for prediction in tiny.predict(posts)]
    assert "text_truncated" in fallbacks[4]
    assert "no_text" in fallbacks[5] and "no_text" in fallbacks[6]
    assert fallbacks[7].count("no_image") == 1
    (nothing,) = tiny.predict([Example(text="https://t.co/x")])
    assert set(nothing.fallbacks) == {"no_text", "no_image", "no_evidence"}
    assert nothing.spans == () and nothing.image is None


def test_stage_2_ignores_everything_that_was_not_selected(tiny: RationaleClassifier) -> None:
    post = Example(
        text="Bridge collapsed near the city after heavy flood , people need help now", image=noise(150, 230)
    )
    selection = tiny.select(post)
    assert selection.words and selection.patches
    words = tiny.tokenizer.split(post.text)
    altered = " ".join(
        post.text[word.start : word.end] if index in selection.words else f"music{index}x"
        for index, word in enumerate(words)
    )
    assert post.image is not None
    image = noise(150, 230, seed=9)
    ys, xs = edges(150, 4), edges(230, 4)
    for patch in selection.patches:
        row, col = divmod(patch, 4)
        window = np.s_[ys[row] : ys[row + 1], xs[col] : xs[col + 1]]
        image[window] = post.image[window]
    before = tiny.decide(tiny.mask(post, selection))
    after = tiny.decide(tiny.mask(Example(text=altered, image=image), selection))
    assert before.tobytes() == after.tobytes()
    changed = image.copy()
    row, col = divmod(selection.patches[0], 4)
    changed[ys[row] : ys[row + 1], xs[col] : xs[col + 1]] ^= 255
    assert tiny.decide(tiny.mask(Example(text=altered, image=changed), selection)).tobytes() != after.tobytes()


def test_boxes_are_the_selected_patches_in_fractions_of_the_image(tiny: RationaleClassifier) -> None:
    (prediction,) = tiny.predict([Example(text="flood", image=noise(101, 203))])
    assert prediction.image is not None
    assert len(prediction.image.scores) == prediction.image.rows * prediction.image.cols
    for patch, (x0, y0, x1, y1) in zip(prediction.image.selected, prediction.image.boxes, strict=True):
        row, col = divmod(patch, 4)
        assert round(x0 * 203) == col * 203 // 4 and round(x1 * 203) == (col + 1) * 203 // 4
        assert round(y0 * 101) == row * 101 // 4 and round(y1 * 101) == (row + 1) * 101 // 4


def test_ties_go_to_the_lower_patch_and_zero_is_never_selected() -> None:
    assert top_patches([0.5, 0.9, 0.5, 0.0], 2) == (0, 1)
    assert top_patches([0.0, 0.0, 0.1], 2) == (2,)


@pytest.mark.parametrize("text", ["flood", "#flood", "地震で橋が落ちました", "😱"])
def test_one_word_chooses_patches_as_an_image_without_text_does(text: str, compact: RationaleClassifier) -> None:
    """Transport over one word gives every patch the same mass: which are best would be rounding."""
    post, alone = Example(text=text, image=noise(150, 230)), Example(text="", image=noise(150, 230))
    found, wordless = compact.select(post), compact.select(alone)

    assert found.words == (0,)
    assert found.fallbacks == (FLAT_HEATMAP,)
    assert (found.patch_scores, found.patches) == (wordless.patch_scores, wordless.patches)
    assert max(found.patch_scores) > 2 * min(found.patch_scores)
    assert torch.equal(compact.space(post, found).words, compact.space(alone, wordless).words)


def test_more_words_tell_patches_apart(compact: RationaleClassifier) -> None:
    """Also where all of them are rationale."""
    for text in ("flood flood", "flood https://t.co/x", "Bridge collapsed near the mill"):
        assert compact.select(Example(text=text, image=noise(150, 230))).fallbacks == ()


def test_flat_scores_spread_the_patches_and_say_so() -> None:
    chosen = ChosenWords(word_scores=(0.9,), words=(0,), fallbacks=())
    nearly = tuple(0.2 + 1e-7 * (k % 3) for k in range(16))
    assert choose_patches(chosen, nearly, 4, flat=True).patches == (2, 6, 10, 14)
    assert choose_patches(chosen, nearly, 4, flat=True).fallbacks == (FLAT_HEATMAP,)
    assert choose_patches(chosen, (0.0, 0.2, 0.2, 0.2, 0.0), 2, flat=False).patches == (1, 3)  # no pixel, no patch


def test_equal_scores_of_patches_that_are_all_shown_are_no_fallback() -> None:
    chosen = ChosenWords(word_scores=(0.9,), words=(0,), fallbacks=())
    assert choose_patches(chosen, (1.0, 0.0, 1.0, 0.0), 2, flat=False) == chosen.with_patches(
        (1.0, 0.0, 1.0, 0.0), (0, 2)
    )


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_an_image_that_is_not_rgb_bytes_is_refused(tiny: RationaleClassifier, image: np.ndarray) -> None:
    with pytest.raises(InvalidExample, match="RGB"):
        tiny.predict([Example(text="flood", image=image)])


def test_a_network_gone_wrong_raises_instead_of_answering_nan(tiny_path, posts) -> None:
    broken = RationaleClassifier.load(tiny_path)
    broken.network.text_decider.class_head.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="finite"):
        broken.predict(posts[:1])


def test_examples_are_values() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        Example(text="x").text = "y"  # type: ignore[misc]


def test_further_tasks_are_decided_from_the_same_evidence(tmp_path: Path, posts: list[Example]) -> None:
    classifier = RationaleClassifier.load(tiny_checkpoint(tmp_path / "tiny", further=("informative", "damage")))
    assert list(classifier.config.tasks) == ["humanitarian", "informative", "damage"]
    for post, answers in zip(posts, classifier.predict_tasks(posts), strict=True):
        assert {task: tuple(probs) for task, probs in answers.items()} == TASKS
        assert all(math.isclose(sum(probs.values()), 1.0, abs_tol=1e-9) for probs in answers.values())
        assert answers["humanitarian"] == classifier.predict([post])[0].probs
    (nothing,) = classifier.predict_tasks([Example(text="https://t.co/x")])
    assert nothing["informative"] == {"informative": 0.5, "not_informative": 0.5}  # the prior


def test_a_checkpoint_with_another_tasks_classes_is_refused(tmp_path: Path) -> None:
    path = tiny_checkpoint(tmp_path / "tiny", further=("informative",))
    config = json.loads((path / "config.json").read_text())
    config["further"]["damage"] = config["further"].pop("informative")
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="classes of damage"):
        RationaleClassifier.load(path)


def test_quick_convolutions_stay_near_the_exact_ones(tmp_path: Path) -> None:
    """Bounds bf16 in stage 1's image encoder: nearly parallel patch vectors, float32 out."""
    path = tiny_checkpoint(tmp_path / "tiny")
    encoder = RationaleClassifier.load(path, exact=True).network.image_selector.encoder
    pixel_values = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact, quick = encoder(pixel_values), copy.deepcopy(encoder).to(torch.bfloat16)(pixel_values)
    assert quick.dtype == torch.float32
    assert torch.cosine_similarity(exact.flatten(1), quick.flatten(1)).item() > 0.995


def test_images_decided_together_are_as_alone(tiny: RationaleClassifier) -> None:
    """Sets of different sizes share a pass; where no patch is shown there is only the prior."""
    example = Example(text="", image=noise(60, 80))
    selection = tiny.select(example)
    sets = [(), (0,), (1, 2, 5), tuple(range(len(selection.patch_scores)))]
    evidence = [tiny.mask(example, replace(selection, patches=one)) for one in sets]

    together = tiny.decide_images(evidence)

    assert np.allclose(together, [tiny.decide(one) for one in evidence], atol=1e-5)
    assert together[0].tolist() == pytest.approx(tiny.config.prior)
    assert not np.allclose(together[1], together[3], atol=1e-5)
