"""The commands of one Apache Kafka node on loopback (KRaft, no replicas), from its jars; starts nothing."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CLUSTER_ID: Final = "c2l0cmVwLWVtYmVkZGVkIQ"  # 16 bytes, base64: any will do
_MAX_MESSAGE_BYTES: Final = 8 * 1_048_576
_HEAP: Final = "384m"


class KafkaHomeError(Exception):
    """Java or Kafka's jars are missing; the message says where they were looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaNode:
    """How to format the node's storage and how to run it; `format` may be run again on formatted storage."""

    format: list[str]
    run: list[str]


def kafka_node(kafka_home: Path, *, port: int, controller_port: int, data_dir: Path) -> KafkaNode:
    """Write the node's properties below `data_dir` and return its commands.

    Raises:
        KafkaHomeError: there is no Java, or no jars in `kafka_home/libs`.
    """
    java = shutil.which("java")
    if java is None:
        raise KafkaHomeError("Apache Kafka needs Java 17 or newer, and there is no `java` on the PATH: install a JRE")
    libs = kafka_home.resolve() / "libs"
    if not any(libs.glob("kafka*.jar")):
        raise KafkaHomeError(f"there are no Kafka jars in {libs}: give the folder of an unpacked Apache Kafka")
    data_dir.mkdir(parents=True, exist_ok=True)
    config = data_dir / "server.properties"
    config.write_text(_properties(port, controller_port, data_dir / "log"), "utf-8")
    base = [
        java,
        f"-Xmx{_HEAP}",
        "-Xms64m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xshare:auto",
        "-Dlog4j2.level=WARN",
        f"-Dkafka.logs.dir={data_dir}",
        "-cp",
        f"{libs}/*",
    ]
    format_args = ["format", "--ignore-formatted", "-t", _CLUSTER_ID, "-c", str(config)]
    return KafkaNode(
        format=[*base, "kafka.tools.StorageTool", *format_args],
        run=[*base, "kafka.Kafka", str(config)],
    )


def _properties(port: int, controller_port: int, log_dir: Path) -> str:
    lines = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": log_dir,
        "message.max.bytes": _MAX_MESSAGE_BYTES,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "group.initial.rebalance.delay.ms": 0,
        "log.cleaner.dedupe.buffer.size": 8 * 1_048_576,
    }
    return "".join(f"{key}={value}\n" for key, value in lines.items())
