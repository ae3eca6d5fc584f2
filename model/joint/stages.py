"""Trains stage 1 and stage 2 in place; what runs between them is `scoring`'s."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from model.joint.feeding import Batch
from model.joint.fit import fit
from model.joint.network import Decider, Selector
from model.joint.recipe import Recipe
from model.joint.scoring import Job, Left, left_logits, whole_logits
from model.joint.targets import evidence_targets
from model.losses import class_loss, class_weights, weighted_rationale_loss
from model.records import HUMANITARIAN, TASKS

History = list[dict[str, float]]


def train_selector(job: Job, selector: Selector) -> dict[str, History]:
    """Stage 1 in place: classes and people's rationales; then class evidence, where the recipe wants it."""
    recipe, rows = job.recipe, job.rows
    weights = _balance(job)

    def loss(batch: Batch) -> Tensor:
        out = selector(batch.inputs)
        total: Tensor = recipe.selector.class_weight * _class_losses(out.class_logits, batch, recipe, weights)
        if batch.token_mask.any():
            total = total + recipe.selector.alpha * weighted_rationale_loss(
                out.token_logits,
                batch.targets,
                batch.token_mask,
                over_tokens=recipe.selector.over_tokens,
                over_posts=recipe.selector.over_posts,
            )
        if recipe.selector.alignment_weight:
            aligned = selector.encoder.alignment_loss(out.states, batch.word_mask)
            if aligned is not None:
                total = total + recipe.selector.alignment_weight * aligned
        return total

    def score() -> float:
        return job.macro_f1(whole_logits(job, selector, job.dev, job.autocast()))

    plan = job.plan("stage 1", n_rows=job.n_train, n_epochs=recipe.training.n_epochs, step=1)
    histories = {"stage_1": fit(selector, _groups(selector, recipe), rows.whole, loss, score, plan)}
    taught = any(target is not None for target in rows.targets)
    if recipe.selector.evidence == "always" or (recipe.selector.evidence == "auto" and not taught):
        targets = job.kept("evidence", lambda: _evidence(job, selector, taught=taught))
        rows = replace(rows, targets=targets)
        # the class head is good already, the words are what is learnt: no early stop
        plan = job.plan("stage 1 evidence", n_rows=job.n_train, n_epochs=recipe.selector.evidence_epochs, step=2)
        histories["stage_1_evidence"] = fit(selector, _groups(selector, recipe), rows.whole, loss, None, plan)
    return histories


def train_decider(job: Job, decider: Decider, left: Left) -> dict[str, History]:
    """Stage 2 in place, on nothing but the rationales; rows without any evidence teach nothing."""
    recipe = job.recipe
    weights = _balance(job)
    usable = left.usable(range(job.n_train))

    def load(groups: Sequence[list[int]]) -> Iterator[Batch]:
        return left.batches([[usable[k] for k in group] for group in groups])

    def loss(batch: Batch) -> Tensor:
        return _class_losses(decider(batch.inputs), batch, recipe, weights)

    def score() -> float:
        return job.macro_f1(left_logits(job, decider, left, job.dev, job.autocast()))

    plan = job.plan("stage 2", n_rows=len(usable), n_epochs=recipe.training.n_epochs, step=3)
    return {"stage_2": fit(decider, _groups(decider, recipe), load, loss, score, plan)}


def _class_losses(logits: Mapping[str, Tensor], batch: Batch, recipe: Recipe, weights: Mapping[str, Tensor]) -> Tensor:
    """The tasks' cross-entropies, each over the rows it labels."""
    smoothing = recipe.training.label_smoothing
    terms = [
        share * class_loss(logits[task], batch.labels[task], weights.get(task), label_smoothing=smoothing)
        for task, share in recipe.tasks.items()
    ]
    return torch.stack(terms).sum()


def _balance(job: Job) -> dict[str, Tensor]:
    power = job.recipe.training.class_balance
    if not power:
        return {}
    return {
        task: class_weights(job.rows.labels(range(job.n_train), task), len(TASKS[task]), power).to(job.device)
        for task in job.recipe.tasks
    }


def _groups(module: Selector | Decider, recipe: Recipe) -> list[dict[str, Any]]:
    """The encoder at the paper's rate, what is new at its own."""
    encoder = [parameter for parameter in module.encoder.parameters() if parameter.requires_grad]
    known = {id(parameter) for parameter in module.encoder.parameters()}
    heads = [parameter for parameter in module.parameters() if id(parameter) not in known]
    rate = recipe.training.learning_rate
    return [{"params": encoder, "lr": rate}, {"params": heads, "lr": recipe.training.head_learning_rate or rate}]


def _evidence(job: Job, selector: Selector, *, taught: bool) -> list[list[float] | None]:
    """Class evidence for training rows that nobody marked; marked rows keep their marks."""
    targets = list(job.rows.targets)
    unmarked = [k for k in range(job.n_train) if targets[k] is None]
    size = job.recipe.training.batch_size
    groups = [unmarked[at : at + size] for at in range(0, len(unmarked), size)]
    for group, readings in tqdm(job.rows.readings(groups), total=len(groups), desc="class evidence"):
        labels = job.rows.labels(group, HUMANITARIAN).tolist()
        share = job.recipe.selector.evidence_share
        found = evidence_targets(selector, readings, labels, job.rows.kit, share, taught=taught)
        for k, target in zip(group, found, strict=True):
            targets[k] = target
    return targets
