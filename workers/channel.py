"""A Faust channel whose buffer survives rebalances of Faust's own consumer.

Faust clears the buffers of plain channels when its consumer rebalances; what was in them would
stay unacknowledged for good. This channel's buffer is under no such control, and it is bounded.
"""

from __future__ import annotations

from typing import Any

import faust
from mode.utils.queues import FlowControlEvent, ThrowableQueue


class DurableChannel(faust.Channel):  # type: ignore[misc]  # Faust is untyped
    """An in-memory channel; `put` blocks while the buffer is full."""

    _queue: ThrowableQueue | None

    @property
    def queue(self) -> ThrowableQueue:
        """The buffer, made at the first use inside the running loop."""
        if self._queue is None:
            flow: Any = FlowControlEvent(initially_suspended=False)
            flow.resume()
            self._queue = ThrowableQueue(maxsize=self.maxsize, flow_control=flow, clear_on_resume=False)
        return self._queue
