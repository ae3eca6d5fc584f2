"""A joint checkpoint keeps the promises of the shipped kind, behind the same face."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import load_file, save_file

from model import CLASSES, CheckpointError, Example, ModelError, RationaleClassifier, load_classifier
from model.classifier import FLAT_HEATMAP, Selection
from model.joint.classifier import JointClassifier
from model.joint.config import TransferConfig, WordLimits
from model.joint.evidence import Kit, read, select, shown
from model.joint.pixels import fade_others, grid_of, to_pixel_values
from model.patches import BLANK, edges
from tests.model.conftest import noise
from tests.model.joint.conftest import encoder_config, sitrep
from tests.model.test_text import TEXTS
from workers.run import load_classifier as load_for_worker
from workers.setting_sources import load_settings

POST = "Bridge collapsed near the old mill today, families trapped in rubble after the storm"


def _kit(classifier: JointClassifier, **transfer: object) -> Kit:
    changed = {"beta": 0.1, "n_steps": 20} | transfer
    return dataclasses.replace(classifier.kit, transfer=TransferConfig(**changed))  # type: ignore[arg-type]


def test_same_posts_twice_and_among_others_give_the_same_bytes(trained: JointClassifier, posts: list[Example]) -> None:
    first, together = trained.predict(posts), trained.predict(posts * 4)
    assert repr(first) == repr(trained.predict(posts))
    for index, post in enumerate(posts):
        assert repr(first[index]) == repr(trained.predict([post])[0]) == repr(together[index + 3 * len(posts)])


def test_stages_agree_between_one_post_and_thirty_two(trained: JointClassifier, posts: list[Example]) -> None:
    kit, network = trained.kit, trained.network
    readings = [read(post, kit) for post in posts * 4]
    together = select(network.selector, readings, kit)
    items = [shown(post, choice, kit) for post, choice in zip(posts * 4, together, strict=True)]
    left = [item for item in items if item is not None]
    with torch.inference_mode():
        logits = network.decider(kit.batch(left))["humanitarian"]
    for k in range(len(posts)):
        alone = select(network.selector, [readings[k]], kit)[0]
        assert (alone.words, alone.patches, alone.fallbacks) == (
            together[k].words,
            together[k].patches,
            together[k].fallbacks,
        )
        np.testing.assert_allclose(alone.word_scores, together[k].word_scores, atol=1e-5)
        np.testing.assert_allclose(alone.patch_scores, together[k].patch_scores, atol=1e-4)
    for row, item in enumerate(left[:8]):
        with torch.inference_mode():
            single = network.decider(kit.batch([item]))["humanitarian"]
        torch.testing.assert_close(single[0], logits[row], atol=1e-4, rtol=1e-4)


def test_bf16_probabilities_are_within_a_tenth_of_float32(trained_path: Path, trained: JointClassifier, posts) -> None:
    half = JointClassifier.load(trained_path, precision="bf16")
    for post in posts:
        exact = trained.decide(trained.mask(post, trained.select(post)))
        # the same evidence, so that the bound is the arithmetic's and not a borderline word's
        found = half.decide(half.mask(post, trained.select(post)))
        assert np.abs(exact - found).max() <= 0.1


def test_probabilities_cover_all_classes_and_sum_to_one(trained: JointClassifier, posts: list[Example]) -> None:
    for prediction in trained.predict(posts):
        assert tuple(prediction.probs) == CLASSES
        assert math.isclose(sum(prediction.probs.values()), 1.0, abs_tol=1e-9)
        assert prediction.label == max(prediction.probs, key=prediction.probs.__getitem__)


@settings(deadline=None, max_examples=30)
@given(TEXTS)
def test_spans_are_whole_words_of_the_original_text(trained: JointClassifier, text: str) -> None:
    (prediction,) = trained.predict([Example(text=text)])
    last = -1
    for span in prediction.spans:
        piece = text[span.start : span.end]
        assert piece == piece.strip() and piece and span.start > last
        assert span.start == 0 or text[span.start - 1].isspace()
        assert span.end == len(text) or text[span.end].isspace()
        assert 0.0 <= span.score <= 1.0
        last = span.end


@settings(deadline=None, max_examples=50)
@given(TEXTS)
def test_selected_words_read_back_as_their_own_spans(trained: JointClassifier, text: str) -> None:
    """What stage 2 reads for a selection is the pieces of just those words, hashtags split, and stars."""
    words = trained.tokenizer.split(text)
    chosen = [index for index, word in enumerate(words) if word.selectable][::2]
    tokens = trained.tokenizer.encode_selected(words, chosen, join_hidden=False)
    whole = trained.tokenizer.encode(words)
    if not tokens.truncated and not whole.truncated:
        for index in range(len(words)):
            own = [piece for piece, owner in zip(tokens.input_ids, tokens.words, strict=True) if owner == index]
            full = [piece for piece, owner in zip(whole.input_ids, whole.words, strict=True) if owner == index]
            assert own == (full if index in chosen else [trained.tokenizer.hidden_id])
    assert [text[word.start : word.end] for word in words] == text.split()


def test_fallbacks_say_what_was_missing(trained: JointClassifier, posts: list[Example]) -> None:
    fallbacks = [prediction.fallbacks for prediction in trained.predict(posts)]
    assert "text_truncated" in fallbacks[4]
    assert "no_text" in fallbacks[5] and "no_text" in fallbacks[6]
    assert fallbacks[7].count("no_image") == 1
    (nothing,) = trained.predict([Example(text="")])
    assert set(nothing.fallbacks) == {"no_text", "no_image", "no_evidence"}
    assert tuple(nothing.probs.values()) == pytest.approx(trained.config.prior)


def test_an_image_alone_is_scored_by_what_its_likeliest_class_means(trained: JointClassifier) -> None:
    (prediction,) = trained.predict([Example(text="", image=noise(60, 90))])
    assert prediction.image is not None and "no_text" in prediction.fallbacks
    assert len(prediction.image.selected) == 4 and len(set(prediction.image.scores)) > 1


def test_stage_2_ignores_everything_that_was_not_selected(trained: JointClassifier) -> None:
    post = Example(text=POST, image=noise(150, 230))
    selection = trained.select(post)
    assert selection.words and selection.patches
    words = trained.tokenizer.split(post.text)
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
    before = trained.decide(trained.mask(post, selection))
    after = trained.decide(trained.mask(Example(text=altered, image=image), selection))
    assert before.tobytes() == after.tobytes()
    row, col = divmod(selection.patches[0], 4)
    image[ys[row] : ys[row + 1], xs[col] : xs[col + 1]] ^= 255
    assert trained.decide(trained.mask(Example(text=altered, image=image), selection)).tobytes() != after.tobytes()


@pytest.mark.parametrize("method", ["ipot", "cosine", "attention", "random"])
@pytest.mark.parametrize("heatmap", ["hard", "soft"])
def test_every_way_of_transfer_shows_some_of_the_image_the_same_each_time(
    trained: JointClassifier, method: str, heatmap: str
) -> None:
    kit = _kit(trained, method=method, heatmap=heatmap)
    reading = read(Example(text=POST, image=noise(90, 70)), kit)
    (one,), (two,) = (select(trained.network.selector, [reading], kit) for _ in range(2))
    assert one == two
    assert 0 < len(one.patches) <= 16 and len(one.patch_scores) == 16
    if heatmap == "hard" and FLAT_HEATMAP not in one.fallbacks:
        assert len(one.patches) == 4


def test_without_transfer_the_whole_image_is_shown_and_none_is_a_fallback(trained: JointClassifier) -> None:
    kit = _kit(trained, method="off")
    (choice,) = select(trained.network.selector, [read(Example(text=POST, image=noise(90, 70)), kit)], kit)
    assert choice.patches == tuple(range(16)) and FLAT_HEATMAP not in choice.fallbacks


def test_a_soft_heatmap_fades_its_own_choice_and_shows_others_in_full(trained: JointClassifier) -> None:
    kit = _kit(trained, heatmap="soft")
    image = np.full((64, 64, 3), 227, dtype=np.uint8)
    scores = (1.0, 0.5, *[0.0] * 14)
    own = Selection(word_scores=(), words=(), patch_scores=scores, patches=(0, 1), fallbacks=())
    faded = shown(Example(text="", image=image), own, kit)
    whole = shown(Example(text="", image=image), dataclasses.replace(own, patches=tuple(range(16))), kit)
    assert faded is not None and faded.pixel_values is not None and whole is not None and whole.pixel_values is not None
    half = fade_others(image, (4, 4), scores)
    assert [int(half[8, 8 + 16 * k, 0]) for k in range(3)] == [227, BLANK + 50, BLANK]
    torch.testing.assert_close(faded.pixel_values, to_pixel_values(half, (4, 4), kit.encoder))
    torch.testing.assert_close(whole.pixel_values, to_pixel_values(image, (4, 4), kit.encoder))


def test_the_aspect_is_kept_where_the_recipe_says_so() -> None:
    config = encoder_config("vilt", size_px=384, max_edge_px=640, fit="aspect")
    assert grid_of(384, 384, config) == (12, 12)
    assert grid_of(216, 384, config) == (11, 20)  # 640 px are the most, so the short edge gives way
    assert grid_of(1, 5000, config) == (1, 20)
    assert grid_of(100, 900, encoder_config("dual")) == (4, 4)


def test_stars_stand_for_words_or_for_runs_of_them(trained: JointClassifier) -> None:
    words = trained.tokenizer.split("the old bridge collapsed near the mill")
    each = trained.tokenizer.encode_selected(words, [2, 3], join_hidden=False).input_ids
    runs = trained.tokenizer.encode_selected(words, [2, 3]).input_ids
    star = trained.tokenizer.hidden_id
    assert each.count(star) == 5 and runs.count(star) == 2
    assert WordLimits().stars == "each"


def test_boxes_are_the_selected_patches_in_fractions_of_the_image(trained: JointClassifier) -> None:
    (prediction,) = trained.predict([Example(text=POST, image=noise(101, 203))])
    assert prediction.image is not None and prediction.image.selected
    for patch, (x0, y0, x1, y1) in zip(prediction.image.selected, prediction.image.boxes, strict=True):
        row, col = divmod(patch, 4)
        assert round(x0 * 203) == col * 203 // 4 and round(x1 * 203) == (col + 1) * 203 // 4
        assert round(y0 * 101) == row * 101 // 4 and round(y1 * 101) == (row + 1) * 101 // 4


def test_worker_and_command_line_take_the_checkpoint(trained_path: Path, trained: JointClassifier, capsys) -> None:
    worker_has = load_for_worker(load_settings({"checkpoint": str(trained_path)}, environ={}))
    assert worker_has.version == trained.version
    assert sitrep("explain", POST, "--json", "--set", f"checkpoint={trained_path}") == 0
    finding = json.loads(capsys.readouterr().out)
    assert finding["model"]["version"] == trained.version


def test_each_kind_of_folder_is_loaded_as_what_it_is(tiny_path: Path, trained_path: Path) -> None:
    assert isinstance(load_classifier(tiny_path), RationaleClassifier)
    assert isinstance(load_classifier(trained_path), JointClassifier)
    with pytest.raises(CheckpointError, match="load_classifier"):
        RationaleClassifier.load(trained_path)


@pytest.fixture
def copy(trained_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained_path, tmp_path / "copy"))


def _sign(path: Path) -> None:
    """Makes config.json agree with the altered weights, so that the next check is the one that fails."""
    config = json.loads((path / "config.json").read_text())
    config["weights_sha256"] = hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
    (path / "config.json").write_text(json.dumps(config))


def test_a_damaged_folder_is_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    tensors = load_file(weights)
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="sha256"):
        load_classifier(copy)
    save_file({("surprise" if key == "selector.token_head.bias" else key): tensors[key] for key in tensors}, weights)
    _sign(copy)
    with pytest.raises(CheckpointError, match=r"token_head\.bias.*surprise"):
        load_classifier(copy)
    weights.write_bytes(pickle.dumps({"weights": [1.0]}))
    _sign(copy)
    with pytest.raises(CheckpointError, match="pickle"):
        load_classifier(copy)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_classifier(copy)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mood": 1}, "mood"),
        ({"kind": "seance"}, "seance"),
        ({"tasks": {"humanitarian": ["a", "b"]}}, "humanitarian"),
        ({"temperature": "warm"}, "temperature"),
        ({"temperatures": {"damage": 0.0}}, "temperature = 0.0"),
        ({"transfer": {"beta": 0.01}}, r"beta 0\.01 must be at least 0\.05"),
        ({"n_pieces": 7}, "pieces"),
        ({"prior": [1.0]}, "prior"),
    ],
)
def test_a_config_that_says_something_else_is_refused(copy: Path, change: dict[str, object], named: str) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=named):
        load_classifier(copy)


@pytest.mark.parametrize(
    ("where", "value", "told"),
    [
        ("prior", [-1.0, 2.0, 0.0, 0.0, 0.0], "prior"),
        ("prior", [float("nan")] * 5, "prior"),
        ("alert_threshold", 7.0, "alert_threshold = 7.0"),
        ("alert_threshold", 0.0, "alert_threshold = 0.0"),
        ("temperature", float("inf"), "temperature = inf"),
        ("image_edge_px", 0, "image_edge_px = 0"),
        ("gru_width", 0, "gru_width = 0"),
        ("words.max_word_share", -1, "max_word_share -1"),
        ("words.word_threshold", 2.0, r"word_threshold 2\.0"),
        ("words.min_words", -1, "min_words -1"),
        ("transfer.top_share", 0.0, "top_share"),
        ("encoder.std", [0.0, 0.0, 0.0], "std"),
        ("encoder.mean", [float("inf"), 0.5, 0.5], "mean"),
        ("encoder.patch_px", 0, "patch_px 0"),
        ("encoder.max_edge_px", 0, "max_edge_px 0"),
        ("encoder.max_tokens", 2, "max_tokens 2"),
        ("encoder.max_tokens", 500, "makes no working network"),
        ("encoder.shape.width", "x", "makes no working network"),
        ("encoder.shape.n_heads", 7, "makes no working network"),
        ("encoder.shape.n_heads", 0, "makes no working network"),
        ("encoder.shape.vision", None, "makes no working network"),
        ("encoder.shape.vision.patch_size", 32, "32 px patches"),
        ("encoder.shape.text.hidden_size", 50, "makes no working network"),
        ("encoder.shape.text.model_type", "seance", "makes no working network.*seance"),
        ("encoder.shape.text.intermediate_size", 8, r"config\.json implies"),
    ],
)
def test_config_value_that_would_spoil_a_finding_is_refused(copy: Path, where: str, value: Any, told: str) -> None:
    config = json.loads((copy / "config.json").read_text())
    *sections, last = where.split(".")
    section = config
    for name in sections:
        section = section[name]
    section[last] = value
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=told) as refused:
        load_classifier(copy)
    assert "\n" not in str(refused.value)


def test_a_config_from_before_other_tasks_had_temperatures_is_read(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    assert config.pop("temperatures") == {}
    (copy / "config.json").write_text(json.dumps(config))
    assert JointClassifier.load(copy).config.temperature_of("damage") == 1.0


def test_a_network_gone_wrong_raises_instead_of_answering_nan(trained_path: Path) -> None:
    broken = JointClassifier.load(trained_path)
    broken.network.decider.class_heads["humanitarian"].bias.fill_(float("nan"))  # type: ignore[operator,union-attr]
    with pytest.raises(ModelError, match="finite"):
        broken.predict([Example(text="bridge collapsed")])
