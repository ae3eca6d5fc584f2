"""Applies trained stages to a run's rows: selections, what is left of posts, class logits; trains nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from model.classifier import Selection
from model.evaluation.measures import classification
from model.joint.batch import Item
from model.joint.evidence import select, shown
from model.joint.feeding import Batch, Rows, in_order
from model.joint.fit import Plan
from model.joint.network import Decider, Selector
from model.joint.recipe import Recipe
from model.precision import mixed_precision
from model.records import HUMANITARIAN, Example

_SELECT_CHUNK = 256  # rows in one file of cached selections
_EVAL_SHARE = 4  # no gradients are kept, so more rows fit


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training run: the recipe, its rows (training first, then held out), and where its state is kept."""

    recipe: Recipe
    rows: Rows
    n_train: int
    dev: Sequence[int]  # humanitarian dev rows
    work: Path
    key: str

    @property
    def device(self) -> str:
        return self.rows.kit.device

    def autocast(self) -> AbstractContextManager[object]:
        return mixed_precision(self.device, wanted=self.recipe.training.precision == "bf16")

    @property
    def eval_size(self) -> int:
        return _EVAL_SHARE * self.recipe.training.batch_size

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` returns, as JSON gives it back; made once, then read from `work` until the run is finished."""
        path = self.work / f"{name}.json"
        if not path.exists():
            fresh = path.with_suffix(".partial")
            fresh.write_text(json.dumps(make()), encoding="utf-8")
            os.replace(fresh, path)
        return json.loads(path.read_text(encoding="utf-8"))

    def macro_f1(self, logits: dict[str, Tensor]) -> float:
        """Of humanitarian logits of the dev rows, as early stopping sees it."""
        labels = self.rows.labels(self.dev, HUMANITARIAN).numpy()
        return float(classification(labels, logits[HUMANITARIAN].softmax(1).numpy())["macro_f1"])  # type: ignore[arg-type]

    def plan(self, title: str, *, n_rows: int, n_epochs: int, step: int) -> Plan:
        return Plan(
            title=title,
            training=self.recipe.training,
            n_rows=n_rows,
            n_epochs=n_epochs,
            seed=self.recipe.seed + 1000 * step,
            key=f"{self.key} {title}",
            state_path=self.work / f"{title.replace(' ', '-')}.state",
            device=self.device,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What stage 1 leaves of each row; `seen` holds cached features of the blanked images."""

    rows: Rows
    selections: Sequence[Selection]
    seen: Sequence[Tensor | None] | None = None

    def usable(self, rows: Iterable[int]) -> list[int]:
        """Those of the rows that have any evidence."""
        return [k for k in rows if self.selections[k].words or self.selections[k].patches]

    def item(self, k: int) -> Item | None:
        cached = None if self.seen is None else self.seen[k]
        if cached is None:
            return self.rows.shown(k, self.selections[k])
        text = shown(Example(text=self.rows.posts[k].text), self.selections[k], self.rows.kit)
        side = self.rows.kit.encoder.size_px // self.rows.kit.encoder.patch_px
        return None if text is None else replace(text, grid=(side, side), seen=cached)

    def batches(self, groups: Sequence[list[int]]) -> Iterator[Batch]:
        """Of usable rows only."""
        return self.rows.left(groups, self._sure)

    def _sure(self, k: int) -> Item:
        item = self.item(k)
        assert item is not None, "a row without evidence is in no batch"
        return item


def select_rows(job: Job, selector: Selector) -> list[Selection]:
    """Stage 1's choice for every row; held-out rows in float32, as the classifier computes them. Cached in chunks."""
    chosen: list[Selection] = []
    n_rows = len(job.rows.posts)
    for start in tqdm(range(0, n_rows, _SELECT_CHUNK), desc="select"):
        group = list(range(start, min(start + _SELECT_CHUNK, n_rows)))
        stored = job.kept(f"selected-{start}", partial(_select_group, job, selector, group))
        chosen += [Selection(**{key: tuple(value) for key, value in row.items()}) for row in stored]
    return chosen


def _select_group(job: Job, selector: Selector, group: list[int]) -> list[dict[str, Any]]:
    made: list[Selection] = []
    pieces = [group[at : at + job.eval_size] for at in range(0, len(group), job.eval_size)]
    for piece, readings in job.rows.readings(pieces):
        if piece[-1] < job.n_train:
            with job.autocast():
                made += select(selector, readings, job.rows.kit)
        else:
            made += select(selector, readings, job.rows.kit)
    return [asdict(selection) for selection in made]


@torch.inference_mode()
def whole_logits(
    job: Job, selector: Selector, rows: Sequence[int], precision: AbstractContextManager[object] | None = None
) -> dict[str, Tensor]:
    """Stage 1's auxiliary class logits from whole posts, (N, C) of each task."""
    groups = [[rows[k] for k in group] for group in in_order(len(rows), job.eval_size)]
    with precision or nullcontext():
        return _joined([selector(batch.inputs).class_logits for batch in job.rows.whole(groups)])


@torch.inference_mode()
def left_logits(
    job: Job,
    decider: Decider,
    left: Left,
    rows: Sequence[int],
    precision: AbstractContextManager[object] | None = None,
) -> dict[str, Tensor]:
    """Stage 2's class logits from rationales alone, (N, C) of each task; zeros where there is no evidence."""
    usable = left.usable(rows)
    groups = [[usable[k] for k in group] for group in in_order(len(usable), job.eval_size)]
    with precision or nullcontext():
        made = _joined([decider(batch.inputs) for batch in left.batches(groups)])
    place = {k: at for at, k in enumerate(usable)}
    index = torch.tensor([place.get(k, -1) for k in rows])
    return {task: torch.where(index[:, None] >= 0, logits[index.clamp(min=0)], 0.0) for task, logits in made.items()}


def _joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {task: torch.cat([part[task].float().cpu() for part in parts]) for task in parts[0]}
