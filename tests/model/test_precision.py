"""bf16 is used where the device has it and nowhere else: emulated, a training step takes many times longer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model.batches import TokenItem
from model.joint.fit import Plan, fit
from model.joint.recipe import TrainingRecipe
from model.network import TextDecider
from model.precision import is_bf16_fast, mixed_precision
from model.training import fit_text
from model.training.text_kit import TextKit


@pytest.fixture(params=[True, False], ids=["has bf16", "has none"])
def has_bf16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A CPU of either kind, as torch tells of it."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: request.param, raising=False)
    return bool(request.param)


@pytest.mark.parametrize("wanted", [True, False])
def test_products_are_in_bf16_where_it_is_wanted_and_fast(has_bf16: bool, wanted: bool) -> None:
    with mixed_precision(wanted=wanted):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if has_bf16 and wanted else torch.float32)


def test_a_gpu_that_only_emulates_bf16_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert not is_bf16_fast("cuda")


def test_text_training_follows_the_cpu(has_bf16: bool, kit: TextKit) -> None:
    torch.manual_seed(0)
    decider = TextDecider(kit.config, 5)
    seen: set[torch.dtype] = set()
    decider.class_head.register_forward_hook(lambda _, __, out: seen.add(out.dtype))
    items = [TokenItem(input_ids=kit.tokenizer.encode(kit.tokenizer.split("flood in town")).input_ids, label=1)] * 4
    settings = fit_text.FitSettings(n_epochs=1, batch_size=2)
    fit_text.fit_decider(decider, kit.embeddings, items, settings, torch.ones(5))
    assert seen == {torch.bfloat16 if has_bf16 else torch.float32}


def test_training_by_a_recipe_follows_the_cpu(has_bf16: bool, tmp_path: Path) -> None:
    module = nn.Linear(4, 2)
    seen: set[torch.dtype] = set()
    module.register_forward_hook(lambda _, __, out: seen.add(out.dtype))
    plan = Plan(
        title="test",
        training=TrainingRecipe(batch_size=2),
        n_rows=4,
        n_epochs=1,
        seed=0,
        key="one",
        state_path=tmp_path / "test.state",
        device="cpu",
    )

    def loss(rows: list[int]) -> Tensor:
        return module(torch.ones(len(rows), 4)).float().square().mean()

    fit(module, [{"params": list(module.parameters())}], iter, loss, None, plan)
    assert seen == {torch.bfloat16 if has_bf16 else torch.float32}
