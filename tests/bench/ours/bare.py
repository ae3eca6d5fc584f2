"""The bare job on Sitrep's wire: a Faust app whose agent reads `Intake`'s fetches and sends through `Outbox`."""

from __future__ import annotations

import asyncio
from typing import Any

import faust
import msgspec
from mode import Service

from stream.broker import Broker
from stream.consumer import IntakeConfig
from stream.intake import Fetched, Intake
from stream.outbox import Outbox, Outgoing
from stream.records import encode
from tests.bench.terms import Terms, terms_from_command_line
from workers.channel import DurableChannel
from workers.interpreter import tune_interpreter

_COMMIT_S = 0.5
_MAX_SENDING = 8
_MAX_RECORD_BYTES = 2_097_152


class Incoming(msgspec.Struct, frozen=True):
    """What the job reads of a post."""

    id: str
    text: str
    source: str = "unknown"


class Transformed(msgspec.Struct, frozen=True):
    """What it makes of it."""

    id: str
    source: str
    text: str
    n_words: int


_decode = msgspec.json.Decoder(Incoming).decode


class Wire(Service):  # type: ignore[misc]  # mode is untyped
    """Feeds the agent's channel, delivers what it makes, and commits what is delivered."""

    def __init__(self, terms: Terms, fetched: DurableChannel) -> None:
        super().__init__()
        self._target = terms.target
        self._fetched = fetched
        self._slots = asyncio.Semaphore(_MAX_SENDING)
        self._sending: set[asyncio.Task[None]] = set()
        self._outbox = Outbox(
            broker=Broker(terms.kafka),
            max_batch_bytes=2 * _MAX_RECORD_BYTES,
            request_timeout_s=15,
            publish_timeout_s=60,
        )
        self._intake = Intake(
            IntakeConfig(
                broker=Broker(terms.kafka),
                topic=terms.source,
                group=terms.group,
                instance=terms.group,
                session_timeout_s=10,
                max_stall_s=300,
                request_timeout_s=15,
                drain_timeout_s=15,
                max_in_flight=40_000,
                max_in_flight_bytes=64 * 1_048_576,
                max_record_bytes=_MAX_RECORD_BYTES,
                max_fetch=4_000,
            )
        )

    async def on_start(self) -> None:
        await self._outbox.start()
        await self._intake.start()
        self.add_future(self._fetch())
        self.add_future(self._commit())

    async def on_stop(self) -> None:
        await self._intake.drain()
        await self._intake.stop()
        await self._outbox.stop()

    async def handle(self, fetched: Fetched) -> None:
        """Transform one fetch of one partition; its delivery overlaps with the next."""
        outgoing = [_transform(record) for record in fetched.records]
        await self._slots.acquire()
        task = asyncio.create_task(self._deliver(fetched, outgoing))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _deliver(self, fetched: Fetched, outgoing: list[Outgoing]) -> None:
        try:
            await self._outbox.send(self._target, fetched.partition, outgoing)
            fetched.confirm()
        finally:
            self._slots.release()

    async def _fetch(self) -> None:
        while not self.should_stop:
            for fetched in await self._intake.fetch():
                await self._fetched.put(fetched)

    async def _commit(self) -> None:
        while not self.should_stop:
            await asyncio.sleep(_COMMIT_S)
            await self._intake.commit()


class WireApp(faust.App):  # type: ignore[misc]
    """Starts the wire once the agents run."""

    wire: Wire

    async def on_started(self) -> None:
        """Feed the agents only when they are there."""
        await super().on_started()
        await self.add_runtime_dependency(self.wire)


def _transform(record: Any) -> Outgoing:
    post = _decode(record.value)
    value = encode(Transformed(id=post.id, source=post.source, text=post.text, n_words=post.text.count(" ") + 1))
    return Outgoing(key=record.key, value=value)


def build(terms: Terms) -> faust.App:
    """Return the app; Faust will not start one without a topic of its own."""
    app = WireApp(
        f"{terms.prefix}control",
        broker=f"kafka://{terms.kafka}",
        store="memory://",
        topic_disable_leader=True,
        web_enabled=False,
    )
    fetched = DurableChannel(app, maxsize=4)
    wire = app.wire = Wire(terms, fetched)

    @app.agent(fetched)  # type: ignore[untyped-decorator]
    async def work(stream: Any) -> None:
        async for some in stream:
            await wire.handle(some)

    @app.agent(app.topic(f"{terms.prefix}control", value_serializer="raw"))  # type: ignore[untyped-decorator]
    async def control(stream: Any) -> None:
        async for _ in stream:
            continue

    return app


if __name__ == "__main__":
    app = build(terms_from_command_line())
    tune_interpreter(log_level="warning")
    faust.Worker(app, loglevel="WARNING", quiet=True, redirect_stdouts=False).execute_from_commandline()
