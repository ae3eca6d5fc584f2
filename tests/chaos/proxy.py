"""A TCP proxy that behaves like a bad network, in a thread of its own; it knows no protocol, Kafka's or Redis'.

Loss is modelled where a proxy can: TCP never loses bytes, it brings them late or breaks. So a lost piece
comes after a retransmission's wait, holding up all that follow it, and one in twenty breaks its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
_Pieces = asyncio.Queue[tuple[float, bytes]]  # each with the time when it is due, by the loop's clock

_PIECE_BYTES = 65_536
_RETRANSMISSION_S = (0.2, 0.8)
_BREAKS = 0.05
_MAX_QUEUED = 64
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What the network does to each direction of every connection, new ones too."""

    delay_s: float = 0.0
    loss: float = 0.0
    is_cut: bool = False  # nothing passes and nothing is closed; what was on its way arrives afterwards
    answers_lost: bool = False  # requests arrive, answers vanish: until `reset`, since the rest makes no sense


class Proxy:
    """Listens on a free loopback port and leads to another; assign `weather` at any time, from any thread."""

    def __init__(self, target_port: int, *, chance: random.Random) -> None:
        self.target_port = target_port
        self.weather = Weather()
        self.n_resets = 0
        self.n_answers_lost = 0
        self._chance = chance
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def route(self) -> dict[int, int]:
        """What a worker is told so that it comes through here."""
        return {self.target_port: self.port}

    def freeze(self) -> int:
        """Make today's connections half-open: silent for good, never closed; return how many."""
        return self._run(self._freeze())

    def reset(self) -> int:
        """Break today's connections with a reset on both sides; return how many."""
        return self._run(self._reset())

    def stop(self) -> None:
        """Close everything and end the thread."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _freeze(self) -> int:
        for link in self._links:
            link.is_frozen = True
        return len(self._links)

    async def _reset(self) -> int:
        n_links = len(self._links)
        for link in tuple(self._links):
            link.reset()
        return n_links

    async def _close(self) -> None:
        self._server.close()
        for link in tuple(self._links):
            link.reset()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the loop's next round

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        link = _Link([writer])
        self._links.add(link)
        try:
            while self.weather.is_cut:
                await asyncio.sleep(_LOOK_S)
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
            link.writers.append(there_writer)
            requests: _Pieces = asyncio.Queue(_MAX_QUEUED)
            answers: _Pieces = asyncio.Queue(_MAX_QUEUED)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._receive(reader, requests))
                pumps.create_task(self._send(link, requests, there_writer, are_answers=False))
                pumps.create_task(self._receive(there_reader, answers))
                pumps.create_task(self._send(link, answers, writer, are_answers=True))
        except (OSError, ExceptionGroup):  # one side is gone: so is the other
            pass
        except asyncio.CancelledError:
            pass
        finally:
            link.reset()
            self._links.discard(link)
            self._tasks.discard(task)

    async def _receive(self, reader: asyncio.StreamReader, pieces: _Pieces) -> None:
        loop, due_s = asyncio.get_running_loop(), 0.0
        while data := await reader.read(_PIECE_BYTES):
            delay_s = self.weather.delay_s
            if self.weather.loss and self._chance.random() < self.weather.loss:
                if self._chance.random() < _BREAKS:
                    self.n_resets += 1
                    raise ConnectionResetError("the network broke the connection")
                delay_s += self._chance.uniform(*_RETRANSMISSION_S)
            due_s = max(due_s, loop.time() + delay_s)
            await pieces.put((due_s, data))
        await pieces.put((due_s, b""))

    async def _send(self, link: _Link, pieces: _Pieces, writer: asyncio.StreamWriter, *, are_answers: bool) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s, data = await pieces.get()
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            while link.is_frozen or self.weather.is_cut:
                await asyncio.sleep(_LOOK_S)
            if are_answers and self.weather.answers_lost:
                link.is_deaf = True
            if are_answers and link.is_deaf:
                self.n_answers_lost += 1
                continue
            if not data:
                raise ConnectionAbortedError("closed by its other side")
            writer.write(data)
            await writer.drain()


class _Link:
    """One connection through the proxy."""

    def __init__(self, writers: list[asyncio.StreamWriter]) -> None:
        self.writers = writers
        self.is_frozen = False
        self.is_deaf = False

    def reset(self) -> None:
        for writer in self.writers:
            endpoint = writer.get_extra_info("socket")
            if endpoint is not None:
                with contextlib.suppress(OSError):  # closed already
                    endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
