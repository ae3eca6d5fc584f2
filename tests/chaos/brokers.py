"""Brokers and Redis servers that a test may break: real processes on fixed loopback ports."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Protocol

from deploy.probes import free_port, kafka_answers, redis_answers
from tests.chaos.processes import spawn_server, wait_for_server


class Broker(Protocol):
    """A Kafka-compatible broker, or several, under the test's control."""

    name: str
    bootstrap: str
    n_nodes: int

    def kill(self, node: int = 0) -> None:
        """End a node as a power cut does."""

    def start(self, node: int = 0) -> None:
        """Start a node on its data and wait until it answers."""

    def fill_disk(self) -> None:
        """Have every write to a file fail, as on a full disk; the broker may end of it."""

    def free_disk(self) -> None:
        """Let files be written again, and start the broker if it ended."""

    def stop(self) -> None:
        """End all nodes for good."""


class Emulator:
    """noida-db, as Kafka or as Redis."""

    n_nodes = 1

    def __init__(self, service: str, data_dir: Path) -> None:
        self.name = "embedded"
        self._service = service
        self.port = free_port()
        self._data_dir = data_dir
        self._process: subprocess.Popen[bytes] | None = None
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def kill(self, node: int = 0) -> None:
        """End it as a power cut does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def start(self, node: int = 0) -> None:
        """Start it on its data and wait until it answers."""
        spec = importlib.util.find_spec("noida_db")
        assert spec is not None and spec.origin is not None, "install the extra `embedded`"
        self._data_dir.mkdir(parents=True, exist_ok=True)
        command = [str(Path(spec.origin).parent / "noida-db"), "start", "--data-dir", str(self._data_dir)]
        command += ["--host", "127.0.0.1", "--only", self._service, f"--{self._service}-port", str(self.port)]
        self._process = spawn_server(command, self._data_dir.with_suffix(".log"))
        if self._service == "kafka":
            wait_for_server(lambda: kafka_answers(self.bootstrap), self._process, self._data_dir.with_suffix(".log"))
        else:
            wait_for_server(lambda: redis_answers(self.url), self._process, self._data_dir.with_suffix(".log"))

    def fill_disk(self) -> None:
        """Refuse."""
        raise AssertionError("the emulator confirms what it has not written yet, so a full disk proves nothing")

    def free_disk(self) -> None:
        """Its disk was left alone."""

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


class Foreign:
    """Somebody's own broker: used, never broken."""

    n_nodes = 1

    def __init__(self, bootstrap: str) -> None:
        self.name = bootstrap
        self.bootstrap = bootstrap

    def kill(self, node: int = 0) -> None:
        """Refuse."""
        raise AssertionError("this broker is not the test's to break")

    def start(self, node: int = 0) -> None:
        """It runs already."""

    def fill_disk(self) -> None:
        """Refuse."""
        raise AssertionError("this broker is not the test's to break")

    def free_disk(self) -> None:
        """Its disk was left alone."""

    def stop(self) -> None:
        """Leave it alone."""
