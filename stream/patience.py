"""Keeps our consumers from spinning on a broker that answers empty fetches at once; Kafka itself is not affected."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from typing import Any, Final

from aiokafka.consumer.fetcher import Fetcher

_AT_ONCE_S: Final = 0.01  # Kafka holds an empty fetch for `fetch_max_wait_ms`, half a second
_REST_S: Final = 0.02


def rest_between_empty_fetches() -> None:
    """Have every aiokafka consumer of this process wait a moment after an empty answer that came at once.

    The embedded broker knows no long poll: each idle consumer, Faust's own too, asks thousands of times a
    second, and what it burns of the interpreter's lock slows the classifier down several times. Idempotent.
    """
    if getattr(Fetcher._proc_fetch_request, "rests", False):
        return
    ask = Fetcher._proc_fetch_request

    @functools.wraps(ask)
    async def ask_and_rest(self: Any, *args: Any) -> Any:
        start_s = time.monotonic()
        has_records = await ask(self, *args)
        if not has_records and time.monotonic() - start_s < _AT_ONCE_S:
            with contextlib.suppress(asyncio.CancelledError):  # as `ask` does: aiokafka cancels it on a rebalance
                await asyncio.sleep(_REST_S)
        return has_records

    ask_and_rest.rests = True  # type: ignore[attr-defined]
    Fetcher._proc_fetch_request = ask_and_rest
