"""Many posts in a pass through a `dual` give what each gives alone, up to rounding; on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import torch
from tokenizers import Tokenizer

from model import Example, load_classifier
from model.joint import folder
from model.joint.batched import BatchedJointClassifier
from model.joint.build import make_network, with_vocabulary
from model.joint.classifier import JointClassifier
from model.joint.config import JointConfig, TransferConfig, WordLimits
from model.joint.vocabulary import tokenizer_from_texts
from model.records import TASKS
from model.tokens import WordTokenizer
from tests.model.batching import DEVICES, assert_alike
from tests.model.joint.conftest import encoder_config

_PRIOR = (0.1, 0.2, 0.3, 0.2, 0.2)


@pytest.fixture(scope="module")
def dual_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _dual(tmp_path_factory.mktemp("dual"), TransferConfig(beta=0.5, n_steps=20, top_share=0.3))


def _dual(path: Path, transfer: TransferConfig) -> Path:
    """A checkpoint with random weights."""
    tokenizer_json = tokenizer_from_texts(["flood in the city, people missing", "donate water and shelter"] * 5, 120)
    tokenizer = WordTokenizer(Tokenizer.from_str(tokenizer_json), max_tokens=40)
    config = JointConfig(
        name="dual",
        version="",
        tasks=dict(TASKS),
        languages=("en",),
        encoder=with_vocabulary(encoder_config("dual"), tokenizer.n_pieces),
        n_pieces=tokenizer.n_pieces,
        gru_width=16,
        words=WordLimits(max_word_share=0.35, min_words=2, stars="run"),
        transfer=transfer,
        temperature=1.3,
        prior=_PRIOR,
        alert_threshold=0.5,
        image_edge_px=640,
        recipe_digest="",
        data_digest="",
        weights_sha256="",
        tokenizer_sha256="",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = make_network(config)
    folder.save(path, network, config, tokenizer_json, int8=False)
    return path


def _batched(path: Path, device: str, **more: object) -> BatchedJointClassifier:
    options = {"device": device, "precision": "float32", "part_size": 5, "compiles": False} | more
    return BatchedJointClassifier(*folder.load(path), **options)  # type: ignore[arg-type]


def _mixed(posts: Sequence[Example]) -> list[Example]:
    return [*posts, *(msgspec.structs.replace(post, image=None) for post in posts)] * 2


@pytest.mark.parametrize("device", DEVICES)
def test_together_is_as_alone(dual_path: Path, posts: list[Example], device: str) -> None:
    alone, together = JointClassifier.load(dual_path), _batched(dual_path, device)
    mixed = _mixed(posts)
    # a grey level may be rounded apart, and noise is nothing but edges
    assert_alike(together.predict(mixed), alone.predict(mixed), tolerance=2e-2)
    assert_alike(together.predict(mixed), together.predict(together.encode(mixed)), tolerance=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_one_of_a_part_is_as_all_of_it(dual_path: Path, posts: list[Example], device: str) -> None:
    together = _batched(dual_path, device)
    whole = together.predict(_mixed(posts))
    assert_alike([together.predict([post])[0] for post in _mixed(posts)], whole, tolerance=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_bf16_probabilities_are_within_a_tenth_of_float32(dual_path: Path, posts: list[Example], device: str) -> None:
    exact, half = _batched(dual_path, device), _batched(dual_path, device, precision="bf16")
    for one, other in zip(exact.predict(posts), half.predict(posts), strict=True):
        assert one.probs == pytest.approx(other.probs, abs=0.1)


def test_nothing_at_all_gets_the_prior(dual_path: Path) -> None:
    (nothing,) = _batched(dual_path, "cpu").predict([Example(text="")])
    assert tuple(nothing.probs.values()) == pytest.approx(_PRIOR)


def test_a_soft_heatmap_is_not_served_in_batches(tmp_path: Path, dual_path: Path) -> None:
    soft = _dual(tmp_path / "soft", TransferConfig(heatmap="soft"))
    assert BatchedJointClassifier.serves(JointClassifier.load(dual_path).config)
    assert not BatchedJointClassifier.serves(JointClassifier.load(soft).config)
    assert type(load_classifier(soft)) is JointClassifier
