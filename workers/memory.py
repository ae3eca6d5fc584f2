"""Remembers the record that each recent post first came in, in a fixed amount of memory; asks nobody else."""

from __future__ import annotations

import secrets
from array import array
from collections.abc import Collection
from typing import Final

from stream.records import Origin

_NOWHERE: Final = -1


class PostMemory:
    """The first records of the last `max_posts` posts, by a key of each; the oldest make room for new ones.

    All of it is taken, and written to, at the start: a post costs 40 bytes and 8 to 16 more of the index, whatever
    its id and content, and a full memory is no larger than an empty one. Ids are kept as 128-bit digests: Python's own
    hash of them (SipHash, 64 bits), twice, each behind a secret, so that nobody can make two of them the same.
    """

    def __init__(self, topic: str, *, max_posts: int) -> None:
        self._topic = topic
        self._secrets = secrets.token_hex(8), secrets.token_hex(8)
        # a ring of posts in order of arrival, its next place free; `_partitions` holds _NOWHERE where there is no post
        self._n_places = max_posts + 1
        self._digests = array("q", [0]) * self._n_places, array("q", [0]) * self._n_places
        self._partitions = array("i", [_NOWHERE]) * self._n_places
        self._offsets = array("q", [_NOWHERE]) * self._n_places
        self._content_hashes = array("q", [_NOWHERE]) * self._n_places
        self._cell_of = array("i", [_NOWHERE]) * self._n_places
        self._next = 0
        # open addressing with linear probing: digest to place in the ring; never more than half full
        n_cells = 1 << (2 * self._n_places - 1).bit_length()
        self._cells = array("i", [_NOWHERE]) * n_cells
        self._mask = n_cells - 1

    @property
    def size_bytes(self) -> int:
        """What it takes, from the first post to the last."""
        arrays = (
            *self._digests,
            self._partitions,
            self._offsets,
            self._content_hashes,
            self._cell_of,
            self._cells,
        )
        return sum(len(one) * one.itemsize for one in arrays)

    def first(self, key: str, origin: Origin, content_hash: int) -> tuple[Origin, int] | None:
        """Return where the post first came in and the hash of its content then; None, and remember, if it is new."""
        low, high = self._digest(key)
        cell = self._find(low, high)
        place = self._cells[cell]
        if place != _NOWHERE:
            return self._origin(place), self._content_hashes[place]
        self._add(low, high, cell, origin, content_hash)
        return None

    def replace(self, key: str, origin: Origin, content_hash: int) -> None:
        """Remember another record as the post's first."""
        low, high = self._digest(key)
        cell = self._find(low, high)
        place = self._cells[cell]
        if place == _NOWHERE:
            self._add(low, high, cell, origin, content_hash)
        else:
            self._write(place, origin, content_hash)

    def forget(self, key: str, origin: Origin) -> None:
        """Forget the post if this is the record that it first came in."""
        place = self._cells[self._find(*self._digest(key))]
        if place != _NOWHERE and self._origin(place) == origin:
            self._free(place)

    def forget_partitions(self, lost: Collection[tuple[str, int]]) -> None:
        """Forget the posts that came in the partitions."""
        numbers = {partition for topic, partition in lost if topic == self._topic}
        for place, partition in enumerate(self._partitions):
            if partition in numbers:
                self._free(place)

    def _digest(self, key: str) -> tuple[int, int]:
        before_low, before_high = self._secrets
        return hash(before_low + key), hash(before_high + key)

    def _origin(self, place: int) -> Origin:
        return Origin(topic=self._topic, partition=self._partitions[place], offset=self._offsets[place])

    def _find(self, low: int, high: int) -> int:
        """Return the cell of the digest, or the empty one where it belongs."""
        cells, mask, (lows, highs) = self._cells, self._mask, self._digests
        cell = low & mask
        while (place := cells[cell]) != _NOWHERE and (lows[place] != low or highs[place] != high):
            cell = (cell + 1) & mask
        return cell

    def _add(self, low: int, high: int, cell: int, origin: Origin, content_hash: int) -> None:
        place = self._next
        self._next = following = (place + 1) % self._n_places
        self._cells[cell], self._cell_of[place] = place, cell
        lows, highs = self._digests
        lows[place], highs[place] = low, high
        self._write(place, origin, content_hash)
        if self._partitions[following] != _NOWHERE:
            self._free(following)

    def _write(self, place: int, origin: Origin, content_hash: int) -> None:
        if origin.topic != self._topic:  # there is no room for the names of others; Redis told of it, and will again
            self._free(place)
            return
        self._partitions[place] = origin.partition
        self._offsets[place] = origin.offset
        self._content_hashes[place] = content_hash

    def _free(self, place: int) -> None:
        """Empty a place of the ring and its cell, and move up the cells that were only there because it was taken."""
        cells, mask, lows = self._cells, self._mask, self._digests[0]
        gap = cell = self._cell_of[place]
        self._partitions[place] = _NOWHERE
        while (other := cells[cell := (cell + 1) & mask]) != _NOWHERE:
            if (cell - lows[other]) & mask >= (cell - gap) & mask:
                cells[gap] = other
                self._cell_of[other] = gap
                gap = cell
        cells[gap] = _NOWHERE
