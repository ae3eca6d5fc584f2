"""Starts, recognises and ends processes by id, on Linux; never touches one that it did not start itself."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from msgspec import Struct

_LAUNCHER: Final = Path(__file__).resolve().parent / "launcher.py"
_POLL_S: Final = 0.02


class Child(Struct, frozen=True, kw_only=True):
    """A process started here; its id alone may be given to another process, id and start time may not."""

    name: str
    pid: int
    started: str


def spawn(
    name: str,
    command: list[str],
    *,
    log_file: Path,
    die_with_parent: bool,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Child:
    """Start the command in a session of its own, its output appended to the log file.

    `variables` are added to the environment that it inherits.
    With `die_with_parent` the kernel kills it when the calling **thread** ends, however that ends:
    call from the main thread.
    """
    if die_with_parent:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("a process that dies with its parent must be started from the main thread")
        command = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), *command]
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    pid = os.posix_spawn(
        command[0],
        command,
        {**os.environ, **variables},
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE],
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log_file), append, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )
    state = _state(pid)
    return Child(name=name, pid=pid, started=state.started if state else "")


def is_alive(child: Child) -> bool:
    """Return whether the very process still runs, not one that was given its id later."""
    state = _state(child.pid)
    if state is None or state.started != child.started:
        return False
    if state.is_zombie:
        with contextlib.suppress(ChildProcessError):  # another process's child: that one must reap it
            os.waitpid(child.pid, os.WNOHANG)
    return not state.is_zombie


def end(child: Child, *, grace_s: float) -> bool:
    """Ask the process to stop, kill it and its session after the grace; return whether it was alive.

    Blocks until the process is gone.
    """
    if not is_alive(child):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while is_alive(child):
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        time.sleep(_POLL_S)
    return True


class _State(Struct, frozen=True, kw_only=True):
    started: str
    is_zombie: bool


def _state(pid: int) -> _State | None:
    """Return when a process started, as boot and clock ticks, and whether it has ended but for its parent."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, n_threads, start_ticks = fields[0], int(fields[17]), fields[19]
    # The first thread of a dying process is a zombie before the others have ended.
    return _State(started=f"{boot}/{start_ticks}", is_zombie=state in "ZX" and n_threads <= 1)
