"""Worker processes under test: started, killed, paused and looked into; each dies with the test."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

from deploy.probes import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
_START_S = 60.0
_LAUNCHER = REPOSITORY / "deploy" / "launcher.py"


def die_with_parent(command: list[str]) -> list[str]:
    """Return the command so that the kernel kills its process when this one ends, however that ends."""
    return [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), *command]


class WorkerProcess:
    """One worker of the pipeline as its own process; its log goes to a file."""

    def __init__(
        self,
        *,
        flags: Mapping[str, Any],
        log_file: Path,
        stage: str = "all",
        classifier: str = "sleep:0.001",
        via: Mapping[int, int] | None = None,
    ) -> None:
        self.web_port = free_port()
        self.log_file = log_file
        self.instance = str(flags.get("instance", ""))
        command = [sys.executable, "-m", "tests.chaos.worker", "--stage", stage, "--classifier", classifier]
        for name, value in {**flags, "web_port": self.web_port}.items():
            command += ["--set", f"{name}={value}"]
        for port, proxy_port in (via or {}).items():
            command += ["--via", f"{port}={proxy_port}"]
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                die_with_parent(command), cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.pid = self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End it as a crash does, with SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def terminate(self) -> None:
        """Ask it to stop, with SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> int:
        """Return its exit code; fail with its log when it does not end in time."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"the worker did not end within {timeout_s} s\n{self.log()}") from error

    def pause(self) -> None:
        """Stop its clock, as a suspended machine does."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Make sure that it is gone."""
        if self.is_alive:
            self._process.send_signal(signal.SIGCONT)
            self.kill()

    def log(self, n_chars: int = 6_000) -> str:
        """Return the end of its log."""
        return self.log_file.read_text("utf-8", "replace")[-n_chars:] if self.log_file.exists() else ""

    def rss_bytes(self) -> int:
        """Return the resident memory of it and its children."""
        return sum(process.memory_info().rss for process in self._family())

    def n_open_files(self) -> int:
        """Return how many file descriptors it and its children hold."""
        return sum(process.num_fds() for process in self._family())

    def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of one of its pages."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.web_port}{path}")
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def metrics(self) -> dict[str, float]:
        """Return its metrics as they are, by name and labels: `name{label=value}`."""
        status, body = self.get("/metrics")
        assert status == 200, body
        found = {}
        for family in text_string_to_metric_families(body.decode()):
            for sample in family.samples:
                labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found

    def wait_ready(self, timeout_s: float = 40.0) -> None:
        """Wait until it says that it is ready."""
        deadline = time.monotonic() + timeout_s
        answer: object = "nothing"
        while time.monotonic() < deadline:
            if not self.is_alive:
                raise AssertionError(f"the worker ended while it was starting\n{self.log()}")
            try:
                status, answer = self.get("/readyz")
            except OSError:
                status = 0
            if status == 200:
                return
            time.sleep(0.1)
        raise AssertionError(f"the worker is not ready after {timeout_s} s: {answer!r}\n{self.log()}")

    def _family(self) -> list[psutil.Process]:
        process = psutil.Process(self.pid)
        return [process, *process.children(recursive=True)]


def spawn_server(command: list[str], log_file: Path) -> subprocess.Popen[bytes]:
    """Start a server that dies with this process; its log goes to a file."""
    with log_file.open("ab") as log:
        return subprocess.Popen(die_with_parent(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def limit_files(process: subprocess.Popen[bytes], size_bytes: int) -> None:
    """Bound the size of the files that a process may write; 0 makes every write fail, as on a full disk."""
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))


def wait_for_server(answers: Callable[[], bool], process: subprocess.Popen[bytes], log_file: Path) -> None:
    """Wait until it answers; fail with the end of its log when it ends or takes too long."""
    deadline = time.monotonic() + _START_S
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"it does not answer\n{log_file.read_text('utf-8', 'replace')[-2000:]}")
        time.sleep(0.05)
