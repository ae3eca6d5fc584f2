"""A real Redis server for a test to break; it keeps what it was told in an append-only file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Protocol

from deploy.probes import free_port, redis_answers
from tests.chaos.processes import spawn_server, wait_for_server


class Redis(Protocol):
    """A Redis under the test's control."""

    name: str
    url: str
    port: int

    def kill(self) -> None:
        """End it as a power cut does."""

    def start(self) -> None:
        """Start it on its data and wait until it answers."""

    def revive(self) -> None:
        """Start it unless it runs."""

    def empty(self) -> None:
        """Lose all data; call while it is down."""

    def stop(self) -> None:
        """End it for good."""


class RedisServer:
    """A process of a `redis-server` program, which must be there."""

    def __init__(self, program: str, data_dir: Path) -> None:
        self._program = shutil.which(program) or program
        self._data_dir = data_dir
        self._process: subprocess.Popen[bytes] | None = None
        self.name = _version(program)
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def start(self) -> None:
        """Start it on its data and wait until it answers."""
        self._data_dir.mkdir(parents=True, exist_ok=True)
        command = [self._program, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._data_dir)]
        command += ["--save", "", "--appendonly", "yes", "--daemonize", "no"]
        log_file = self._data_dir.with_suffix(".log")
        self._process = spawn_server(command, log_file)
        wait_for_server(lambda: redis_answers(self.url), self._process, log_file)

    def revive(self) -> None:
        """Start it unless it runs."""
        if self._process is None:
            self.start()

    def empty(self) -> None:
        """Lose all data; call while it is down."""
        assert self._process is None
        shutil.rmtree(self._data_dir, ignore_errors=True)

    def stop(self) -> None:
        """End it for good."""
        if self._process is not None:
            self.kill()


def _version(program: str) -> str:
    """Return its name and version: it says `Redis server v=7.0.15 sha=...`."""
    told = subprocess.run([program, "--version"], check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return f"Redis {told.stdout.partition('v=')[2].partition(' ')[0]}"
