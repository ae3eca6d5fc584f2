"""Starts and stops aiokafka's clients so that one which is interrupted leaves nothing connected."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

_FINISH_S: Final = 2.0


class Startable(Protocol):
    """A consumer, producer or admin client of aiokafka."""

    def start(self) -> Any:
        """Connect."""


class Stoppable(Protocol):
    """A consumer or producer of aiokafka."""

    def stop(self) -> Any:
        """Close the connections."""


async def start_client(client: Startable, timeout_s: float | None = None) -> None:
    """Start the client; a start that is interrupted or late is let end first, for a moment.

    aiokafka forgets the connection over which it asks for the cluster when it is cancelled meanwhile: nothing that
    stops the client would close it.

    Raises:
        TimeoutError: it did not start in time.
        KafkaError, OSError: what the client raises.
    """
    starting = asyncio.ensure_future(client.start())
    try:
        await asyncio.wait_for(asyncio.shield(starting), timeout_s)
    finally:
        await _finished(starting)


async def stop_client(client: Stoppable) -> None:
    """Stop the client; a stop that is interrupted is let end first, for a moment.

    aiokafka takes a cancellation meanwhile for one of its own tasks', and goes on as if there had been none, or it
    leaves connections open.
    """
    stopping = asyncio.ensure_future(client.stop())
    try:
        await asyncio.shield(stopping)
    finally:
        await _finished(stopping)


async def _finished(doing: asyncio.Future[Any]) -> None:
    """Let it end by itself, for a moment, then by force; its error is nobody's any more."""
    if not doing.done():
        await asyncio.wait([doing], timeout=_FINISH_S)
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)
