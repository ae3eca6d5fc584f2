"""Pads token lists into batches of similar length; order is a function of the seed alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.sending import sent

_POOL = 32  # batches sorted by length together
REPLAYED_STEP = 16  # what is replayed on a GPU comes in lengths that are multiples of this, so that few graphs do


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenItem:
    """One encoded text; `targets` are the rationale labels of its tokens, None where nobody marked any.

    `soft_labels` are a teacher's class probabilities; empty where none was asked.
    """

    input_ids: list[int]
    label: int
    targets: list[float] | None = None
    soft_labels: tuple[float, ...] = ()
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    input_ids: Tensor  # (B, T)
    attention_mask: Tensor  # (B, T) bool
    labels: Tensor  # (B,)
    soft_labels: Tensor | None  # (B, C), rows of zeros where no teacher was asked; None: it was asked for none of them
    targets: Tensor  # (B, T)
    token_mask: Tensor  # (B, T) bool: real, unspecial tokens of marked texts
    weights: Tensor  # (B,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Padded:
    """Token lists as one batch, to be read and nothing more."""

    input_ids: Tensor  # (B, T)
    mask: Tensor  # (B, T) bool, True = real
    lengths: Tensor  # (B,) always on the CPU

    def to(self, device: str) -> Padded:
        return Padded(input_ids=sent(self.input_ids, device), mask=sent(self.mask, device), lengths=self.lengths)


def padded(ids: Sequence[list[int]], pad_id: int, *, step: int = 1) -> Padded:
    """At least one list; filled up to a multiple of `step`."""
    lengths = torch.tensor([len(one) for one in ids])
    T = -(-int(lengths.max()) // step) * step
    input_ids = torch.tensor([one + [pad_id] * (T - len(one)) for one in ids])
    return Padded(input_ids=input_ids, mask=torch.arange(T) < lengths[:, None], lengths=lengths)


def collate(items: Sequence[TokenItem], pad_id: int = 0) -> TokenBatch:
    B, T = len(items), max(len(item.input_ids) for item in items)
    input_ids = torch.full((B, T), pad_id)
    attention_mask = torch.zeros(B, T, dtype=torch.bool)
    targets, token_mask = torch.zeros(B, T), torch.zeros(B, T, dtype=torch.bool)
    C = max(len(item.soft_labels) for item in items)
    soft_labels = torch.zeros(B, C) if C else None
    for row, item in enumerate(items):
        n = len(item.input_ids)
        input_ids[row, :n] = torch.tensor(item.input_ids)
        attention_mask[row, :n] = True
        if soft_labels is not None and item.soft_labels:
            soft_labels[row] = torch.tensor(item.soft_labels)
        if item.targets is not None:
            targets[row, :n] = torch.tensor(item.targets)
            token_mask[row, 1 : n - 1] = True
    return TokenBatch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        labels=torch.tensor([item.label for item in items]),
        soft_labels=soft_labels,
        targets=targets,
        token_mask=token_mask,
        weights=torch.tensor([item.weight for item in items]),
    )


def batches(items: Sequence[TokenItem], batch_size: int, generator: torch.Generator | None) -> Iterator[TokenBatch]:
    """All items once; shuffled in pools sorted by length, or in the given order without a generator."""
    if generator is None:
        for start in range(0, len(items), batch_size):
            yield collate(items[start : start + batch_size])
        return
    order = torch.randperm(len(items), generator=generator).tolist()
    pool_size = _POOL * batch_size
    groups: list[list[int]] = []
    for start in range(0, len(order), pool_size):
        pool = sorted(order[start : start + pool_size], key=lambda index: len(items[index].input_ids))
        groups += [pool[at : at + batch_size] for at in range(0, len(pool), batch_size)]
    for at in torch.randperm(len(groups), generator=generator).tolist():
        yield collate([items[index] for index in groups[at]])
