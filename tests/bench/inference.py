"""Inference alone: ours beside plain transformers modules in fp32, the same posts, one thread; no broker is asked."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from model import RationaleClassifier
from model.evaluation.speed import made_posts
from tests.bench.arena import Arena
from tests.bench.eager import plain_classifier, rates
from tests.bench.plan import Plan
from tests.bench.posts import Supply
from tests.bench.summary import Findings
from workers.settings import SHIPPED_CHECKPOINT

log = logging.getLogger(__name__)


async def inference(arena: Arena, supply: Supply, plan: Plan, findings: Findings) -> None:
    """Posts with and without a picture, half and half, made up: weights and time do not depend on what they show."""
    torch.set_num_threads(1)
    path = Path(arena.checkpoint or SHIPPED_CHECKPOINT)
    n_posts = plan.n_inferred // 2
    posts = [*made_posts(image=True)[:n_posts], *made_posts(image=False)[:n_posts]]
    ours, plain = rates([RationaleClassifier.load(path), plain_classifier(path)], posts, plan.repetitions)
    log.info("inference: ours %s, plain %s posts/s", ours, plain)
    findings.figure("inference_ours", ours, unit="posts/s", name="inference, ours")
    findings.figure("inference_eager", plain, unit="posts/s", name="inference, plain transformers fp32 eager")
    findings.key("inference_over_eager_cpu", [one / other for one, other in zip(ours, plain, strict=True)])
