"""Runs the two that are compared: a naive Faust worker as a process, and ours inside the test's own loop."""

from __future__ import annotations

import asyncio
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from deploy.probes import free_port
from stream.broker import Broker
from stream.consumer import IntakeConfig
from stream.records import Post, encode
from tests.chaos.classifiers import StubClassifier
from tests.chaos.field import Field, Raw
from tests.chaos.processes import REPOSITORY, die_with_parent
from workers.app import SitrepApp, build_app
from workers.device import Classifier
from workers.setting_sources import load_settings

NAIVE = "naive"


class Naive:
    """A naive worker's process and what it noted so far."""

    def __init__(self, process: subprocess.Popen[bytes], notes: Path, log: Path, web_port: int) -> None:
        self._process = process
        self._notes = notes
        self._log = log
        self.web_port = web_port

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    @property
    def notes(self) -> list[list[Any]]:
        """Return each note."""
        lines = self._notes.read_bytes().splitlines() if self._notes.exists() else []
        return [msgspec.json.decode(line) for line in lines]

    @property
    def handled(self) -> set[str]:
        """Return the ids of the posts that its body has handled."""
        return {value for note in self.notes for value in note if str(value).startswith("post-")}

    @property
    def log(self) -> str:
        """Return the end of its log."""
        return self._log.read_text("utf-8", "replace")[-3_000:]

    async def quiet(self) -> None:
        """Wait until it has noted nothing new for longer than an agent takes to come back."""
        n_notes, since_s = -1, time.monotonic()
        while n_notes != len(self.notes) or time.monotonic() - since_s < 1.5:
            if n_notes != len(self.notes):
                n_notes, since_s = len(self.notes), time.monotonic()
            await asyncio.sleep(0.1)

    def interrupt(self) -> None:
        """Ask it to stop, with SIGINT."""
        self._process.send_signal(signal.SIGINT)


@contextmanager
def naive(case: str, field: Field) -> Iterator[Naive]:
    """Run a naive worker on the field's posts for the length of a `with` block."""
    notes, log, web_port = field.folder / "naive.jsonl", field.folder / "naive.log", free_port()
    command = [sys.executable, "-m", "tests.regressions.naive", case, "--kafka", field.kafka]
    command += ["--prefix", field.prefix, "--notes", str(notes), "--web-port", str(web_port)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            die_with_parent(command), cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield Naive(process, notes, log, web_port)
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def running(field: Field, classifier: Classifier | None = None, **flags: Any) -> AsyncIterator[SitrepApp]:
    """Run the product's whole worker in this loop, and stop it as a signal would."""
    app = sitrep_app(field, classifier, **flags)
    await app.start()
    try:
        yield app
    finally:
        await asyncio.wait_for(app.stop(), 30)


def sitrep_app(field: Field, classifier: Classifier | None = None, **flags: Any) -> SitrepApp:
    """Return the product's worker on the field, not yet started."""
    settings = load_settings({**field.flags, "web_port": free_port(), **flags}, environ={})
    return build_app(settings, stage="all", classifier=classifier or StubClassifier())


def intake_config(field: Field, **changes: Any) -> IntakeConfig:
    """Return how an intake alone reads the field's posts."""
    values: dict[str, Any] = {
        "broker": Broker(field.kafka),
        "topic": field.topics.posts.name,
        "group": f"{field.prefix}prepare",
        "instance": secrets.token_hex(4),
        "session_timeout_s": 6.0,
        "max_stall_s": 60.0,
        "request_timeout_s": 5.0,
        "drain_timeout_s": 1.0,
        "max_in_flight": 1_000,
        "max_in_flight_bytes": 10_000_000,
        "max_record_bytes": 2_000_000,
    }
    return IntakeConfig(**{**values, **changes})


def posts(n_posts: int, *, texts: dict[int, str] | None = None, partition: int = 0, name: str = "post") -> list[Raw]:
    """Return posts `post-0`, `post-1` and so on, all of one partition; `texts` replaces some texts."""
    some = [Post(id=f"{name}-{i}", text=(texts or {}).get(i, f"bridge down {i}")) for i in range(n_posts)]
    return [Raw(key=post.id.encode(), value=encode(post), partition=partition) for post in some]


async def until(condition: Callable[[], Any], timeout_s: float = 15.0, *, why: Callable[[], object] = str) -> float:
    """Wait until the condition holds and return the seconds it took; fail when it never does."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < timeout_s, f"it did not come true in {timeout_s} s: {why()}"
        await asyncio.sleep(0.05)
    return time.monotonic() - start


async def status_of(web_port: int, path: str) -> int:
    """Return the HTTP status of a page of a worker."""

    def ask() -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{web_port}{path}", timeout=5) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    return await asyncio.to_thread(ask)
