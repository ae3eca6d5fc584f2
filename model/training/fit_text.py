"""Trains the text halves of both stages; knows nothing of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from model.batches import TokenBatch, TokenItem, batches
from model.encoders import Embeddings
from model.losses import distillation_loss, rationale_loss
from model.network import TextDecider, TextSelector
from model.precision import mixed_precision
from model.training.text_kit import Embed

_LABEL_SMOOTHING = 0.05
_SOFT_SHARE = 0.7  # of the class loss, where a teacher was asked


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    n_epochs: int
    batch_size: int = 16
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-3
    class_weight: float = 1.0  # of the selector's auxiliary class loss
    rationale_weight: float = 1.0  # the paper's alpha, for a loss averaged over tokens and posts
    seed: int = 0


def fit_selector(
    selector: TextSelector, embeddings: Embeddings, items: Sequence[TokenItem], settings: FitSettings, weights: Tensor
) -> None:
    """Joint class and rationale training; texts without marked rationales teach the class only."""

    def loss(batch: TokenBatch) -> Tensor:
        with torch.no_grad():
            embedded = embeddings(batch.input_ids)
        out = selector(embedded, batch.attention_mask)
        total = settings.class_weight * _weighted_class_loss(out.class_logits, batch, weights)
        marked = batch.token_mask.any(1)
        if marked.any():
            term = rationale_loss(out.token_logits[marked], batch.targets[marked], batch.token_mask[marked])
            total = total + settings.rationale_weight * term * marked.float().mean()
        return total

    _fit(selector, selector.encoder, items, settings, loss, "text selector")


def fit_decider(
    decider: TextDecider,
    embeddings: Embed,
    items: Sequence[TokenItem],
    settings: FitSettings,
    weights: Tensor,
) -> None:
    """Class training on masked texts; the caller has already hidden the other words."""

    def loss(batch: TokenBatch) -> Tensor:
        with torch.no_grad():
            embedded = embeddings(batch.input_ids)
        return _weighted_class_loss(decider(embedded, batch.attention_mask), batch, weights)

    _fit(decider, decider.encoder, items, settings, loss, "text decider")


@torch.inference_mode()
def decide_texts(decider: TextDecider, embeddings: Embed, items: Sequence[TokenItem], batch_size: int = 32) -> Tensor:
    """Class log-probabilities (N, 5) in the given order."""
    logits: Tensor = decider.class_head(pool_texts(decider, embeddings, items, batch_size))
    return logits.log_softmax(1)


@torch.inference_mode()
def pool_texts(decider: TextDecider, embeddings: Embed, items: Sequence[TokenItem], batch_size: int = 32) -> Tensor:
    """What the decider's heads read of each text, (N, D) in the given order."""
    decider.eval()
    order = sorted(range(len(items)), key=lambda index: len(items[index].input_ids))
    pooled = [
        decider.pool(embeddings(batch.input_ids), batch.attention_mask)
        for batch in batches([items[index] for index in order], batch_size, None)
    ]
    return torch.cat(pooled)[torch.tensor(order).argsort()]


def _weighted_class_loss(class_logits: Tensor, batch: TokenBatch, weights: Tensor) -> Tensor:
    terms = nn.functional.cross_entropy(
        class_logits, batch.labels, weight=weights, label_smoothing=_LABEL_SMOOTHING, reduction="none"
    )
    if batch.soft_labels is not None:
        terms = distillation_loss(terms, class_logits, batch.soft_labels, _SOFT_SHARE)
    return (terms * batch.weights).mean()


def _fit(
    module: nn.Module,
    encoder: nn.Module,
    items: Sequence[TokenItem],
    settings: FitSettings,
    loss: Callable[[TokenBatch], Tensor],
    title: str,
) -> None:
    generator = torch.Generator().manual_seed(settings.seed)
    torch.manual_seed(settings.seed)
    trunk = list(encoder.parameters())
    trunk_ids = {id(parameter) for parameter in trunk}
    heads = [parameter for parameter in module.parameters() if id(parameter) not in trunk_ids]
    optimizer = torch.optim.AdamW(
        [{"params": trunk, "lr": settings.learning_rate}, {"params": heads, "lr": settings.head_learning_rate}],
        weight_decay=0.01,
    )
    n_steps = settings.n_epochs * math.ceil(len(items) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (0.06 * n_steps + 1), max(0.0, (n_steps - step) / n_steps))
    )
    module.train()
    with tqdm(total=n_steps, desc=title, mininterval=10.0) as progress:
        for _ in range(settings.n_epochs):
            for batch in batches(items, settings.batch_size, generator):
                optimizer.zero_grad(set_to_none=True)
                with mixed_precision():
                    value = loss(batch)
                value.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(module.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                progress.update()
    module.eval()
