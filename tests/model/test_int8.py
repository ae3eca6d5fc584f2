"""Integer layers stay near the float ones and give a row the same bytes in any company."""

import copy
import platform

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from model import int8
from model.int8 import Int8Linear, PairedInt8Linear, to_int8

IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
KINDS = [Int8Linear, pytest.param(PairedInt8Linear, marks=pytest.mark.skipif(not IS_X86, reason="for x86 alone"))]


def _layer(seed: int = 0, inputs: int = 256, outputs: int = 320) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(inputs, outputs)


def test_hand_computed_products() -> None:
    linear = nn.Linear(2, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[127.0, -63.5]]))
        linear.bias.fill_(1.0)
    # weights 127 and -64 (half to even) steps of 1; inputs 127 and 0 steps of 2 / 127
    out = Int8Linear(linear)(torch.tensor([[2.0, 0.0]]))
    torch.testing.assert_close(out, torch.tensor([[127.0 * 2.0 + 1.0]]))


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_stay_within_the_rounding_bound(kind: type[Int8Linear]) -> None:
    linear = _layer()
    x = torch.randn(40, 256)
    exact, rounded = linear(x), kind(linear)(x)
    assert (exact - rounded).norm() / exact.norm() < 0.015


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(0, 39), st.integers(0, 99))
def test_a_row_does_not_depend_on_its_batch(kind: type[Int8Linear], n_rows: int, which: int, seed: int) -> None:
    layer = kind(_layer())
    x = torch.randn(n_rows, 256, generator=torch.Generator().manual_seed(seed)) * 3
    row = which % n_rows
    assert torch.equal(layer(x)[row], layer(x[row : row + 1])[0])


def test_a_cpu_without_int8_gets_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is trained and measured does not depend on the instructions of the machine."""
    x, found = torch.randn(40, 256, generator=torch.Generator().manual_seed(1)), list[torch.Tensor]()
    for is_fast in (True, False):
        monkeypatch.setattr(int8, "is_fast", lambda is_fast=is_fast: is_fast)
        layer = Int8Linear(_layer())
        assert (layer.weight.dtype == torch.int8) is is_fast
        found.append(layer(x))
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", KINDS)
def test_sums_of_the_largest_values_are_exact(kind: type[Int8Linear]) -> None:
    """A CPU that adds products in pairs of 16 bits cuts larger ones short; a loop in whole numbers does not."""
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(512, 256, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.randint(0, 2, (256, 512), generator=generator) * 2.0 - 1.0)
    steps = (torch.randint(0, 2, (7, 512), generator=generator) * 2 - 1) * 127
    layer = kind(linear)
    expected = steps @ (linear.weight.detach() * kind.limit).long().t()
    torch.testing.assert_close(layer(steps.float()), expected.float() * layer.scale, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_of_a_used_layer_gives_the_same(kind: type[Int8Linear]) -> None:
    layer, x = kind(_layer()), torch.randn(4, 256)
    made = layer(x)
    assert torch.equal(copy.deepcopy(layer)(x), made)


@pytest.mark.parametrize("kind", KINDS)
def test_an_all_zero_row_gives_the_bias(kind: type[Int8Linear]) -> None:
    linear = _layer()
    torch.testing.assert_close(kind(linear)(torch.zeros(1, 256))[0], linear.bias)


def test_leading_dimensions_are_kept() -> None:
    assert Int8Linear(_layer())(torch.randn(2, 3, 256)).shape == (2, 3, 320)


def test_small_heads_stay_exact() -> None:
    module = nn.Sequential(_layer(), nn.Linear(320, 5))
    to_int8(module)
    assert isinstance(module[0], Int8Linear)
    assert isinstance(module[1], nn.Linear)
