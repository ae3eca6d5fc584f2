"""Outcomes that the broker does not take, or takes without the worker learning of it."""

from __future__ import annotations

import asyncio
from collections import Counter

from stream.broker import Broker
from stream.headers import REASON, VALUE_OMITTED, first_header
from stream.reader import read_topic
from stream.records import Post, encode
from tests.chaos.arena import Arena, Row, check, make_row
from tests.chaos.field import Field, Raw, numbered
from tests.chaos.proxy import Weather

_PER_S = 150.0


async def answers_lost(arena: Arena) -> Row:
    """The broker takes in findings, but its confirmations are lost and the connections break."""
    n_runs = arena.pick(10, 2)
    recovery_s = 0.0
    with arena.proxies("answers", arena.kafka_port) as [kafka]:
        async with arena.field("answers", max_batch=16) as field:
            worker = field.worker(classifier="sleep:0.004", via=kafka.route)
            async with field.flow(int(_PER_S * n_runs * 2.5), per_s=_PER_S) as feeding:
                for _ in range(n_runs):
                    await asyncio.sleep(1.0)
                    kafka.weather = Weather(answers_lost=True)
                    await asyncio.sleep(0.5)
                    kafka.weather = Weather()
                    assert kafka.reset() > 0
                    recovery_s = max(recovery_s, await field.recovery_s())
                n_posts = await feeding
            await field.settled(60)
            assert worker.is_alive, worker.log()
            assert await field.committed_without_outcome() == 0
            assert kafka.n_answers_lost >= n_runs, "no answer was lost"
            ledger = await field.ledger()
    check(ledger, posts=n_posts)
    fault = "confirmations lost between inference and acknowledgement"
    return make_row(fault, arena.broker.name, ledger, recovery_s=recovery_s, runs=n_runs)


async def producer_gives_up(arena: Arena) -> Row:
    """Findings cannot be delivered for longer than the worker tries: it exits unconfirmed, and is started again."""
    n_runs = arena.pick(3, 1)
    recovery_s = 0.0
    flags = {"publish_timeout_s": 2, "request_timeout_s": 2, "drain_timeout_s": 1}
    with arena.proxies("gives-up", arena.kafka_port) as [kafka]:
        async with arena.field("gives-up", max_batch=16, **flags) as field:
            worker = field.worker(classifier="sleep:0.004", via=kafka.route)
            async with field.flow(n_runs * 2_000, per_s=_PER_S) as feeding:
                for _ in range(n_runs):
                    await asyncio.sleep(1.0)
                    assert await field.lag() > 0, "nothing was between inference and acknowledgement"
                    kafka.weather = Weather(is_cut=True)
                    assert await asyncio.to_thread(worker.wait, 45) == 1, worker.log()
                    kafka.weather = Weather()
                    worker = field.worker(classifier="sleep:0.004", via=kafka.route, ready=False)
                    recovery_s = max(recovery_s, await field.recovery_s())
                n_posts = await feeding
            await field.settled(60)
            assert await field.committed_without_outcome() == 0
            ledger = await field.ledger()
    check(ledger, posts=n_posts)
    fault = "producer fails for good, worker started again"
    return make_row(fault, arena.broker.name, ledger, recovery_s=recovery_s, runs=n_runs)


async def record_too_large(arena: Arena) -> Row:
    """A post is over the limit, its dead letter too, or its finding is over the limit of its topic."""
    n_each = arena.pick(20, 3)
    async with arena.field("large", max_batch=16, max_record_bytes=20_000, findings_bytes=6_000) as field:
        worker = field.worker()
        largest = field.topics.posts.max_message_bytes - 300  # fits the topic, but not with a dead letter's headers
        texts = {"record": 30_000, "letter": largest, "finding": 8_000}
        records = numbered(50 * n_each)
        for number in range(n_each):
            for kind, n_chars in texts.items():
                post_id = f"large-{kind}-{number}"
                frame = len(encode(Post(id=post_id, text="")))
                post = Post(id=post_id, text="x" * (n_chars - frame))
                records.insert(50 * number, Raw(key=post_id.encode(), value=encode(post)))
        n_fed = await field.feed(records)
        recovery_s = await field.settled(60)
        assert worker.is_alive, worker.log()
        ledger = await field.ledger()
        reasons, n_pointers = await _reasons(field)
    check(ledger, posts=n_fed)
    assert reasons == {"record_too_large": 2 * n_each, "finding_too_large": n_each}, reasons
    assert n_pointers == n_each, n_pointers
    return make_row("record too large", arena.broker.name, ledger, recovery_s=recovery_s, runs=n_each)


async def _reasons(field: Field) -> tuple[dict[str, int], int]:
    """Return how many dead letters there are by reason, and how many of them are without their bytes."""
    reasons: Counter[str] = Counter()
    n_pointers = 0
    async for record in read_topic(Broker(field.kafka), field.topics.dead_letters.name):
        reasons[first_header(record.headers, REASON) or "none"] += 1
        n_pointers += first_header(record.headers, VALUE_OMITTED) is not None
    return dict(reasons), n_pointers
