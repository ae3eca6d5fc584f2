"""How many posts a micro-batch may hold so that latency stays on target; learns from what batches took."""

from __future__ import annotations

from typing import Final

_NEWEST_SHARE: Final = 0.3
# a post that need not queue waits for the batch that runs and the one that is ready, then for its own
_BATCHES_WAITED_FOR: Final = 3


class Pace:
    """Batch sizes by kind of post; a kind never measured may fill a batch."""

    def __init__(self, *, max_batch: int, target_latency_s: float) -> None:
        self._max_batch = max_batch
        self._budget_s = target_latency_s / _BATCHES_WAITED_FOR
        self._per_post_s: dict[str, float] = {}

    def size(self, kind: str) -> int:
        """Return the size of the next batch of a kind, 1 at least."""
        per_post_s = self._per_post_s.get(kind)
        if per_post_s is None or per_post_s * self._max_batch <= self._budget_s:
            return self._max_batch
        return max(1, int(self._budget_s / per_post_s))

    def observe(self, kind: str, n_posts: int, compute_s: float) -> None:
        """Take in how long a batch took.

        What a batch costs whatever its size counts as its posts', so small batches look dear and the size
        grows step by step to what fits.
        """
        per_post_s = compute_s / n_posts
        known_s = self._per_post_s.get(kind, per_post_s)
        self._per_post_s[kind] = known_s + _NEWEST_SHARE * (per_post_s - known_s)
