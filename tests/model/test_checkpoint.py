"""A checkpoint is refused in one clear sentence unless every file is what it says."""

import hashlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model import CheckpointError, RationaleClassifier
from model.checkpoint import pack, unpack
from model.testing import tiny_checkpoint


@pytest.fixture
def copy(tiny_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_path, tmp_path / "copy"))


def _sign(path: Path) -> None:
    """Makes config.json agree with the altered weights, so that the next check is the one that fails."""
    config = json.loads((path / "config.json").read_text())
    config["weights_sha256"] = hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
    (path / "config.json").write_text(json.dumps(config))


def test_the_same_seed_writes_the_same_checkpoint(tmp_path: Path) -> None:
    first, second = tiny_checkpoint(tmp_path / "a"), tiny_checkpoint(tmp_path / "b")
    other = tiny_checkpoint(tmp_path / "c", seed=1)
    digests = [RationaleClassifier.load(path).digest for path in (first, second, other)]
    assert digests[0] == digests[1] != digests[2]
    assert digests[0].startswith("sha256:")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        RationaleClassifier.load(copy)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        RationaleClassifier.load(tmp_path / "nowhere")


def test_altered_weights_are_refused(copy: Path) -> None:
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError, match="sha256"):
        RationaleClassifier.load(copy)


def test_missing_and_extra_keys_are_refused(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    tensors["surprise"] = tensors.pop("text_decider.class_head.bias")
    save_file(tensors, copy / "model.safetensors")
    _sign(copy)
    with pytest.raises(CheckpointError, match=r"class_head\.bias.*surprise"):
        RationaleClassifier.load(copy)


def test_pickled_weights_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(pickle.dumps({"weights": [1.0]}))
    _sign(copy)
    with pytest.raises(CheckpointError, match="pickle"):
        RationaleClassifier.load(copy)


def test_weights_that_are_not_finite_are_refused(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    tensors["text_decider.class_head.bias"][0] = float("inf")
    save_file(tensors, copy / "model.safetensors")
    _sign(copy)
    with pytest.raises(CheckpointError, match="finite"):
        RationaleClassifier.load(copy)


def test_unknown_config_keys_and_other_classes_are_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"mood": 1}))
    with pytest.raises(CheckpointError, match="mood"):
        RationaleClassifier.load(copy)
    (copy / "config.json").write_text(json.dumps(config | {"classes": ["a", "b"]}))
    with pytest.raises(CheckpointError, match="classes"):
        RationaleClassifier.load(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        RationaleClassifier.load(copy)


@pytest.mark.parametrize(
    ("where", "value", "told"),
    [
        ("fusion_both.bias", [float("nan")] * 5, "not finite"),
        ("fusion_text.bias", [0.0], "bias"),
        ("fusion_both.text_weight", "1", "text_weight"),
        ("prior", [0.6] * 5, "prior"),
        ("prior", [0.5, 0.5], "prior"),
        ("alert_threshold", None, "alert_threshold"),
        ("alert_threshold", 7.0, "alert_threshold"),
        ("selection.word_threshold", "0.4", "word_threshold"),
        ("selection.beta", 0.0, "beta"),
        ("image.cols", 5, "cols = 5"),
    ],
)
def test_config_value_that_would_spoil_a_finding_is_refused(copy: Path, where: str, value: Any, told: str) -> None:
    config = json.loads((copy / "config.json").read_text())
    *sections, last = where.split(".")
    section = config[sections[0]] if sections else config
    section[last] = value
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=told):
        RationaleClassifier.load(copy)


def test_another_tokenizer_is_refused(copy: Path) -> None:
    """As many pieces in another order would mean other words."""
    text = (copy / "tokenizer.json").read_text("utf-8")
    (copy / "tokenizer.json").write_text(text + "\n", "utf-8")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json has sha256"):
        RationaleClassifier.load(copy)


def test_int8_storage_is_close_per_channel_and_exact_for_small_tensors() -> None:
    state = {"big": torch.randn(64, 128) * torch.logspace(-3, 2, 64)[:, None], "small": torch.randn(7)}
    packed = pack(state)
    assert packed["big.int8"].dtype == torch.int8
    back = unpack(packed)
    assert torch.equal(back["small"], state["small"])
    error = (back["big"] - state["big"]).abs().amax(1) / state["big"].abs().amax(1)
    assert error.max() <= 0.5 / 127 + 1e-6
