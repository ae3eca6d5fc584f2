"""One stage's training loop: resumable at any step with the same result, early-stopped, mixed precision."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from model.errors import ModelError
from model.joint.recipe import TrainingRecipe
from model.precision import mixed_precision

log = logging.getLogger(__name__)
_SEED_STRIDE = 1_000_003
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
Load = Callable[[Sequence[list[int]]], Iterable[Any]]  # from groups of row numbers to batches, in order


class StaleState(ModelError):
    """What an earlier run left belongs to another recipe or other data."""


class _Saved(Exception):
    """A signal was noted, and all up to it is in the state file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a stage is run; `key` tells apart what may be resumed from what may not."""

    title: str
    training: TrainingRecipe
    n_rows: int
    n_epochs: int
    seed: int
    key: str
    state_path: Path
    device: str


@dataclass(slots=True, kw_only=True)
class _Progress:
    """Where the loop stands; all of it is in the state file."""

    step: int = 0
    best_score: float = -1.0
    best: dict[str, Tensor] = field(default_factory=dict)
    n_stale: int = 0  # epochs since the best
    history: list[dict[str, float]] = field(default_factory=list)
    loss_sum: float = 0.0


def fit(
    module: nn.Module,
    groups: Sequence[dict[str, Any]],
    load: Load,
    loss: Callable[[Any], Tensor],
    score: Callable[[], float] | None,
    plan: Plan,
) -> list[dict[str, float]]:
    """Trains the module in place and returns its history, one entry an epoch.

    An epoch's order follows from the seed alone, and every step draws its dropout from the step's own seed. So a
    run that was killed and started again gives the same weights as one that was not. With a `score` the best
    epoch's weights are kept, else the last one's. SIGINT and SIGTERM stop it after the step, which is saved.
    """
    training = plan.training
    n_batches = math.ceil(plan.n_rows / training.batch_size)
    n_steps = n_batches * plan.n_epochs
    optimizer = torch.optim.AdamW(list(groups), lr=training.learning_rate, weight_decay=training.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, n_steps, training.warmup_share))
    progress = _resume(module, optimizer, schedule, plan)
    saved_at = time.monotonic()
    with (
        _signals_noted() as noted,
        tqdm(total=n_steps, initial=progress.step, desc=plan.title, mininterval=1.0) as bar,
    ):
        while progress.step < n_steps and progress.n_stale < training.patience:
            epoch, done = divmod(progress.step, n_batches)
            module.train()
            for batch in load(_shuffled(plan, epoch)[done:]):
                torch.manual_seed(plan.seed * _SEED_STRIDE + progress.step)
                optimizer.zero_grad(set_to_none=True)
                with mixed_precision(plan.device, wanted=training.precision == "bf16"):
                    value = loss(batch)
                value.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_((p for group in groups for p in group["params"]), training.clip_norm)
                optimizer.step()
                schedule.step()
                progress.step += 1
                progress.loss_sum += float(value.detach())
                bar.update()
                # the end of an epoch is saved once it is scored
                due = noted or time.monotonic() - saved_at >= training.save_every_s
                if progress.step % n_batches and due:
                    _save(module, optimizer, schedule, progress, plan)
                    saved_at = time.monotonic()
                    if noted:
                        raise _Saved
            _end_epoch(module, score, progress, epoch, n_batches)
            bar.set_postfix_str(", ".join(f"{key} {value:.3f}" for key, value in progress.history[-1].items()))
            ended = progress.step >= n_steps or progress.n_stale >= training.patience
            if ended or noted or time.monotonic() - saved_at >= training.save_every_s:
                _save(module, optimizer, schedule, progress, plan)
                saved_at = time.monotonic()
                if noted:
                    raise _Saved
    if progress.best:
        module.load_state_dict(progress.best)
    module.eval()
    return progress.history


@contextlib.contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """The first SIGINT or SIGTERM is noted for the loop to save first; a second one acts at once, as it ever did."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield noted  # only the main thread gets signals
        return
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _frame: FrameType | None) -> None:
        noted.append(number)
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield noted
    except _Saved:
        pass
    finally:
        restore()
    if noted:
        log.warning("stopped and saved; started again with the same arguments it goes on from here")
        signal.raise_signal(noted[0])
        raise KeyboardInterrupt  # where the signal's own handler lets it go on


def _shuffled(plan: Plan, epoch: int) -> list[list[int]]:
    """Row numbers in an order that seed and epoch alone decide."""
    generator = torch.Generator().manual_seed(plan.seed * _SEED_STRIDE + 7 * epoch + 1)
    order = torch.randperm(plan.n_rows, generator=generator).tolist()
    size = plan.training.batch_size
    return [order[start : start + size] for start in range(0, plan.n_rows, size)]


def _end_epoch(
    module: nn.Module, score: Callable[[], float] | None, progress: _Progress, epoch: int, n_batches: int
) -> None:
    entry = {"epoch": float(epoch), "loss": progress.loss_sum / n_batches}
    progress.loss_sum = 0.0
    if score is not None:
        module.eval()
        entry["dev_macro_f1"] = score()
        progress.n_stale += 1
        if entry["dev_macro_f1"] > progress.best_score:
            progress.best_score, progress.n_stale = entry["dev_macro_f1"], 0
            progress.best = {key: value.detach().cpu().clone() for key, value in module.state_dict().items()}
    progress.history.append(entry)


def _rate(step: int, n_steps: int, warmup_share: float) -> float:
    """Linear decay to zero after a linear warm-up."""
    n_warm = warmup_share * n_steps
    if step < n_warm:
        return (step + 1) / (n_warm + 1)
    return max(0.0, (n_steps - step) / max(1.0, n_steps - n_warm))


def _save(module: nn.Module, optimizer: Any, schedule: Any, progress: _Progress, plan: Plan) -> None:
    """Written aside and renamed, so that a kill leaves the old state or the new one, never half."""
    partial = plan.state_path.with_suffix(".partial")
    state = {
        "key": plan.key,
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "progress": {name: getattr(progress, name) for name in _Progress.__slots__},
    }
    torch.save(state, partial)
    os.replace(partial, plan.state_path)


def _resume(module: nn.Module, optimizer: Any, schedule: Any, plan: Plan) -> _Progress:
    if not plan.state_path.exists():
        return _Progress()
    state = torch.load(plan.state_path, map_location="cpu", weights_only=True)
    if state["key"] != plan.key:
        raise StaleState(
            f"{plan.state_path} was left by another recipe, seed or data; delete that folder or give another --out"
        )
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return _Progress(**state["progress"])
