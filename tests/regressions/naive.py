"""Faust used the documented way, each case losing, hanging or misreporting by itself; never used by the product.

`python -m tests.regressions.naive CASE --kafka HOST:PORT --prefix PREFIX --notes FILE` runs one worker. It
notes each event that its agent's body has done with, as a line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faust
import msgspec

Note = Callable[..., None]


def take_raises(app: faust.App, topic: Any, note: Note) -> None:
    """The body raises on its second batch; Faust restarts the agent."""
    calls = iter(range(1_000))

    @app.agent(topic)
    async def body(stream: Any) -> None:
        async for values in stream.take(5, within=0.2):
            if next(calls) == 1:
                raise RuntimeError("one bad post")
            note(*map(_post_id, values))


def take_raises_and_is_awaited(app: faust.App, topic: Any, note: Note) -> None:
    """The first batch raises, and the app's error handler takes a second to report it."""
    calls = iter(range(1_000))

    async def report(agent: Any, error: BaseException) -> None:
        await asyncio.sleep(1.0)

    app._on_agent_error = report

    @app.agent(topic)
    async def body(stream: Any) -> None:
        async for values in stream.take(5, within=0.2):
            if next(calls) == 0:
                raise RuntimeError("one bad post")
            note(*map(_post_id, values))


def take_in_a_variable(app: faust.App, topic: Any, note: Note) -> None:
    """The generator is kept in a variable, and the body raises once."""
    calls = iter(range(1_000))

    @app.agent(topic)
    async def body(stream: Any) -> None:
        batches = stream.take(5, within=0.2)
        async for values in batches:
            if next(calls) == 0:
                raise RuntimeError("one bad post")
            note(*map(_post_id, values))


def take_decodes(app: faust.App, topic: Any, note: Note) -> None:
    """Faust decodes the values, one of which is not JSON."""
    decoded = app.topic(topic.topics[0], value_serializer="json", value_type=dict)

    @app.agent(decoded)
    async def body(stream: Any) -> None:
        async for values in stream.take(5, within=0.2):
            note(*(value["id"] for value in values))


def acked_out_of_order(app: faust.App, topic: Any, note: Note) -> None:
    """The first event stays in flight while those after it are done and acknowledged."""
    held = []

    @app.agent(topic)
    async def body(stream: Any) -> None:
        async for event in stream.noack().events():
            if event.message.offset == 0:
                held.append(event)
            else:
                note(_post_id(event.value))
                event.ack()


def never_acked(app: faust.App, topic: Any, note: Note) -> None:
    """Every event stays in flight."""
    held = []

    @app.agent(topic)
    async def body(stream: Any) -> None:
        async for event in stream.noack().events():
            held.append(event)
            note(_post_id(event.value))


def sent_without_delivery(app: faust.App, topic: Any, note: Note) -> None:
    """The outcome is sent with `await topic.send()`, to a topic that refuses some of them for their size."""
    small = app.topic(topic.topics[0].replace("posts", "small"), value_serializer="raw")

    @app.agent(topic)
    async def body(stream: Any) -> None:
        async for value in stream:
            delivery = await small.send(value=value)
            note(_post_id(value), delivery.done())


def blocked_loop(app: faust.App, topic: Any, note: Note) -> None:
    """The classifier computes in the agent's body; what the event loop misses meanwhile is noted."""

    @app.task
    async def watch() -> None:
        while True:
            start = time.monotonic()
            await asyncio.sleep(0.05)
            note(time.monotonic() - start)

    @app.agent(topic)
    async def body(stream: Any) -> None:
        async for _ in stream:
            time.sleep(1.5)  # noqa: ASYNC251 - the defect to be shown


def slow_body(app: faust.App, topic: Any, note: Note) -> None:
    """The body is slow; what Faust has taken in meanwhile is noted."""

    @app.agent(topic)
    async def body(stream: Any) -> None:
        async for _ in stream:
            await asyncio.sleep(0.5)
            note(stream.channel.queue.qsize())


def monitored_take(app: faust.App, topic: Any, note: Note) -> None:
    """Everything is handled in batches; what Faust's monitor says of it is noted."""

    @app.agent(topic)
    async def body(stream: Any) -> None:
        async for values in stream.take(5, within=0.2):
            note("handled", *map(_post_id, values))

    @app.timer(0.2)
    async def watch() -> None:
        monitor = app.monitor
        note("monitor", monitor.messages_received_total, monitor.events_active, len(monitor.events_runtime))


def take_now_and_then(app: faust.App, topic: Any, note: Note) -> None:
    """Posts come one by one; the size of each batch is noted, and when it came."""

    @app.agent(topic)
    async def body(stream: Any) -> None:
        async for values in stream.take(10, within=2.0):
            note(len(values), time.time())


def take_within_long(app: faust.App, topic: Any, note: Note) -> None:
    """A batch may take half a minute to fill."""

    @app.agent(topic)
    async def body(stream: Any) -> None:
        async for values in stream.take(1_000, within=30):
            note(*map(_post_id, values))


CASES = {
    case.__name__.replace("_", "-"): case
    for case in (
        take_raises, take_raises_and_is_awaited, take_in_a_variable, take_decodes, acked_out_of_order, never_acked,
        sent_without_delivery, blocked_loop, slow_body, monitored_take,
        take_now_and_then, take_within_long,
    )
}  # fmt: skip


def naive_app(*, kafka: str, group: str, web_port: int = 0) -> faust.App:
    """Return an app with Faust's defaults, but for what makes it quick to watch."""
    return faust.App(
        group,
        broker=f"kafka://{kafka}",
        store="memory://",
        topic_disable_leader=True,
        topic_allow_declare=False,
        broker_commit_interval=0.1,
        web_enabled=web_port > 0,
        web_port=web_port or 6066,
        web_host="127.0.0.1",
        web_bind="127.0.0.1",
    )


def _post_id(value: bytes) -> str:
    return str(msgspec.json.decode(value)["id"])


def main() -> None:
    """Run one case until a signal comes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("--kafka", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--notes", type=Path, required=True)
    parser.add_argument("--web-port", type=int, default=0)
    args = parser.parse_args()
    app = naive_app(kafka=args.kafka, group=f"{args.prefix}naive", web_port=args.web_port)
    app._create_directories = lambda: None  # Faust's folders for tables
    topic = app.topic(f"{args.prefix}posts", value_serializer="raw")
    with args.notes.open("ab") as notes:

        def note(*values: Any) -> None:
            notes.write(msgspec.json.encode(values) + b"\n")
            notes.flush()

        CASES[args.case](app, topic, note)
        faust.Worker(app, loglevel="INFO", redirect_stdouts=False, quiet=True).execute_from_commandline()


if __name__ == "__main__":
    main()
