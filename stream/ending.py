"""Ends tasks that run until they are cancelled, also one that misses its cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

_AGAIN_S: Final = 3.0  # longer than a task that was cancelled takes to close what it opened


async def end_tasks(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel the tasks and return when all have ended, in whatever way.

    A cancellation can get lost: aiokafka's `stop` takes it for that of a task of its own, and Python 3.11's
    `asyncio.wait_for` gives its answer instead where both come at once (bpo-42130). Such a task goes on; it is
    cancelled again.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_AGAIN_S)
