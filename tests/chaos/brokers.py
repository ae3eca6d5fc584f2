"""Brokers and Redis servers that a test may break: real processes on fixed loopback ports."""

from __future__ import annotations

import importlib.util
import resource
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from deploy.probes import free_port, kafka_answers, redis_answers
from tests.chaos.processes import die_with_parent

_START_S = 60.0
_CLUSTER_ID = "c2l0cmVwLWNoYW9zLXRlc3Q"


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
        self._process = _spawn(command, self._data_dir.with_suffix(".log"))
        if self._service == "kafka":
            _wait(lambda: kafka_answers(self.bootstrap), self._process, self._data_dir.with_suffix(".log"))
        else:
            _wait(lambda: redis_answers(self.url), self._process, self._data_dir.with_suffix(".log"))

    def fill_disk(self) -> None:
        """Have every write to a file fail, as on a full disk."""
        assert self._process is not None
        _limit_files(self._process, 0)

    def free_disk(self) -> None:
        """Let files be written again, and start it if it ended."""
        assert self._process is not None
        if self._process.poll() is None:
            _limit_files(self._process, resource.RLIM_INFINITY)
        else:
            self.start()

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


class ApacheKafka:
    """Apache Kafka from an unpacked distribution: one node, or three with replication 3 and min.insync 2."""

    def __init__(
        self,
        home: Path,
        data_dir: Path,
        *,
        n_nodes: int = 1,
        overrides: Mapping[str, str] | None = None,
    ) -> None:
        self.name = _version(home)
        self.n_nodes = n_nodes
        self._home = home
        self._data_dir = data_dir
        self._overrides = dict(overrides or {})
        self._ports = [(free_port(), free_port()) for _ in range(n_nodes)]
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * n_nodes
        self.bootstrap = ",".join(f"127.0.0.1:{port}" for port, _ in self._ports)
        for node in range(n_nodes):
            self._format(node)
        for node in range(n_nodes):
            self._launch(node)
        for node in range(n_nodes):
            self._wait(node)

    def kill(self, node: int = 0) -> None:
        """End a node as a power cut does."""
        process = self._processes[node]
        assert process is not None
        process.kill()
        process.wait()
        self._processes[node] = None

    def start(self, node: int = 0) -> None:
        """Start a node on its data and wait until it answers."""
        self._launch(node)
        self._wait(node)

    def fill_disk(self) -> None:
        """Have every write to a file fail, as on a full disk; a broker without a usable log folder ends itself."""
        for process in self._processes:
            assert process is not None
            _limit_files(process, 0)

    def free_disk(self) -> None:
        """Let files be written again, and start the nodes that ended."""
        for node, process in enumerate(self._processes):
            assert process is not None
            try:
                process.wait(1.0)
            except subprocess.TimeoutExpired:
                _limit_files(process, resource.RLIM_INFINITY)
            else:
                self.start(node)

    def stop(self) -> None:
        """End all nodes for good."""
        for node, process in enumerate(self._processes):
            if process is not None:
                self.kill(node)

    def _folder(self, node: int) -> Path:
        return self._data_dir / f"node-{node}"

    def _java(self, main: str, *args: str, node: int) -> list[str]:
        java = shutil.which("java")
        assert java is not None, "Apache Kafka needs Java 17 or newer"
        flags = ["-Xmx384m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
        flags += ["-Dlog4j2.level=WARN", f"-Dkafka.logs.dir={self._folder(node)}"]
        return [java, *flags, "-cp", f"{self._home.resolve()}/libs/*", main, *args]

    def _format(self, node: int) -> None:
        folder = self._folder(node)
        folder.mkdir(parents=True, exist_ok=True)
        replication = str(min(3, self.n_nodes))
        in_sync = str(max(1, self.n_nodes - 1))
        port, controller_port = self._ports[node]
        lines = {
            "process.roles": "broker,controller",
            "node.id": str(node + 1),
            "controller.quorum.voters": ",".join(f"{i + 1}@127.0.0.1:{c}" for i, (_, c) in enumerate(self._ports)),
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(folder / "log"),
            "message.max.bytes": str(8 * 1_048_576),
            "replica.fetch.max.bytes": str(8 * 1_048_576),
            "offsets.topic.replication.factor": replication,
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": replication,
            "transaction.state.log.min.isr": in_sync,
            "transaction.state.log.num.partitions": "4",
            "min.insync.replicas": in_sync,
            "group.initial.rebalance.delay.ms": "0",
            "broker.session.timeout.ms": "6000",
            "log.cleaner.dedupe.buffer.size": str(8 * 1_048_576),
            **self._overrides,
        }
        config = folder / "server.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in lines.items()), "utf-8")
        command = self._java(
            "kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", _CLUSTER_ID, "-c", str(config), node=node
        )
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)

    def _launch(self, node: int) -> None:
        config = self._folder(node) / "server.properties"
        self._processes[node] = _spawn(
            self._java("kafka.Kafka", str(config), node=node), self._folder(node) / "kafka.log"
        )

    def _wait(self, node: int) -> None:
        process = self._processes[node]
        assert process is not None
        address = f"127.0.0.1:{self._ports[node][0]}"
        _wait(lambda: kafka_answers(address), process, self._folder(node) / "kafka.log")


def usable_kafka_home(home: Path) -> bool:
    """Whether an Apache Kafka can be started from there."""
    return shutil.which("java") is not None and any((home / "libs").glob("kafka*.jar"))


def _version(home: Path) -> str:
    versions = [jar.stem.rpartition("-")[2] for jar in (home / "libs").glob("kafka-clients-*.jar")]
    return f"Apache Kafka {versions[0]}" if versions else "Apache Kafka"


def _spawn(command: list[str], log_file: Path) -> subprocess.Popen[bytes]:
    with log_file.open("ab") as log:
        return subprocess.Popen(die_with_parent(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _limit_files(process: subprocess.Popen[bytes], size_bytes: int) -> None:
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))


def _wait(answers: object, process: subprocess.Popen[bytes], log_file: Path) -> None:
    assert callable(answers)
    deadline = time.monotonic() + _START_S
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"it does not answer\n{log_file.read_text('utf-8', 'replace')[-2000:]}")
        time.sleep(0.05)
