"""Apache Kafka from an unpacked distribution, one node or several, for a test to break."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from deploy.probes import free_port, kafka_answers
from tests.chaos.processes import limit_files, spawn_server, wait_for_server

_CLUSTER_ID = "c2l0cmVwLWNoYW9zLXRlc3Q"
_END_S = 20.0


class ApacheKafka:
    """Apache Kafka from an unpacked distribution: one node, or three."""

    def __init__(
        self,
        home: Path,
        data_dir: Path,
        *,
        n_nodes: int = 1,
        overrides: Mapping[str, str] | None = None,
        listeners: Mapping[str, int] | None = None,
    ) -> None:
        """Start it; `listeners` are ports of the first node besides its plain one, by Kafka's names of protocols."""
        self.name = _version(home)
        self.n_nodes = n_nodes
        self._home = home
        self._data_dir = data_dir
        self._overrides = dict(overrides or {})
        self._listeners = dict(listeners or {})
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
            limit_files(process, 0)

    def free_disk(self) -> None:
        """Start the nodes again, now that there is room: without any, they have ended."""
        for node, process in enumerate(self._processes):
            assert process is not None
            process.wait(_END_S)
            self.start(node)

    def set_quota(self, bytes_per_s: int | None) -> None:
        """Bound what each client without a quota of its own may send and fetch in a second; None lifts the bound."""
        if bytes_per_s is None:
            change = ["--delete-config", "producer_byte_rate,consumer_byte_rate"]
        else:
            change = ["--add-config", f"producer_byte_rate={bytes_per_s},consumer_byte_rate={bytes_per_s}"]
        self._configure(*change, "--entity-type", "clients", "--entity-default")

    def exempt(self, client_id: str) -> None:
        """Give a client a quota of its own, too large to matter."""
        large = "producer_byte_rate=1000000000,consumer_byte_rate=1000000000"
        self._configure("--add-config", large, "--entity-type", "clients", "--entity-name", client_id)

    def add_user(self, name: str, password: str, mechanism: str) -> None:
        """Let a user in by SCRAM."""
        self._configure(
            "--add-config", f"{mechanism}=[password={password}]", "--entity-type", "users", "--entity-name", name
        )

    def stop(self) -> None:
        """End all nodes for good."""
        for node, process in enumerate(self._processes):
            if process is not None:
                self.kill(node)

    def _configure(self, *change: str) -> None:
        command = self._java("kafka.admin.ConfigCommand", "--bootstrap-server", self.bootstrap, node=0)
        subprocess.run([*command, "--alter", *change], check=True, stdin=subprocess.DEVNULL, capture_output=True)

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
        further = self._listeners if node == 0 else {}
        own = ",".join(f"{name}://127.0.0.1:{at}" for name, at in {"PLAINTEXT": port, **further}.items())
        protocols = ",".join(f"{name}:{name}" for name in ("PLAINTEXT", *self._listeners))
        lines = {
            "process.roles": "broker,controller",
            "node.id": str(node + 1),
            "controller.quorum.voters": ",".join(f"{i + 1}@127.0.0.1:{c}" for i, (_, c) in enumerate(self._ports)),
            "listeners": f"{own},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": own,
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": f"{protocols},CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(folder / "log"),
            "message.max.bytes": str(8 * 1_048_576),
            "replica.fetch.max.bytes": str(8 * 1_048_576),
            "offsets.topic.replication.factor": replication,
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": replication,
            "transaction.state.log.min.isr": in_sync,
            "transaction.state.log.num.partitions": "4",
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
        self._processes[node] = spawn_server(
            self._java("kafka.Kafka", str(config), node=node), self._folder(node) / "kafka.log"
        )

    def _wait(self, node: int) -> None:
        process = self._processes[node]
        assert process is not None
        address = f"127.0.0.1:{self._ports[node][0]}"
        wait_for_server(lambda: kafka_answers(address), process, self._folder(node) / "kafka.log")


def found_kafka_home() -> Path | None:
    """Return the Apache Kafka that KAFKA_HOME names, else the one beside the repository, None where none starts."""
    named = os.environ.get("KAFKA_HOME")
    home = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "kafka"
    return home if usable_kafka_home(home) else None


def usable_kafka_home(home: Path) -> bool:
    """Whether an Apache Kafka can be started from there."""
    return shutil.which("java") is not None and any((home / "libs").glob("kafka*.jar"))


def _version(home: Path) -> str:
    versions = [jar.stem.rpartition("-")[2] for jar in (home / "libs").glob("kafka-clients-*.jar")]
    return f"Apache Kafka {versions[0]}" if versions else "Apache Kafka"
