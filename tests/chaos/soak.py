"""A long run at four fifths of capacity: memory and open files stay flat, and the lag stays small."""

from __future__ import annotations

import asyncio
import io
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from PIL import Image as Pillow

from stream.records import Image, Post, encode
from tests.chaos.arena import Arena, Row, check, make_row
from tests.chaos.field import Field, Raw

_CLASSIFIER = "sleep:0.0025"
_LOAD = 0.8


class SoakReport(msgspec.Struct, kw_only=True):
    """What the worker used over the second half of a soak, when its bounded memories are full."""

    broker: str
    redis: str
    seconds: float
    posts: int
    capacity_posts_per_s: float
    fed_posts_per_s: float
    rss_mib: float
    rss_slope_mib_per_h: float
    rss_mib_by_tenth: list[float]
    open_files: float
    open_files_slope_per_h: float
    max_lag_posts: int
    latency_p50_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    at_s: float
    rss_bytes: int
    n_open_files: int
    lag: int


async def soak(arena: Arena) -> Row:
    """Feed good posts, pictures, duplicates and broken records at 80% of what the worker can do."""
    seconds = arena.pick(arena.soak_s, 60.0)
    async with arena.field("soak", max_in_flight=1_000) as field:
        capacity = await _capacity(field, n_posts=arena.pick(5_000, 2_000))
        worker, per_s = field.workers[0], _LOAD * capacity
        samples: list[_Sample] = []
        async with field.flowing(_mix(int(per_s * seconds), "soak"), per_s=per_s) as feeding:
            start = time.monotonic()
            while not feeding.done():
                await asyncio.sleep(seconds / 200)
                samples.append(
                    _Sample(
                        at_s=time.monotonic() - start,
                        rss_bytes=worker.rss_bytes(),
                        n_open_files=worker.n_open_files(),
                        lag=await field.lag(),
                    )
                )
            n_fed = await feeding
        recovery_s = await field.settled(60)
        assert worker.is_alive, worker.log()
        ledger = await field.ledger()
        latency_p50_s = _median_latency_s(worker.metrics())
    check(ledger, posts=n_fed)
    assert ledger.dead_letters > 0 and ledger.duplicates > 0, ledger.summary()
    report = _report(samples, arena, capacity=capacity, per_s=per_s, posts=n_fed, p50=latency_p50_s)
    print(report, flush=True)
    assert report.max_lag_posts < 10 * per_s, f"the lag is not bounded: {report}"
    if not arena.short:
        assert report.rss_slope_mib_per_h * seconds / 2 / 3600 < 0.05 * report.rss_mib, f"memory grows: {report}"
        assert abs(report.open_files_slope_per_h) * seconds / 2 / 3600 < 3, f"open files grow: {report}"
        write_report(report, arena.results)
    fault = f"soak of {seconds:g} s at {_LOAD:.0%} of capacity"
    return make_row(fault, arena.broker.name, ledger, recovery_s=recovery_s)


def write_report(report: SoakReport, folder: Path) -> None:
    """Keep the report beside the table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "soak.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


async def _capacity(field: Field, *, n_posts: int) -> float:
    """Return the posts that a worker handles in a second when there are always some waiting."""
    n_fed = await field.feed(_mix(n_posts, "capacity"))
    field.worker(classifier=_CLASSIFIER)
    first = sum((await field.committed()).values())
    start = time.monotonic()
    await field.settled(120)
    return (n_fed - first) / (time.monotonic() - start)


def _mix(n_posts: int, word: str) -> Iterator[Raw]:
    """Yield posts of every kind: one in 20 with a picture, one in 50 a duplicate, one in 100 broken."""
    picture = io.BytesIO()
    Pillow.effect_noise((160, 120), 60).convert("RGB").save(picture, "JPEG")
    images = [Image(data=picture.getvalue())]
    for number in range(n_posts):
        if number % 100 == 99:
            yield Raw(key=f"{word}-{number}".encode(), value=b'{"id": 7}')
            continue
        number -= number % 50 == 49  # the post before, once more
        post = Post(
            id=f"{word}-{number:07}",
            text=f"[damage] bridge down, number {number}" if number % 1_000 == 0 else f"bridge number {number}",
            images=images if number % 20 == 0 else [],
        )
        yield Raw(key=post.id.encode(), value=encode(post))


def _report(
    samples: list[_Sample], arena: Arena, *, capacity: float, per_s: float, posts: int, p50: float
) -> SoakReport:
    late = samples[len(samples) // 2 :]
    at_h = [sample.at_s / 3600 for sample in late]
    rss_mib = [sample.rss_bytes / 1_048_576 for sample in late]
    files = [float(sample.n_open_files) for sample in late]
    return SoakReport(
        broker=arena.broker.name,
        redis=arena.redis.name,
        seconds=round(samples[-1].at_s, 1),
        posts=posts,
        capacity_posts_per_s=round(capacity, 1),
        fed_posts_per_s=round(per_s, 1),
        rss_mib=round(statistics.fmean(rss_mib), 1),
        rss_slope_mib_per_h=round(statistics.linear_regression(at_h, rss_mib).slope, 2),
        rss_mib_by_tenth=[round(one.rss_bytes / 1_048_576, 1) for one in samples[:: max(1, len(samples) // 10)]],
        open_files=round(statistics.fmean(files), 1),
        open_files_slope_per_h=round(statistics.linear_regression(at_h, files).slope, 2),
        max_lag_posts=max(sample.lag for sample in samples),
        latency_p50_s=p50,
    )


def _median_latency_s(metrics: dict[str, float]) -> float:
    """Return the upper bound of the histogram's bucket that holds the median."""
    prefix = "sitrep_end_to_end_latency_seconds_bucket{le="
    buckets = sorted((float(name[len(prefix) : -1]), n) for name, n in metrics.items() if name.startswith(prefix))
    return next(bound for bound, n in buckets if n >= buckets[-1][1] / 2)
