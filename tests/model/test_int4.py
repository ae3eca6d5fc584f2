"""Four-bit storage comes back near what went in, and refuses bytes that do not fit."""

import pytest
import torch

from model import CheckpointError, int4
from model.checkpoint import as_stored


def test_values_on_the_grid_come_back_exactly() -> None:
    steps = torch.arange(-7, 8).float()
    matrix = steps.repeat(9)[: 2 * int4.GROUP].view(2, int4.GROUP) * 0.5
    packed, scale = int4.pack(matrix)
    assert packed.dtype == torch.uint8 and packed.shape == (2, int4.GROUP // 2)
    assert torch.equal(int4.unpack(packed, scale), matrix)


def test_rounding_costs_a_tenth_of_random_weights() -> None:
    matrix = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    restored = int4.unpack(*int4.pack(matrix))
    assert (restored - matrix).norm() / matrix.norm() < 0.11


def test_groups_have_scales_of_their_own() -> None:
    matrix = torch.cat([torch.full((1, int4.GROUP), 7e-3), torch.full((1, int4.GROUP), 700.0)], dim=1)
    torch.testing.assert_close(int4.unpack(*int4.pack(matrix)), matrix, rtol=2e-3, atol=0.0)


def test_a_zero_matrix_stays_zero() -> None:
    assert not int4.unpack(*int4.pack(torch.zeros(3, int4.GROUP))).any()


def test_bytes_that_do_not_fit_their_scales_are_refused() -> None:
    packed, scale = int4.pack(torch.randn(2, 2 * int4.GROUP))
    with pytest.raises(CheckpointError, match="do not fit"):
        int4.unpack(packed, scale[:, :1])


def test_as_stored_is_what_a_checkpoint_gives_back() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(256, 512)
    stored = as_stored(layer)
    assert torch.equal(stored.weight, int4.unpack(*int4.pack(layer.weight.detach())))
    assert torch.equal(stored.bias, layer.bias)
    assert not torch.equal(stored.weight, layer.weight)


def test_a_convolution_of_one_pixel_keeps_its_shape() -> None:
    kernel = torch.randn(4, int4.GROUP, 1, 1)
    packed, scale = int4.pack(kernel)
    assert packed.shape == (4, int4.GROUP // 2, 1, 1)
    assert int4.unpack(packed, scale).shape == kernel.shape
