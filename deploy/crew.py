"""The demo's workers: processes started, watched and ended here; what they print goes to files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy.child_process import Child, end, is_alive, spawn
from deploy.embedded import free_port
from deploy.failure import CommandFailed
from workers.setting_sources import as_variables

_ROOT: Final = Path(__file__).resolve().parent.parent
# not `-m`: that would look for our packages in the folder the user happens to be in
_MAIN: Final = """
import os, sys
if sys.stdout is None:  # `spawn` may leave it closed; the log is on stderr too
    os.dup2(2, 1)
    sys.stdout = open(1, "w", closefd=False, buffering=1)
sys.path.append(sys.argv.pop(1))
from deploy.cli import main
main()
"""
_GRACE_S: Final = 25.0
_PROBE_TIMEOUT_S: Final = 2.0
_PROBE_PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker process, where it serves metrics and health, and its log."""

    child: Child
    url: str
    log_file: Path


class Crew:
    """Workers that run; use `crew`, which ends them."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.workers = tuple(workers)

    def dead(self) -> Worker | None:
        """Return a worker that has ended, or None."""
        return next((worker for worker in self.workers if not is_alive(worker.child)), None)

    async def ready(self, deadline_s: float) -> None:
        """Return when every worker is ready.

        Raises:
            CommandFailed: one has ended, or is not ready in time; the message says what it lacks.
        """
        deadline = time.monotonic() + deadline_s
        for worker in self.workers:
            while True:
                report = await asyncio.to_thread(_readiness, worker.url)
                if report.get("ok"):
                    break
                if not is_alive(worker.child):
                    raise CommandFailed(f"the worker did not start: {last_words(worker.log_file)}")
                if time.monotonic() > deadline:
                    lacks = ", ".join(name for name, there in report.items() if name != "ok" and not there)
                    why = f"{lacks or 'no answer'} (see {worker.log_file})"
                    raise CommandFailed(f"the worker is not ready after {deadline_s:g} s: {why}")
                await asyncio.sleep(_PROBE_PAUSE_S)

    def ask_to_stop(self) -> None:
        """Send SIGTERM to all; they finish what is in flight."""
        for worker in self.workers:
            if is_alive(worker.child):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.child.pid, signal.SIGTERM)

    def end(self) -> None:
        """End all workers and whatever they started; blocks until they are gone."""
        self.ask_to_stop()
        for worker in self.workers:
            end(worker.child, grace_s=_GRACE_S)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(worker.child.pid, signal.SIGKILL)


@contextmanager
def crew(n_workers: int, *, flags: Mapping[str, Any], config_file: Path | None, logs: Path) -> Iterator[Crew]:
    """Run workers with these settings for the length of a `with` block; call from the main thread."""
    logs.mkdir(parents=True, exist_ok=True)
    workers: list[Worker] = []
    try:
        for number in range(1, n_workers + 1):
            port = free_port()
            settings = {**flags, "web_host": "127.0.0.1", "web_port": port}
            command = [sys.executable, "-P", "-c", _MAIN, str(_ROOT), "worker"]
            if config_file is not None:
                command += ["--config", str(config_file)]
            log_file = logs / f"worker-{number}.log"
            log_file.unlink(missing_ok=True)
            # not in the command line, which anybody may read, and the password in it
            variables = as_variables(settings)
            child = spawn(f"worker {number}", command, log_file=log_file, die_with_parent=True, variables=variables)
            workers.append(Worker(child=child, url=f"http://127.0.0.1:{port}", log_file=log_file))
        yield Crew(workers)
    finally:
        Crew(workers).end()


def last_words(log_file: Path) -> str:
    """Return what a worker said about its end: its one line to the user, else its last logged error."""
    lines = log_file.read_text("utf-8", "replace").splitlines()
    own = [line.removeprefix("sitrep: ") for line in lines if line.startswith("sitrep: ")]
    logged = [line.partition("[ERROR]")[2].strip() for line in lines if "[ERROR]" in line]
    said = (own or logged or ["it said nothing"])[-1]
    return f"{said} (see {log_file})"


def fetch(url: str) -> bytes | None:
    """Return what the loopback page holds, or None when it does not answer; blocks for two seconds at most."""
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_TIMEOUT_S) as response:  # a worker of ours, on loopback
            return bytes(response.read())
    except (OSError, ValueError):
        return None


def _readiness(url: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=_PROBE_TIMEOUT_S) as response:
            body = response.read()
    except urllib.error.HTTPError as error:
        with error:
            body = error.read()
    except (OSError, ValueError):
        return {}
    try:
        report = json.loads(body)
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}
