"""`sitrep demo` as a user runs it: it ends by itself with its ledger, and leaves no process behind, however it ends."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
LEDGER = re.compile(r"ledger: accepted=(\d+) findings=(\d+) dead_letters=(\d+) duplicates=(\d+) missing=(\d+)")


class Running:
    """A demo in a folder of its own, its output in a file."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self._log = folder / "demo.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.cli", "demo", *arguments],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._seen: dict[int, psutil.Process] = {}

    @property
    def output(self) -> str:
        return self._log.read_text("utf-8", "replace")

    def until(self, text: str) -> None:
        """Wait until the demo has printed the text, and note the processes that it has started by then."""
        deadline = time.monotonic() + 120
        while text not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            self.look()
            time.sleep(0.05)
        self.look()

    def look(self) -> None:
        """Note every process below the demo."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            self._seen[process.pid] = process

    def left_over(self) -> list[str]:
        """Return the noted processes that still run a while after the demo has ended."""
        _, alive = psutil.wait_procs(list(self._seen.values()), timeout=15)
        assert len(self._seen) >= 2, "the demo started nothing that could be left over"
        return [" ".join(process.cmdline()) for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_demo_ends_with_a_balanced_ledger(tmp_path: Path) -> None:
    """Findings are shown as they come, files are where it says, and the last line is the ledger."""
    demo = Running(tmp_path, "--posts", "104", "--rate", "100")
    demo.until("ledger: ")
    assert demo.process.wait(30) == 0, demo.output
    counts = LEDGER.fullmatch(demo.output.rstrip().splitlines()[-1])
    assert counts is not None, demo.output
    accepted, findings, dead_letters, duplicates, missing = map(int, counts.groups())
    assert (accepted, missing) == (104, 0)
    assert accepted == findings + dead_letters + duplicates
    assert min(findings, dead_letters, duplicates) > 0
    assert "ALERT" in demo.output
    folder = tmp_path / "sitrep-demo"
    written = [json.loads(line) for line in (folder / "findings.jsonl").read_text("utf-8").splitlines()]
    assert len({finding["id"] for finding in written}) == findings
    assert (folder / "index.html").is_file()
    assert list((folder / "overlays").glob("*.png"))
    assert b"sitrep_posts_total" in (folder / "metrics.txt").read_bytes()
    assert demo.left_over() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.log", "sitrep-demo"]


@pytest.mark.parametrize(
    ("end", "code"),
    [
        pytest.param(lambda process: process.send_signal(signal.SIGINT), 130, id="Ctrl-C"),
        pytest.param(lambda process: process.send_signal(signal.SIGTERM), 143, id="SIGTERM"),
        pytest.param(lambda process: process.kill(), -signal.SIGKILL, id="crash"),
    ],
)
def test_interrupted_demo_leaves_nothing(
    tmp_path: Path, end: Callable[[subprocess.Popen[bytes]], None], code: int
) -> None:
    """Ctrl-C says what became of the posts so far; a crash takes the children along."""
    demo = Running(tmp_path, "--rate", "5")
    demo.until("sample-")
    end(demo.process)
    assert demo.process.wait(60) == code, demo.output
    assert demo.left_over() == []
    assert ("ledger: accepted=" in demo.output) == (code > 0)


def test_worker_that_crashes_ends_the_demo(tmp_path: Path) -> None:
    """The demo says that its worker is gone, exits non-zero and cleans up."""
    demo = Running(tmp_path, "--rate", "5")
    demo.until("sample-")
    [worker] = [
        process
        for process in psutil.Process(demo.process.pid).children(recursive=True)
        if "worker" in process.cmdline()
    ]
    worker.kill()
    assert demo.process.wait(60) == 1, demo.output
    assert "ended" in demo.output
    assert demo.left_over() == []


def test_demo_that_cannot_start_leaves_the_earlier_one(tmp_path: Path) -> None:
    """It says why, once, and what an earlier demo wrote is as it was."""
    folder = tmp_path / "sitrep-demo"
    folder.mkdir()
    earlier = {"index.html": "<title>Sitrep demo</title>", "findings.jsonl": "{}\n", "metrics.txt": "up 1\n"}
    for name, text in earlier.items():
        (folder / name).write_text(text)
    demo = Running(tmp_path, "--set", "checkpoint=nowhere")
    demo.until("loads its model")
    assert demo.process.wait(60) == 1, demo.output
    assert demo.output.count("nowhere is not a checkpoint folder") == 1
    assert {name: (folder / name).read_text() for name in earlier} == earlier
    assert demo.left_over() == []


def test_kept_running_demo_has_a_live_page(tmp_path: Path) -> None:
    """Posts that are fed later appear on it, and a page that cannot be written ends nothing."""
    demo = Running(tmp_path, "--posts", "4", "--rate", "100", "--keep-running")
    demo.until("look at it:")
    [url] = re.findall(r"page: +(\S+)", demo.output)
    [place] = re.findall(r"feed it more: +sitrep replay FILE (.+)", demo.output)
    page = tmp_path / "sitrep-demo" / "index.html"
    in_the_way = page.with_suffix(".new")
    in_the_way.mkdir()
    demo.until("the page could not be written")
    in_the_way.rmdir()
    picture = base64.b64encode((ROOT / "deploy/samples/images/bridge-1.jpg").read_bytes()).decode()
    posts = tmp_path / "posts.jsonl"
    posts.write_text(json.dumps({"id": "fed-1", "text": "bridge down", "images": [{"data": picture}]}))
    replay = [sys.executable, "-m", "deploy.cli", "replay", str(posts), *place.split()]
    subprocess.run(replay, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    demo.until("fed-1")
    deadline = time.monotonic() + 30
    while not page.exists() or "fed-1" not in page.read_text("utf-8"):
        assert time.monotonic() < deadline, demo.output
        time.sleep(0.2)
    with urllib.request.urlopen(f"{url}?class=1") as served:
        html = served.read().decode()
    assert 'id="class-1" checked' in html
    assert "picture patches, picture not here" in html
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(60) == 0, demo.output
    assert demo.left_over() == []
