"""Keeps a device busy while Python thinks: parts of a call take turns, each giving way where it needs an answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from model.inputs import EncodedExample

T = TypeVar("T")
Turns = Generator[None, None, T]  # yields once its work is queued and its answers are on their way

_AT_ONCE = 2  # parts whose work is queued at a time


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
