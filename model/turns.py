"""Keeps a device busy while Python thinks: parts of a call take turns, each giving way where it needs an answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.inputs import EncodedExample

T = TypeVar("T")
Turns = Generator[None, None, T]  # yields once its work is queued and its answers are on their way

_AT_ONCE = 2  # parts whose work is queued at a time


class Answer:
    """A tensor on its way from the device; `get` waits for it alone, not for what was queued after it.

    Half precision comes as float32.
    """

    def __init__(self, tensor: Tensor) -> None:
        if tensor.is_floating_point():
            tensor = tensor.float()
        self._event = None
        if tensor.device.type == "cuda":
            self._value = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._value.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()
        else:
            self._value = tensor

    def get(self) -> npt.NDArray[np.generic]:
        """The values, once they are there."""
        if self._event is not None:
            self._event.synchronize()
        values: npt.NDArray[np.generic] = self._value.numpy()
        return values


def in_turns(parts: Sequence[Turns[T]]) -> list[T]:
    """What each part returns, in order; two parts are under way at a time."""
    results: dict[int, T] = {}
    waiting, active = deque(enumerate(parts)), deque[tuple[int, Turns[T]]]()
    while waiting or active:
        while waiting and len(active) < _AT_ONCE:
            active.append(waiting.popleft())
        index, part = active.popleft()
        try:
            next(part)
        except StopIteration as end:
            results[index] = end.value
        else:
            active.append((index, part))
    return [results[index] for index in range(len(parts))]


def by_likeness(
    examples: Sequence[EncodedExample], work: Callable[[Sequence[EncodedExample]], Turns[list[T]]], part_size: int
) -> list[T]:
    """What `work` makes of the examples, group by group, in the examples' order."""
    groups = likeness_groups(examples, part_size)
    made = in_turns([work([examples[k] for k in group]) for group in groups])
    placed = {k: one for group, ones in zip(groups, made, strict=True) for k, one in zip(group, ones, strict=True)}
    return [placed[k] for k in range(len(examples))]


def likeness_groups(examples: Sequence[EncodedExample], size: int) -> list[list[int]]:
    """The examples' indices in groups of at most `size`.

    All of a group have an image, or none has; stage 1 looks at all of their images, or at none. Texts in a group are
    about as long.
    """
    kinds: dict[tuple[bool, bool], list[int]] = {}
    for k, example in enumerate(examples):
        kinds.setdefault((example.image is not None, example.image_rationale), []).append(k)
    groups: list[list[int]] = []
    for kind in kinds.values():
        order = sorted(kind, key=lambda k: len(examples[k].tokens.input_ids))
        n_groups = -(-len(order) // size)
        groups += [order[at * len(order) // n_groups : (at + 1) * len(order) // n_groups] for at in range(n_groups)]
    return groups
