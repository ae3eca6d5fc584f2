"""The training loop ends with the same weights however often it was stopped."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model.joint.fit import Plan, StaleState, fit
from model.joint.recipe import TrainingRecipe

N_ROWS, N_EPOCHS = 10, 4


class Stopped(Exception):
    """Stands in for a kill: nothing is saved on its way out."""


def _plan(folder: Path, *, key: str = "one", save_every_s: float = 0.0, patience: int = 9) -> Plan:
    return Plan(
        title="test",
        training=TrainingRecipe(
            batch_size=3, learning_rate=0.05, patience=patience, save_every_s=save_every_s, precision="float32"
        ),
        n_rows=N_ROWS,
        n_epochs=N_EPOCHS,
        seed=2,
        key=key,
        state_path=folder / "test.state",
        device="cpu",
    )


def _train(
    plan: Plan,
    *,
    stop_after: int | None = None,
    signal_at: tuple[int, signal.Signals] | None = None,
    scores: Sequence[float] = (),
) -> dict[str, Tensor]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    inputs = torch.randn(N_ROWS, 4, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(N_ROWS) % 2
    steps = itertools.count(1)

    def load(groups: Sequence[list[int]]) -> Iterator[list[int]]:
        yield from groups

    def loss(rows: list[int]) -> Tensor:
        step = next(steps)
        if stop_after is not None and step > stop_after:
            raise Stopped
        if signal_at is not None and step == signal_at[0]:
            signal.raise_signal(signal_at[1])
        return nn.functional.cross_entropy(module(inputs[rows]), labels[rows])

    told = iter(scores)
    fit(module, [{"params": list(module.parameters())}], load, loss, (lambda: next(told)) if scores else None, plan)
    return {key: value.clone() for key, value in module.state_dict().items()}


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("stop_after", range(1, 16))
def test_stopped_after_any_step_it_ends_with_the_same_weights(tmp_path: Path, stop_after: int) -> None:
    (tmp_path / "whole").mkdir()
    whole = _train(_plan(tmp_path / "whole"))
    with pytest.raises(Stopped):
        _train(_plan(tmp_path), stop_after=stop_after)
    assert _same(_train(_plan(tmp_path)), whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 4, 6])  # an epoch has four
def test_a_signal_ends_the_step_and_saves_it(tmp_path: Path, number: signal.Signals, step: int) -> None:
    """It then does what it did before; nothing is lost, though saving is far off."""

    def terminate(*_: object) -> None:
        raise KeyboardInterrupt

    scores = (0.3, 0.2, 0.5, 0.4)
    (tmp_path / "whole").mkdir()
    whole = _train(_plan(tmp_path / "whole"), scores=scores)
    plan = _plan(tmp_path, save_every_s=1e9)
    before = signal.signal(signal.SIGTERM, terminate), signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            _train(plan, signal_at=(step, number), scores=scores)
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == (terminate, before[1])
    finally:
        signal.signal(signal.SIGTERM, before[0])
    assert torch.load(plan.state_path, weights_only=True)["progress"]["step"] == step
    assert _same(_train(plan, scores=scores[step // 4 :]), whole)


def test_saving_seldom_costs_steps_but_not_the_result(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = _train(_plan(tmp_path / "whole"))
    for stop_after in (6, 5, 7):
        with pytest.raises(Stopped):
            _train(_plan(tmp_path, save_every_s=1e9), stop_after=stop_after)
    assert _same(_train(_plan(tmp_path, save_every_s=1e9)), whole)


def test_a_finished_stage_is_not_trained_again(tmp_path: Path) -> None:
    whole = _train(_plan(tmp_path))
    assert _same(_train(_plan(tmp_path), stop_after=0), whole)


def test_the_best_epoch_is_kept_and_patience_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "short").mkdir()
    best = _train(_plan(tmp_path, patience=2), scores=[0.1, 0.9, 0.5, 0.8, 0.95])
    with pytest.raises(Stopped):  # the weights at the end of the second epoch
        _train(_plan(tmp_path / "short", save_every_s=0.0), stop_after=8)
    state = torch.load(tmp_path / "short" / "test.state", weights_only=True)
    assert _same(best, state["module"])
    assert len(torch.load(tmp_path / "test.state", weights_only=True)["progress"]["history"]) == N_EPOCHS


def test_the_state_of_another_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        _train(_plan(tmp_path), stop_after=3)
    with pytest.raises(StaleState, match="another recipe"):
        _train(_plan(tmp_path, key="two"))
