"""A circuit breaker: after some failures in a row nobody waits for a dead service until a probe finds it alive."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

from stream.errors import StreamError

T = TypeVar("T")
State = Literal["closed", "half_open", "open"]


class CircuitOpen(StreamError):
    """The call was not made: the service failed a moment ago, or another call is finding out."""


class CircuitBreaker:
    """Lets calls through while they succeed (closed), none after `n_failures` failures in a row (open).

    `pause_s` later one call is let through (half-open), whose success closes it and whose failure opens it
    again. It starts half-open, since nothing is known yet. For one event loop.
    """

    def __init__(
        self,
        *,
        failures: tuple[type[BaseException], ...],
        n_failures: int,
        pause_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures = failures
        self._max_failures = n_failures
        self._pause_s = pause_s
        self._clock = clock
        self._n_failures = 0
        self._closed = False
        self._probing = False
        self._opened_s = clock() - pause_s

    @property
    def state(self) -> State:
        """What a call would meet now."""
        if self._closed:
            return "closed"
        return "half_open" if self._probing or self._clock() - self._opened_s >= self._pause_s else "open"

    async def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Call and return what that returns; its failures are counted and raised.

        Raises:
            CircuitOpen: the call was not made.
        """
        if not self._closed and (self._probing or self.state == "open"):
            raise CircuitOpen("the service failed a moment ago: not asked again yet")
        was_closed, self._probing = self._closed, not self._closed
        try:
            result = await function()
        except self._failures:
            self._n_failures += 1
            if not was_closed or self._n_failures >= self._max_failures:
                self._closed, self._opened_s = False, self._clock()
            raise
        finally:
            if not was_closed:
                self._probing = False
        if self._closed or not was_closed:  # a success that began before it opened proves nothing
            self._closed, self._n_failures = True, 0
        return result
