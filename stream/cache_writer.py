"""Keeps the cache whole behind the pipeline's back: bounded buffer, back-off, refill; never blocks a post."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any

import redis.exceptions
import tenacity

from stream.breaker import CircuitBreaker, CircuitOpen
from stream.cache import MAX_WRITE, Entry, FindingCache
from stream.errors import StreamError

log = logging.getLogger(__name__)

REDIS_ERRORS = (redis.exceptions.RedisError, OSError, TimeoutError)

_PROBE_S = 1.0
_REFILL_PAUSE_S = 5.0
_ROOM_S = 2.0


class CacheWriter:
    """Writes findings to Redis in the background.

    While Redis is away findings wait in a bounded buffer; while it is only slower than the pipeline, `room` holds
    the pipeline back a little. When the buffer overflows, or Redis comes back without its data, the cache is
    filled again from the findings topic (`refill`). What waits in a worker that ends is brought by the next one that
    has its partitions (`check_ends`, `bring_missing`). Its calls are the ones that close the breaker again: nobody
    else has to wait for the answer.
    """

    def __init__(
        self,
        cache: FindingCache,
        *,
        breaker: CircuitBreaker,
        max_buffer: int,
        refill: Callable[[], AsyncIterator[Entry]],
        bring_missing: Callable[[Collection[int]], Awaitable[int]],
        on_error: Callable[[], None] = lambda: None,
    ) -> None:
        self._cache = cache
        self._breaker = breaker
        self._max_buffer = max_buffer
        self._refill = refill
        self._bring_missing = bring_missing
        self._on_error = on_error
        self._buffer: list[Entry] = []
        self._writing: list[Entry] = []
        self._wake = asyncio.Event()
        self._unchecked: set[int] = set()
        self._granted = asyncio.Event()
        self._incomplete = False
        self._next_refill_s = 0.0
        self._look_s = 0.0  # when to look again whether Redis still has its data
        self.n_dropped = 0

    def offer(self, entries: Sequence[Entry]) -> None:
        """Take entries to be written; never blocks, never raises."""
        self._buffer.extend(entries)
        n_excess = len(self._buffer) - self._max_buffer
        if n_excess > 0:
            del self._buffer[:n_excess]
            self._incomplete = True
            self.n_dropped += n_excess
        self._wake.set()

    def check_ends(self, partitions: Collection[int]) -> None:
        """Have `run_checks` bring what Redis lacks of these partitions' last outcomes; never blocks, never raises."""
        self._unchecked.update(partitions)
        self._granted.set()

    async def room(self) -> None:
        """Wait until half the buffer is free, at most a moment, and not at all for a Redis that does not answer.

        Findings that overflow cost a reading of the whole topic; a pipeline that catches up would never end it.
        """
        deadline_s = asyncio.get_running_loop().time() + _ROOM_S
        while len(self._buffer) > self._max_buffer // 2 and self.available:
            if asyncio.get_running_loop().time() > deadline_s:
                return
            await asyncio.sleep(0.005)

    @property
    def available(self) -> bool:
        """Whether Redis answers, and so is worth asking."""
        return self._breaker.state == "closed"

    @property
    def n_buffered(self) -> int:
        """Findings and alerts that wait for Redis."""
        return len(self._buffer) + len(self._writing)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            if asyncio.get_running_loop().time() >= self._look_s:
                await self._until_answered(self._make_whole)
                self._look_s = asyncio.get_running_loop().time() + _PROBE_S
            self._wake.clear()
            if self.n_buffered:
                await self._until_answered(self._write_some)
                continue
            try:
                await asyncio.wait_for(self._wake.wait(), _PROBE_S)
            except TimeoutError:
                await self._until_answered(self._cache.ping)

    async def run_checks(self) -> None:
        """Look at the ends of partitions until cancelled; a partition without a leader must not hold up the writing."""
        while True:
            await self._granted.wait()
            self._granted.clear()
            partitions, self._unchecked = self._unchecked, set()
            try:
                await self._until_answered(partial(self._check, partitions))
            except StreamError as error:  # the broker is away
                log.warning("the ends of the findings topic could not be looked at, tried again later: %s", error)
                await asyncio.sleep(_REFILL_PAUSE_S)
                self.check_ends(partitions)

    async def flush(self, timeout_s: float) -> bool:
        """Wait until the buffer is written, at most `timeout_s`; True when it is empty."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self.n_buffered and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        return not self.n_buffered

    async def _check(self, partitions: Collection[int]) -> None:
        n_brought = await self._bring_missing(partitions)
        if n_brought:
            log.info("%d findings and alerts that a worker left behind are in the cache now", n_brought)

    async def _write_some(self) -> None:
        if self._incomplete:  # should this worker end before it has filled the cache, the next one sees it
            await self._cache.mark_incomplete()
        n_more = MAX_WRITE - len(self._writing)
        self._writing += self._buffer[:n_more]
        del self._buffer[:n_more]
        await self._cache.store(self._writing)
        self._writing = []

    async def _make_whole(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s < self._next_refill_s or (not self._incomplete and await self._cache.is_whole()):
            return
        log.info("filling the cache from the findings topic")
        self._incomplete = True
        n_dropped = self.n_dropped
        try:
            n_findings, n_alerts = await fill(self._cache, self._refill(), meanwhile=self._write_some)
        except StreamError as error:  # the broker is away: fresh findings do not wait for it
            log.warning("the cache could not be filled, tried again later: %s", error)
            self._next_refill_s = asyncio.get_running_loop().time() + _REFILL_PAUSE_S
            return
        # what was dropped meanwhile may have come to the topic after it was read
        self._incomplete = self.n_dropped != n_dropped
        log.info("the cache is whole: %d findings and %d alerts written", n_findings, n_alerts)

    async def _until_answered(self, call: Callable[[], Awaitable[None]]) -> None:
        """Call until Redis answered; a ping closes the breaker first, since a call may take as long as a filling."""
        async for attempt in tenacity.AsyncRetrying(
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=5),
            retry=tenacity.retry_if_exception_type((*REDIS_ERRORS, CircuitOpen)),
            before_sleep=self._note_outage,
        ):
            with attempt:
                was_available = self.available
                if not was_available:
                    await self._breaker.call(self._cache.reconnect)
                await self._breaker.call(call)
                if not was_available:
                    log.info("Redis answers")

    def _note_outage(self, state: tenacity.RetryCallState) -> None:
        error: Any = state.outcome.exception() if state.outcome is not None else None
        if isinstance(error, CircuitOpen):
            return
        if state.attempt_number == 1:
            log.warning("Redis is away, findings wait: %s", error)
        self._look_s = 0.0
        self._on_error()


async def fill(
    cache: FindingCache,
    entries: AsyncIterator[Entry],
    *,
    meanwhile: Callable[[], Awaitable[None]] | None = None,
) -> tuple[int, int]:
    """Write the entries that are not past their time into the cache, mark it whole, and return how many it took.

    That is the findings, then the alerts. `meanwhile` is called now and then, so that a long filling does not hold
    up what is new.
    """
    n_findings = n_alerts = 0
    async for some in _in_writes(entries):
        written = await cache.restore(some)
        n_alerts += sum(one.label is None for one in written)
        n_findings += sum(one.label is not None for one in written)
        if meanwhile is not None:
            await meanwhile()
    await cache.mark_whole()
    return n_findings, n_alerts


async def _in_writes(entries: AsyncIterator[Entry]) -> AsyncIterator[list[Entry]]:
    some: list[Entry] = []
    async for entry in entries:
        some.append(entry)
        if len(some) == MAX_WRITE:
            yield some
            some = []
    yield some
