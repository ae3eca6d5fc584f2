"""Starts aiokafka's clients so that an interrupted start leaves nothing connected."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

_FINISH_S: Final = 2.0


class Startable(Protocol):
    """A consumer, producer or admin client of aiokafka."""

    def start(self) -> Any:
        """Connect."""


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
        if not starting.done():
            await asyncio.wait([starting], timeout=_FINISH_S)
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
