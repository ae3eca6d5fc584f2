"""The README is true: its commands run, its generated parts are current, what it links to exists."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.embedded import EmbeddedServices, embedded, free_port
from deploy.readme import FIGURES, filled
from deploy.render import LOOKS
from deploy.sample_posts import SAMPLES_FOLDER, sample_records
from model import classifier
from model.classifier import FLAT_HEATMAP, NO_TEXT
from model.joint import evidence
from model.records import HUMANITARIAN
from stream.pixels import REASONS
from stream.records import MACHINE_MARKS, MODE_MARKS, Alert, Finding, decode, decode_post, finding_id
from tests.model.joint.archive_layout import make_archive
from workers.findings import make_alert

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
EXAMPLES = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
INLINE = [command for command in re.findall(r"`(sitrep [^`]+)`", README) if "--help" not in command]
SITREP = [sys.executable, "-m", "deploy.cli"]


def test_generated_parts_are_current() -> None:
    """`make readme` would change nothing."""
    for page in (README, FIGURES.read_text("utf-8")):
        assert filled(page) == page


def test_links_and_pictures_exist() -> None:
    """Each relative link leads somewhere."""
    for page, folder in ((README, ROOT), (FIGURES.read_text("utf-8"), FIGURES.parent)):
        targets = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page)
        assert targets
        assert [target for target in targets if not (folder / target).exists()] == []


def test_examples_are_what_is_on_the_wire() -> None:
    """The finding is one of the sample post that it names, and raises the alert."""
    post, finding_json, alert_json = (block.encode() for block in EXAMPLES)
    assert decode_post(post.replace(b"<base64>", b"AAAA"), max_bytes=len(post)).images
    finding, alert = decode(finding_json, Finding), decode(alert_json, Alert)
    for block, record in ((finding_json, finding), (alert_json, alert)):
        assert json.loads(block).keys() <= {*record.__struct_fields__}
    [sample] = [record for record in sample_records() if record.key == finding.post_id.encode()]
    told = decode_post(sample.value, max_bytes=len(sample.value))
    assert (finding.text, finding.source, finding.posted_at, finding.url) == (
        told.text, told.source, told.created_at, told.url,
    )  # fmt: skip
    assert finding.id == finding_id(finding.post_id, finding.model.version, finding.degraded, source=finding.source)
    assert finding.probability == finding.probabilities[finding.label] == max(finding.probabilities.values())
    assert alert == make_alert(finding, threshold=alert.threshold)


def test_classes_and_marks_are_explained() -> None:
    """All that a finding may say to a responder."""
    [chapter] = re.findall(r"## What a responder reads\n(.*?)\n## ", README, re.DOTALL)
    assert [label for label, shown in LOOKS.items() if f"| {shown.name} | `{label}` |" not in chapter] == []
    fallbacks = {
        value
        for module in (classifier, evidence)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, str) and value != HUMANITARIAN  # a task
    }
    assert {NO_TEXT, FLAT_HEATMAP} <= fallbacks
    marks = {*fallbacks, *MODE_MARKS, *MACHINE_MARKS, *(f"image_{reason}" for reason in REASONS)}
    marks |= {"further_images_unread", "language_untested"}
    assert sorted(mark for mark in marks if f"`{mark}`" not in chapter) == []


def test_make_targets_exist() -> None:
    """Each `make` target that the README names is in the Makefile; CI itself runs `make test`."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    named = {line.split()[1] for line in COMMANDS if line.startswith("make ")}
    named |= {name.split()[0] for name in re.findall(r"`make ([a-z]+)", README)}
    assert {"demo", "test"} <= named
    assert [name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []


def test_modules_exist() -> None:
    """Each module that the README or a model card names can be run or imported."""
    card = (ROOT / "model" / "checkpoints" / "compact" / "MODEL_CARD.md").read_text("utf-8")
    named = set(re.findall(r"`(?:python -m )?((?:model|tests)(?:\.[a-z_]+)+)", README + card)) - {"model.safetensors"}
    assert "model.training.train" in named
    assert [name for name in sorted(named) if importlib.util.find_spec(name) is None] == []


class Reader:
    """Somebody who follows the README in an empty folder, with services of their own."""

    def __init__(self, services: EmbeddedServices, folder: Path) -> None:
        self.services = services
        self.folder = folder
        self.environ = {
            **os.environ,
            "SITREP_KAFKA": services.kafka,
            "SITREP_REDIS": services.redis,
            "SITREP_PARTITIONS": "3",
            "SITREP_WEB_PORT": str(free_port()),
            "PYTHONPATH": str(ROOT),
        }
        photo = (SAMPLES_FOLDER / "images" / "bridge-1.jpg").read_bytes()
        (folder / "photo.jpg").write_bytes(photo)
        posts = [{"id": f"reader-{n}", "text": f"Bridge {n} collapsed, cars in the river"} for n in range(3)]
        (folder / "posts.jsonl").write_text("\n".join(map(json.dumps, posts)), "utf-8")
        (folder / "DIR").mkdir()
        (folder / "DIR" / "p.jpg").write_bytes(photo)
        held_out = ROOT / "model" / "results" / "held_out_ids.txt"
        image_id = held_out.read_text("utf-8").split()[0]
        table = (
            "tweet_id\timage_id\ttweet_text\timage\tsplit_agreed\n"
            f"1\t{image_id}\tFlooded street in the old town\tp.jpg\ttest\n"
        )
        for name in ("posts.tsv", "pairs.tsv"):
            (folder / name).write_text(table, "utf-8")
        results = folder / "model" / "results"
        results.mkdir(parents=True)
        (results / held_out.name).write_text(held_out.read_text("utf-8"), "utf-8")
        make_archive(folder / "CRISISMMD")

    def arguments(self, command: str) -> list[str]:
        """The command with the reader's own values for HOST:PORT and ID."""
        host = self.services.redis.split("/")[2]
        text = command.replace("redis://HOST:PORT", f"redis://{host}")
        text = text.replace("HOST:PORT", self.services.kafka).replace(" ID", " reader-0")
        return [*SITREP, *shlex.split(text)[1:]]

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command that ends by itself."""
        return subprocess.run(
            self.arguments(command),
            env=self.environ,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Start a command that runs until it is told to stop, and wait until it says it is up."""
        port = free_port()
        log = self.folder / f"{port}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.arguments(command),
                env={**self.environ, "SITREP_WEB_PORT": str(port)},
                cwd=self.folder,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + 60
        while b"partitions assigned" not in log.read_bytes():
            assert process.poll() is None, log.read_text("utf-8")
            assert time.monotonic() < deadline, log.read_text("utf-8")
            time.sleep(0.1)
        return process


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """The reader, with topics and a worker, and the example posts already replayed."""
    with embedded() as services:
        reader = Reader(services, tmp_path_factory.mktemp("reader"))
        answer = reader.run("sitrep topics create")
        assert answer.returncode == 0, answer.stderr
        worker = reader.start("sitrep worker")
        try:
            answer = reader.run("sitrep replay posts.jsonl --wait")
            assert answer.returncode == 0, answer.stderr
            yield reader
        finally:
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0


ALL = [command for command in dict.fromkeys(COMMANDS + INLINE) if not command.startswith("make")]
LONG = [command for command in ALL if command.startswith("sitrep worker")]
PAIRED = {"sitrep up", "sitrep down"}
SHORT = [
    pytest.param(command, marks=pytest.mark.alone if "--threads 0" in command else ())  # takes all cores
    for command in ALL
    if command not in LONG and command not in PAIRED
]


@pytest.mark.integration
@pytest.mark.parametrize("command", SHORT)
def test_command_runs(reader: Reader, command: str) -> None:
    """Each command of the README that ends by itself exits with 0."""
    answer = reader.run(command)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.integration
@pytest.mark.parametrize("command", LONG)
def test_worker_starts_and_stops(reader: Reader, command: str) -> None:
    """Each worker command of the README comes up and ends cleanly on SIGTERM."""
    worker = reader.start(command)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0


@pytest.mark.integration
def test_up_and_down(reader: Reader) -> None:
    """`sitrep up` and `sitrep down` start and stop services of their own."""
    assert reader.run("sitrep up").returncode == 0
    assert reader.run("sitrep down").returncode == 0
