"""From training rows to batches: reads and resizes images in threads, in an order that never depends on them."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from msgspec import structs
from torch import Tensor
from tqdm import tqdm

from model.classifier import Selection
from model.data import image_file
from model.inputs import EncodedExample, encode_text
from model.joint.archive import Post
from model.joint.batch import Item
from model.joint.evidence import Kit, Reading, read, shown
from model.joint.states import Inputs, JointEncoder
from model.records import Example, Pixels

log = logging.getLogger(__name__)

T = TypeVar("T")
_AHEAD = 3  # batches read before they are needed
_CHUNK = 64  # images in one file of cached features
UNKNOWN = -1  # the label of a row that a task does not label


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    inputs: Inputs
    labels: dict[str, Tensor]  # (B,) of each task
    targets: Tensor  # (B, T) rationale
    token_mask: Tensor  # (B, T) bool: real tokens of rows that have targets
    word_mask: Tensor  # (B, T) bool: real tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Posts as the stages read them; `targets` are rationale targets per word, None where a row has none."""

    posts: Sequence[Post]
    tasks: Sequence[str]
    kit: Kit
    max_edge_px: int
    n_loaders: int
    targets: Sequence[list[float] | None]
    seen: Sequence[Tensor | None] | None = None  # cached features of the whole images
    texts: dict[int, EncodedExample] = field(default_factory=dict)  # encoded once, for every epoch reads them again
    unreadable: set[Path] = field(default_factory=set)  # told once

    def example(self, k: int) -> Example:
        post = self.posts[k]
        if k not in self.texts:
            self.texts[k] = encode_text(Example(text=post.text), self.kit.tokenizer)
        return structs.replace(self.texts[k], image=None if post.image is None else self._image(post.image))

    def _image(self, path: Path) -> Pixels | None:
        try:
            return image_file.read_image(path, self.max_edge_px)
        except image_file.IMAGE_ERRORS as error:
            if path not in self.unreadable:
                self.unreadable.add(path)
                log.warning("%s cannot be read, its post goes without it: %s", path, error)
            return None

    def reading(self, k: int) -> Reading:
        return read(self.example(k), self.kit, None if self.seen is None else self.seen[k])

    def shown(self, k: int, selection: Selection) -> Item | None:
        return shown(self.example(k), selection, self.kit)

    def readings(self, groups: Iterable[list[int]]) -> Iterator[tuple[list[int], list[Reading]]]:
        return prefetched(groups, self.reading, self.n_loaders)

    def whole(self, groups: Iterable[list[int]]) -> Iterator[Batch]:
        """Stage 1's batches: whole posts with their rationale targets."""
        for group, readings in self.readings(groups):
            inputs = self.kit.batch([reading.item for reading in readings])
            width = inputs.input_ids.shape[1]
            targets, token_mask, word_mask = (torch.zeros(len(group), width) for _ in range(3))
            for row, (k, reading) in enumerate(zip(group, readings, strict=True)):
                owners = reading.tokens.words
                word_mask[row, : len(owners)] = torch.tensor([float(owner >= 0) for owner in owners])
                wanted = self.targets[k]
                if wanted is not None:
                    targets[row, : len(owners)] = torch.tensor([wanted[o] if o >= 0 else 0.0 for o in owners])
                    token_mask[row] = word_mask[row]
            yield self._batch(group, inputs, targets, token_mask, word_mask)

    def left(self, groups: Iterable[list[int]], items: Callable[[int], Item]) -> Iterator[Batch]:
        """Stage 2's batches: what is left of posts; no rationale targets."""
        for group, made in prefetched(groups, items, self.n_loaders):
            inputs = self.kit.batch(made)
            none = torch.zeros(inputs.input_ids.shape)
            yield self._batch(group, inputs, none, none, none)

    def labels(self, group: Sequence[int], task: str) -> Tensor:
        return torch.tensor([self.posts[k].labels.get(task, UNKNOWN) for k in group])

    def _batch(
        self, group: Sequence[int], inputs: Inputs, targets: Tensor, token_mask: Tensor, word_mask: Tensor
    ) -> Batch:
        device = self.kit.device
        return Batch(
            inputs=inputs,
            labels={task: self.labels(group, task).to(device) for task in self.tasks},
            targets=targets.to(device),
            token_mask=token_mask.bool().to(device),
            word_mask=word_mask.bool().to(device),
        )


def prefetched(
    groups: Iterable[list[int]], make: Callable[[int], T], n_threads: int
) -> Iterator[tuple[list[int], list[T]]]:
    """Each group with what `make` returned for its rows, in order; the next groups are made meanwhile."""
    waiting: deque[tuple[list[int], list[Future[T]]]] = deque()
    with ThreadPoolExecutor(n_threads) as pool:
        for group in groups:
            waiting.append((group, [pool.submit(make, k) for k in group]))
            if len(waiting) > _AHEAD:
                ready, futures = waiting.popleft()
                yield ready, [future.result() for future in futures]
        while waiting:
            ready, futures = waiting.popleft()
            yield ready, [future.result() for future in futures]


def in_order(n_rows: int, batch_size: int) -> list[list[int]]:
    return [list(range(start, min(start + batch_size, n_rows))) for start in range(0, n_rows, batch_size)]


@torch.inference_mode()
def cached_views(
    encoder: JointEncoder, items: Callable[[int], Item | None], n_rows: int, folder: Path, key: str, device: str
) -> list[Tensor | None]:
    """What a frozen encoder sees of each row's image, (P, C) float16 on disk; None without an image.

    Files are written one by one, so that a run that was killed goes on where it stopped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    views: list[Tensor | None] = [None] * n_rows
    for group in tqdm(in_order(n_rows, _CHUNK), desc="see images", mininterval=1.0):
        name = hashlib.sha256(f"{key} {group[0]}".encode()).hexdigest()[:24]
        path, index_path = folder / f"{name}.npy", folder / f"{name}.rows.npy"
        if not index_path.exists():
            made = [(k, item.pixel_values) for k in group if (item := items(k)) and item.pixel_values is not None]
            stacks = [torch.stack([pixels for _, pixels in made[at : at + 16]]) for at in range(0, len(made), 16)]
            seen = [encoder.see(stack.to(device)).half().cpu().numpy() for stack in stacks]
            _write(path, np.concatenate(seen) if seen else np.zeros((0, 1, 1), np.float16))
            _write(index_path, np.array([k for k, _ in made], dtype=np.int64))
        rows = np.load(index_path).tolist()
        if rows:
            features = torch.from_numpy(np.load(path, mmap_mode="c"))  # read when it is needed
            for at, k in enumerate(rows):
                views[k] = features[at]
    return views


def _write(path: Path, values: Any) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.save(file, values)
    os.replace(partial, path)
