"""The plain transformers modules that the benchmark compares with compute what ours do."""

from pathlib import Path

import pytest
import torch

from model import checkpoint
from model.network import Network
from model.testing import tiny_checkpoint
from tests.bench.eager import PlainText, PlainVision


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return checkpoint.load(tiny_checkpoint(tmp_path / "checkpoint"))[0]


def test_plain_text_layers_agree(network: Network) -> None:
    embedded = torch.randn(1, 9, 32)
    ours = network.text_decider.encoder
    torch.testing.assert_close(PlainText(ours).eval()(embedded), ours(embedded), rtol=1e-4, atol=1e-5)


def test_plain_vision_layers_agree_on_whole_images(network: Network) -> None:
    pixel_values = torch.randn(1, 3, 128, 128)
    ours = network.image_decider.tower
    torch.testing.assert_close(PlainVision(ours, 128).eval()(pixel_values), ours(pixel_values), rtol=1e-4, atol=1e-4)
