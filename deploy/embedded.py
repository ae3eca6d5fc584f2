"""Starts and stops Kafka and Redis for trying and testing; never for production, never used by a worker."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from deploy.child_process import Child, is_alive
from deploy.probes import free_port
from deploy.services import EmbeddedError, EmbeddedServices, Wanted, launch, stop

__all__ = ["EmbeddedError", "EmbeddedServices", "Up", "down", "embedded", "free_port", "start", "stop", "up"]

_STATE_FILE: Final = "services.json"
_LOCK_FILE: Final = "services.lock"


class Up(Struct, frozen=True, kw_only=True):
    """What `up` found or started."""

    services: EmbeddedServices
    already_running: bool


def start(
    *,
    kafka: str | None = None,
    redis: str | None = None,
    kafka_home: Path | None = None,
    data_dir: Path | None = None,
    die_with_parent: bool = False,
    deadline_s: float = 60.0,
) -> EmbeddedServices:
    """Start what has no address yet on free loopback ports, and return when it answers; blocks.

    Kafka is an emulator unless `kafka_home` names an unpacked Apache Kafka. Without `data_dir` the
    data goes with `stop`. `die_with_parent` must be asked for from the main thread.

    Raises:
        EmbeddedError: something is missing, or does not answer in time; nothing is left running.
    """
    wanted = Wanted(
        kafka=kafka,
        redis=redis,
        kafka_home=kafka_home,
        data_dir=data_dir.resolve() if data_dir else Path(tempfile.mkdtemp(prefix="sitrep-")),
        temporary=data_dir is None,
        die_with_parent=die_with_parent,
        deadline_s=deadline_s,
    )
    return launch(wanted, on_spawn=lambda _: None)


@contextmanager
def embedded(
    *,
    kafka: str | None = None,
    redis: str | None = None,
    kafka_home: Path | None = None,
    die_with_parent: bool = True,
    deadline_s: float = 60.0,
) -> Iterator[EmbeddedServices]:
    """Run services on temporary data for the length of a `with` block; see `start`."""
    services = start(
        kafka=kafka,
        redis=redis,
        kafka_home=kafka_home,
        die_with_parent=die_with_parent,
        deadline_s=deadline_s,
    )
    try:
        yield services
    finally:
        stop(services)


def up(
    state_dir: Path,
    *,
    kafka: str | None = None,
    redis: str | None = None,
    kafka_home: Path | None = None,
    deadline_s: float = 60.0,
) -> Up:
    """Start services that outlive this process and record them below `state_dir`, where their data stays.

    When all recorded services still run they are returned as they are, whatever else is asked for.

    Raises:
        EmbeddedError: something is missing, or does not answer in time; nothing is left running.
    """
    state_dir = state_dir.resolve()
    state_dir.mkdir(parents=True, exist_ok=True)
    with _locked(state_dir):
        known = _read(state_dir)
        if known and known.children and all(is_alive(child) for child in known.children):
            return Up(services=known, already_running=True)
        _stop_and_forget(state_dir, known)
        wanted = Wanted(
            kafka=kafka,
            redis=redis,
            kafka_home=kafka_home,
            data_dir=state_dir,
            temporary=False,
            die_with_parent=False,
            deadline_s=deadline_s,
        )
        try:
            services = launch(wanted, on_spawn=lambda spawned: _write(state_dir, spawned))
        except BaseException:
            _stop_and_forget(state_dir, None)
            raise
        return Up(services=services, already_running=False)


def down(state_dir: Path) -> list[Child]:
    """Stop what `up` recorded below `state_dir` and return what was still alive; the data stays."""
    state_dir = state_dir.resolve()
    if not (state_dir / _STATE_FILE).exists():
        return []
    with _locked(state_dir):
        return _stop_and_forget(state_dir, _read(state_dir))


@contextmanager
def _locked(state_dir: Path) -> Iterator[None]:
    with (state_dir / _LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(state_dir: Path) -> EmbeddedServices | None:
    """Return the recorded services; None when there are none, or the record cannot be read."""
    try:
        state = (state_dir / _STATE_FILE).read_bytes()
        return msgspec.json.decode(state, type=EmbeddedServices, dec_hook=_from_json)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _write(state_dir: Path, services: EmbeddedServices) -> None:
    fresh = state_dir / f"{_STATE_FILE}.new"
    fresh.write_bytes(msgspec.json.encode(services, enc_hook=str))
    fresh.replace(state_dir / _STATE_FILE)


def _stop_and_forget(state_dir: Path, services: EmbeddedServices | None) -> list[Child]:
    stopped = stop(services) if services else []
    (state_dir / _STATE_FILE).unlink(missing_ok=True)
    return stopped


def _from_json(expected: type, value: Any) -> Any:
    return expected(value)
