"""What a worker says of itself on its pages, sampled over a run; the rates are never taken from here."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

_SAMPLE_S = 0.5


def metrics_of(web_port: int) -> dict[str, float]:
    """Return the worker's metrics, by name and labels: `name{label=value}`; blocks."""
    with urllib.request.urlopen(f"http://127.0.0.1:{web_port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def is_ready(web_port: int) -> bool:
    """Return whether the worker says that it is ready; blocks."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{web_port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


async def until_ready(web_port: int, timeout_s: float = 60.0) -> None:
    """Return once the worker is ready."""
    deadline_s = time.monotonic() + timeout_s
    while not await asyncio.to_thread(is_ready, web_port):
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"the worker is not ready after {timeout_s:g} s")
        await asyncio.sleep(0.1)


@dataclass(slots=True, kw_only=True)
class Samples:
    """A worker's metrics at moments of a run, in seconds of the monotonic clock."""

    web_port: int
    taken: list[tuple[float, Mapping[str, float]]] = field(default_factory=list)

    async def run(self) -> None:
        """Sample until cancelled; a worker that does not answer yet is asked again."""
        while True:
            try:
                values = await asyncio.to_thread(metrics_of, self.web_port)
            except OSError:
                values = {}
            if values.get("sitrep_batch_size_posts_count"):
                self.taken.append((time.monotonic(), values))
            await asyncio.sleep(_SAMPLE_S)

    def per_second(self, name: str) -> float:
        """Return how fast a counter grew between the first sample with a batch and the last."""
        if len(self.taken) < 2:
            return float("nan")
        (start_s, first), (end_s, last) = self.taken[0], self.taken[-1]
        return (last.get(name, 0.0) - first.get(name, 0.0)) / (end_s - start_s)

    def mean(self, name: str, labels: str = "") -> float:
        """Return the mean of a histogram, up to the last sample."""
        if not self.taken:
            return float("nan")
        _, last = self.taken[-1]
        n = last.get(f"{name}_count{labels}", 0.0)
        return last.get(f"{name}_sum{labels}", 0.0) / n if n else float("nan")
