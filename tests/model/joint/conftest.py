"""Small random encoders of all three kinds, and one tiny checkpoint trained on made-up data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deploy import cli
from model.joint.build import make_encoder
from model.joint.classifier import JointClassifier
from model.joint.config import EncoderConfig
from model.joint.states import JointEncoder, JointStates
from tests.model.joint.archive_layout import make_archive

N_PIECES = 120
VILT = {
    "vocab_size": N_PIECES,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 128,
    "patch_size": 32,
    "initializer_range": 0.2,
}
DUAL = {
    "text": {
        "model_type": "mpnet",
        "vocab_size": N_PIECES,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    },
    "vision": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 16,
    },
    "width": 32,
    "n_layers": 1,
    "n_heads": 4,
}
COMPACT = {
    "n_pieces": N_PIECES,
    "max_tokens": 40,
    "text_width": 32,
    "n_layers": 1,
    "n_heads": 4,
    "ff_width": 64,
    "width": 16,
    "image_width": 0.25,
    "image_depth": 0.3,
    "head_width": 32,
}
SHAPES: dict[str, tuple[dict[str, Any], int, int]] = {
    "vilt": (VILT, 128, 32),
    "dual": (DUAL, 64, 16),
    "compact": (COMPACT, 128, 32),
}


def encoder_config(kind: str, **changes: Any) -> EncoderConfig:
    shape, size_px, patch_px = SHAPES[kind]
    values = {"kind": kind, "max_tokens": 40, "size_px": size_px, "patch_px": patch_px, "shape": shape}
    return EncoderConfig(**(values | changes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Posts:
    """Random posts of the encoder's own size, four patches a side."""

    input_ids: Tensor
    attention_mask: Tensor
    pixel_values: Tensor
    pixel_mask: Tensor

    def states(self, encoder: JointEncoder, rows: slice = slice(None)) -> JointStates:
        with torch.no_grad():
            out: JointStates = encoder(
                self.input_ids[rows], self.attention_mask[rows], self.pixel_values[rows], self.pixel_mask[rows]
            )
        return out


MakePosts = Callable[..., Posts]


@pytest.fixture(params=["vilt", "dual", "compact"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def encoder(kind: str) -> JointEncoder:
    return random_encoder(kind)


def random_encoder(kind: str) -> JointEncoder:
    torch.manual_seed(3)
    encoder = make_encoder(encoder_config(kind)).eval()
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d) and kind == "compact":  # else an image's trace dies out on its way
            nn.init.kaiming_normal_(module.weight)
    return encoder


def random_posts(kind: str, n: int = 3, n_tokens: int = 9) -> Posts:
    size = SHAPES[kind][1]
    generator = torch.Generator().manual_seed(5)
    return Posts(
        input_ids=torch.randint(5, N_PIECES, (n, n_tokens), generator=generator),
        attention_mask=torch.ones(n, n_tokens, dtype=torch.bool),
        pixel_values=torch.randn(n, 3, size, size, generator=generator),
        pixel_mask=torch.ones(n, size, size, dtype=torch.bool),
    )


def sitrep(*arguments: str) -> int:
    """Run a command in this process; returns its exit code."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    return int(stopped.value.code or 0)


@pytest.fixture(scope="session")
def archive_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="session")
def trained_path(archive_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint trained by the command with the recipe `tiny`."""
    out = tmp_path_factory.mktemp("trained") / "tiny"
    arguments = ("--recipe", "tiny", "--data", str(archive_folder), "--out", str(out), "--threads", "1")
    assert sitrep("train", *arguments, "--device", "cpu") == 0
    return out


@pytest.fixture(scope="session")
def trained(trained_path: Path) -> JointClassifier:
    return JointClassifier.load(trained_path, n_threads=1)
