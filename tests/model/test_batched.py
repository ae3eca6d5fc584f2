"""Many posts in a pass give what each gives alone, up to rounding; the GPU's tests run where there is one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from model import Example, InvalidExample, ModelError, RationaleClassifier, checkpoint, load_classifier
from model.batched import BatchedRationaleClassifier, word_means
from model.classifier import FLAT_HEATMAP
from model.transfer import word_vectors
from tests.model.batching import DEVICES, assert_alike
from tests.model.conftest import COMPACT, noise


def _batched(path: Path, device: str, **more: object) -> BatchedRationaleClassifier:
    options = {"device": device, "exact": True, "part_size": 7} | more
    return BatchedRationaleClassifier(*checkpoint.load(path), **options)  # type: ignore[arg-type]


@pytest.fixture
def mixed(posts: list[Example]) -> list[Example]:
    """Posts of every kind, also such that stage 1 leaves the image alone, more than fit one part."""
    texts = [msgspec.structs.replace(post, image=None) for post in posts]
    spared = [msgspec.structs.replace(post, image_rationale=False) for post in posts]
    return [*posts, *texts, *spared] * 2


@pytest.mark.parametrize("device", DEVICES)
def test_together_is_as_alone(tiny_path: Path, mixed: list[Example], device: str) -> None:
    alone = RationaleClassifier.load(tiny_path, exact=True)
    together = _batched(tiny_path, device)
    assert_alike(together.predict(mixed), alone.predict(mixed), tolerance=2e-3)  # a grey level may be rounded apart
    assert_alike(together.predict(mixed), together.predict(together.encode(mixed)), tolerance=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_one_word_chooses_the_same_patches_as_alone(device: str) -> None:
    """What a flat map falls back to hangs on no rounding, nor on what shares the part."""
    texts = ["flood", "bridge collapsed near the old mill", "#flood", "", "地震で橋が落ちました", "😱"]
    examples = [Example(text=text, image=noise(150, 230)) for text in texts]
    alone = RationaleClassifier.load(COMPACT, exact=True).predict(examples)
    together = _batched(COMPACT, device).predict(examples)
    assert_alike(together, alone, tolerance=2e-3)
    assert [FLAT_HEATMAP in one.fallbacks for one in together] == [True, False, True, False, True, True]
    for one, other in zip(together, alone, strict=True):
        assert one.image is not None and other.image is not None
        assert one.image.selected == other.image.selected


@pytest.mark.parametrize("device", DEVICES)
def test_one_of_a_part_is_as_all_of_it(tiny_path: Path, mixed: list[Example], device: str) -> None:
    together = _batched(tiny_path, device)
    whole = together.predict(mixed)
    assert_alike([together.predict([post])[0] for post in mixed], whole, tolerance=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_bf16_probabilities_are_near_those_of_float32(tiny_path: Path, mixed: list[Example], device: str) -> None:
    exact, half = _batched(tiny_path, device), _batched(tiny_path, device, exact=False)
    for one, other in zip(exact.predict(mixed), half.predict(mixed), strict=True):
        assert one.probs == pytest.approx(other.probs, abs=0.05)


@pytest.mark.parametrize("device", DEVICES)
def test_triage_reads_texts_as_alone(tiny_path: Path, device: str) -> None:
    texts = ["bridge collapsed, people missing", "", "love music"] * 20
    expected = RationaleClassifier.load(tiny_path, exact=True).triage(texts)
    assert _batched(tiny_path, device).triage(texts) == pytest.approx(expected, abs=1e-4)


def test_no_posts_give_no_predictions(tiny_path: Path) -> None:
    assert _batched(tiny_path, "cpu").predict([]) == []


def test_an_image_of_another_kind_is_refused(tiny_path: Path) -> None:
    grey = Example(text="flood", image=noise(20, 20)[:, :, 0])
    with pytest.raises(InvalidExample, match="give RGB pixels"):
        _batched(tiny_path, "cpu").predict([grey])


def test_values_that_are_not_finite_are_refused(tiny_path: Path) -> None:
    together = _batched(tiny_path, "cpu")
    with torch.no_grad():
        together.network.text_decider.class_head.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        together.predict([Example(text="flood in the city")])


def test_word_means_equal_those_of_one_post(tiny: RationaleClassifier) -> None:
    words = tiny.tokenizer.split("#NepalFloods unbelievable water in the city")
    tokens = tiny.tokenizer.encode(words)
    embedded = tiny.network.embeddings(torch.tensor([tokens.input_ids]))
    stage = tiny.network.text_selector(embedded)
    means = word_means(stage.token_vectors, torch.tensor([tokens.words]), tokens.n_words)
    torch.testing.assert_close(means, word_vectors(tokens, stage))


def test_single_stages_work_as_alone(tiny_path: Path, posts: list[Example]) -> None:
    alone, together = RationaleClassifier.load(tiny_path, exact=True), _batched(tiny_path, "cpu")
    for post in posts:
        selection = alone.select(post)
        assert together.select(post).words == selection.words
        evidence = alone.mask(post, selection)
        assert together.decide(evidence) == pytest.approx(alone.decide(evidence), abs=1e-5)


def test_a_device_that_is_not_there_is_named(tiny_path: Path) -> None:
    with pytest.raises(ModelError, match=r"device 'gpu9' cannot be used .* give cpu"):
        load_classifier(tiny_path, device="gpu9")
