"""How a worker starts: its port, and the exactly-once mode that is asked for on the command line."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from deploy.cli import app
from stream.broker import Broker
from stream.errors import StreamError
from tests.chaos.classifiers import StubClassifier
from workers.app import build_app
from workers.errors import StartError
from workers.run import check_modes, run_worker
from workers.setting_sources import load_settings
from workers.settings import Settings


def test_port_0_is_a_free_one() -> None:
    """Faust itself takes none below 1."""
    port = build_app(Settings(web_port=0), stage="all", classifier=StubClassifier()).conf.web_port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))


@pytest.mark.parametrize(("arguments", "expected"), [([], False), (["--exactly-once"], True)])
def test_exactly_once_is_asked_for(arguments: list[str], expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Settings] = []

    def run(settings: Settings, **options: Any) -> int:
        asked.append(settings)
        return 0

    monkeypatch.setattr("workers.run.run_worker", run)
    answer = CliRunner().invoke(app, ["worker", *arguments])
    assert answer.exit_code == 0, answer.output
    assert [settings.exactly_once for settings in asked] == [expected]


def test_broker_without_transactions_ends_the_worker_before_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    async def there(broker: Broker, wanted: Any) -> None: ...

    async def none(broker: Broker, *, name: str, timeout_s: float) -> None:
        raise StreamError("the broker at x has no transactions")

    monkeypatch.setattr("workers.run.check_topics", there)
    monkeypatch.setattr("workers.run.check_transactions", none)
    settings = load_settings({"exactly_once": "true"}, environ={})
    with pytest.raises(StreamError, match="no transactions"):
        run_worker(settings, stage="prepare")


def test_interrupt_while_the_worker_starts_ends_it_wherever_it_comes() -> None:
    """Python drops an exception that is raised inside a `__del__`: the worker would run on."""
    program = """
import os, signal, sys
import workers.run
from workers.settings import Settings

class Interrupted:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1_000):
            pass

def check(image_folder):
    Interrupted()
    sys.exit(3)

workers.run._check_folder = check
workers.run.run_worker(Settings(), stage="all")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_interrupt_is_handled_as_before_when_the_worker_did_not_start() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(StartError, match="nowhere"):
        run_worker(Settings(image_folder="nowhere"), stage="all")
    assert signal.getsignal(signal.SIGINT) is before


def test_mode_that_the_classifier_does_not_heed_is_refused() -> None:
    """Its findings would be marked as without image rationale, and carry one."""
    stub = StubClassifier()
    check_modes(load_settings({"text_only_lag_posts": 100}, environ={}), stub)
    wanted = load_settings({"no_image_rationale_lag_posts": 100}, environ={})
    with pytest.raises(StartError, match=r"no_image_rationale_lag_posts = 100, but stub-1 .* set it to 0"):
        check_modes(wanted, stub)

    class Sparing(StubClassifier):
        spares_image_rationale = True

    check_modes(wanted, Sparing())


@pytest.mark.parametrize(("edge", "n_warnings"), [(384, 1), (640, 0)])
async def test_what_settings_and_classifier_do_not_do_together_is_told(
    edge: int, n_warnings: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Taught(StubClassifier):
        image_edge_px = 640

    async def away() -> None:
        raise StreamError("away")

    caplog.set_level("INFO")
    pipeline = build_app(Settings(web_port=0, image_edge=edge), stage="all", classifier=Taught()).pipeline
    monkeypatch.setattr(pipeline.outbox, "start", away)
    with pytest.raises(StreamError, match="away"):
        await pipeline.on_start()
    assert caplog.text.count(f"image_edge = {edge}, less than the 640 px") == n_warnings
    assert "stub-1 has no first look at texts" in caplog.text
