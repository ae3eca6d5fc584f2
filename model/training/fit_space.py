"""Trains the space that words and patches share, on frozen encoder outputs; IPOT itself has nothing to learn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.losses import class_loss, class_weights, contrastive_loss
from model.network import ImageSelector, masked_mean, soft_max_pool
from model.training.heads import HeadSettings, fit_head

_BALANCE = 0.5  # of the evidence loss: the patches that are evidence weigh as much as the others


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceRows:
    """N posts or bare images; bare images have no real word."""

    patches: Tensor  # (N, P, C) float16, frozen image encoder
    words: Tensor  # (N, W, D) float16, frozen text encoder, mean over a word's pieces
    word_mask: Tensor  # (N, W) True = real word
    rationale: Tensor  # (N, W) soft rationale scores
    chosen: Tensor  # (N, W) bool, the rationale
    labels: Tensor  # (N,) -1 = unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceSettings:
    n_evidence: int  # patches of an image that count as evidence: as many as are selected
    temperature: float  # of the transport: its beta over its steps
    n_epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    dropout: float = 0.2
    contrast_weight: float = 0.3
    word_weight: float = 0.5
    evidence_weight: float = 1.0
    seed: int = 0


def fit_space(selector: ImageSelector, word_space: nn.Linear, rows: SpaceRows, settings: SpaceSettings) -> None:
    """Class evidence for patches and words around shared prototypes, and posts near their own images.

    An image's rationale words are drawn to the patches that are evidence of its class, its other words to the rest.
    """
    labels, evidence = class_evidence(rows, settings.n_evidence, settings.seed)
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    learnt = [*selector.space.parameters(), *word_space.parameters(), selector.prototypes, selector.log_scale]
    optimizer = torch.optim.AdamW(learnt, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    n_steps = settings.n_epochs * (len(rows.labels) // settings.batch_size + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=n_steps + 1)
    weights = class_weights(rows.labels, len(selector.prototypes))
    for _ in range(settings.n_epochs):
        for index in torch.randperm(len(rows.labels), generator=generator).split(settings.batch_size):  # type: ignore[no-untyped-call]
            optimizer.zero_grad(set_to_none=True)
            loss = _loss(selector, word_space, rows, index, (labels[index], evidence[index]), weights, settings)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()


def class_evidence(rows: SpaceRows, n_evidence: int, seed: int) -> tuple[Tensor, Tensor]:
    """Each image's class (N,), guessed where it is unknown, and its n_evidence best patches (N, P) as ones.

    A class activation map (Zhou et al. 2016): a linear head on the mean patch says of every patch what speaks for
    the class.
    """
    known = rows.labels >= 0
    n_classes = int(rows.labels.max()) + 1
    pooled = rows.patches.float().mean(1)
    head = fit_head(
        pooled[known], rows.labels[known], torch.ones(int(known.sum())), n_classes, seed, HeadSettings(n_steps=300)
    )
    with torch.no_grad():
        labels = torch.where(known, rows.labels, head(pooled).argmax(1))
        logits = head(rows.patches.float())  # (N, P, C)
    speaks_for = logits.gather(2, labels[:, None, None].expand(-1, logits.shape[1], 1)).squeeze(2) - logits.mean(2)
    best = speaks_for.topk(n_evidence, dim=1).indices
    return labels, torch.zeros_like(speaks_for).scatter(1, best, 1.0)


def evidence_loss(
    words: Tensor, rationale: Tensor, mask: Tensor, patches: Tensor, evidence: Tensor, temperature: float
) -> Tensor:
    """Does each patch go to a rationale word rather than to another? Balanced BCE on the log-odds of a transport.

    Words (B, W, E) with two masks (B, W), patches (B, P, E) and the evidence among them (B, P) of ones. The odds are
    those of one transport step without marginals; their mean over the patches is left to the marginals.
    """
    near = F.normalize(patches, dim=2) @ F.normalize(words, dim=2).transpose(1, 2) / temperature  # (B, P, W)
    to_rationale = near.masked_fill(~(rationale & mask)[:, None, :], -1e4).logsumexp(2)
    to_others = near.masked_fill(~(~rationale & mask)[:, None, :], -1e4).logsumexp(2)
    odds = to_rationale - to_others
    odds = odds - odds.mean(1, keepdim=True)
    share = evidence.mean()
    weights = torch.where(evidence > 0, _BALANCE / share, (1 - _BALANCE) / (1 - share))
    return (F.binary_cross_entropy_with_logits(odds, evidence, reduction="none") * weights).mean()


def _loss(
    selector: ImageSelector,
    word_space: nn.Linear,
    rows: SpaceRows,
    index: Tensor,
    targets: tuple[Tensor, Tensor],
    weights: Tensor,
    settings: SpaceSettings,
) -> Tensor:
    labels, (guesses, evidence) = rows.labels[index], targets
    seen = selector.project(F.dropout(rows.patches[index].float(), settings.dropout))
    stand_in = F.one_hot(guesses, len(selector.prototypes)).bool()  # prototypes are what a bare image has for words
    drawn = evidence_loss(
        selector.prototypes.expand(len(index), -1, -1),
        stand_in,
        torch.ones_like(stand_in),
        seen.patch_vectors,
        evidence,
        settings.temperature,
    )
    total = class_loss(seen.class_logits, labels, weights) + settings.evidence_weight * drawn
    mask, chosen = rows.word_mask[index], rows.chosen[index]
    spoken = (chosen & mask).any(1) & (~chosen & mask).any(1)  # (B,)
    if spoken.sum() < 2:
        return total
    mask, chosen = mask[spoken], chosen[spoken]
    words = word_space(F.dropout(rows.words[index][spoken].float(), 0.1))  # (B', W, E)
    scale = selector.log_scale.exp()
    near = F.normalize(words, dim=2) @ F.normalize(selector.prototypes, dim=1).T * scale  # (B', W, 5)
    word_logits = soft_max_pool(near.masked_fill(~mask[:, :, None], -1e4))
    text_vectors = masked_mean(words * rows.rationale[index][spoken][:, :, None], mask)
    patches = seen.patch_vectors[spoken]
    drawn = evidence_loss(words, chosen, mask, patches, evidence[spoken], settings.temperature)
    return (
        total
        + settings.word_weight * class_loss(word_logits, labels[spoken], weights)
        + settings.contrast_weight * contrastive_loss(text_vectors, patches.mean(1), scale)
        + settings.evidence_weight * drawn
    )
