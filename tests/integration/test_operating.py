"""What an operator gets wrong, on topics that are there: each ends in one line, none looks like success."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from deploy.cli import main
from deploy.replaying import Replay
from stream.broker import Broker
from stream.headers import ATTEMPT, Cause, dead_letter_headers
from stream.reader import tail_topic
from stream.records import Alert, Origin, Post, decode, encode
from tests.chaos.field import Field, Raw
from tests.integration.conftest import OpenField
from tests.stream.findings import alert, finding
from workers.setting_sources import load_settings

pytestmark = pytest.mark.integration

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def field(open_field: OpenField) -> Field:
    """Topics of two partitions, without a worker."""
    return open_field("operating", partitions=2)


@pytest.fixture
def command(field: Field, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str, prefix: str = field.prefix) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as leaving:
            main([*arguments, "--kafka", field.kafka, "--prefix", prefix])
        out, err = capsys.readouterr()
        return int(leaving.value.code or 0), out, err

    return run


def test_topics_are_described_as_the_broker_has_them(field: Field, command: Command) -> None:
    """A setting that came later changes no topic, and both commands say so."""
    name = field.topics.posts.name
    for arguments in (["create"], ["describe"]):
        code, out, _ = command("topics", *arguments, "--set", "partitions=5")
        assert code == 0
        [line] = [line for line in out.splitlines() if name in line]
        assert "2 (setting: 5)" in line

    _, out, _ = command("topics", "describe", "--json", "--set", "partitions=5")
    assert {row["n_partitions"] for row in json.loads(out)} == {1, 2}

    _, out, _ = command("topics", "describe", "--set", "partitions=2")
    assert "setting:" not in out


@pytest.mark.parametrize("arguments", [["--id", "nobody"], ["--reason", "nothing"]])
def test_dead_letter_that_is_not_there_is_not_put_back(command: Command, arguments: list[str]) -> None:
    code, _, err = command("dead-letters", "replay", *arguments)

    assert code == 1
    assert arguments[1] in err
    assert err.count("\n") == 1


def test_nothing_to_put_back_is_no_error(command: Command) -> None:
    code, out, _ = command("dead-letters", "replay", "--all")

    assert code == 0
    assert out.startswith("0 put back")


def test_dead_letter_goes_back_to_a_topic_that_has_fewer_partitions_now(
    open_field: OpenField, runner: asyncio.Runner, command: Command
) -> None:
    """Its topic may have been made anew since."""
    other = open_field("anew", partitions=2)
    topic = other.topics.posts.name
    runner.run(other.feed([dead_letter(topic, partition=7, offset=3)], topic=other.topics.dead_letters.name))

    code, out, err = command("dead-letters", "replay", "--all", prefix=other.prefix)

    assert (code, err) == (0, "")
    assert "1 put back" in out
    ends = runner.run(other.ends())
    assert ends[0] == 0 and ends[1] > 0


def test_post_that_failed_again_goes_back_only_when_it_is_asked_for(
    open_field: OpenField, runner: asyncio.Runner, command: Command
) -> None:
    """Else a poison post would go round with each `--all`."""
    other = open_field("again", partitions=1)
    topic = other.topics.posts.name
    letters = [dead_letter(topic, offset=offset, attempt=offset) for offset in (1, 2, 3, 4)]
    runner.run(other.feed(letters, topic=other.topics.dead_letters.name))

    def replayed(*arguments: str) -> tuple[list[str], str]:
        code, out, err = command("dead-letters", "replay", *arguments, prefix=other.prefix)
        assert (code, err) == (0, "")
        *lines, summary = out.splitlines()
        return [line.removeprefix("put back  ") for line in lines if line.startswith("put back")], summary

    assert replayed("--all") == ([f"{topic}-0-1"], "1 put back, 0 had been before, 3 left")
    assert replayed("--all") == ([], "0 put back, 1 had been before, 3 left")
    assert replayed("--reason", "invalid") == ([], "0 put back, 1 had been before, 3 left")
    assert replayed("--id", f"{topic}-0-3") == ([f"{topic}-0-3"], "1 put back, 0 had been before, 0 left")
    assert replayed("--all", "--max-attempts", "3") == ([f"{topic}-0-2"], "1 put back, 2 had been before, 1 left")
    assert runner.run(other.ends())[0] > 0


def test_post_that_is_too_large_fails_the_replay(open_field: OpenField, command: Command, tmp_path: Path) -> None:
    """The others are sent, and it is named."""
    other = open_field("large", partitions=1)
    posts = [Post(id=f"p{number}", text="x" * (200_000 if number in (1, 3) else 9)) for number in range(5)]
    file = tmp_path / "posts.jsonl"
    file.write_bytes(b"\n".join(map(encode, posts)))

    code, out, _ = command("replay", str(file), "--set", "max_record_bytes=1000", prefix=other.prefix)

    assert code == 1
    assert "sent 3 posts" in out
    assert "left out: 2 posts larger than the topic takes (max_record_bytes): p1, p3\n" in out


def test_replay_waits_for_its_own_posts_only(
    open_field: OpenField, runner: asyncio.Runner, command: Command, tmp_path: Path
) -> None:
    """On a live feed some post of another is always without its outcome."""
    other = open_field("live", partitions=1)
    theirs = [Raw(key=b"theirs", value=b"{}", partition=0)]
    runner.run(other.feed(theirs))
    file = tmp_path / "posts.jsonl"
    file.write_bytes(b"\n".join(encode(Post(id=f"p{number}", text="flood")) for number in range(3)))
    settings = load_settings({"kafka": other.kafka, "prefix": other.prefix})
    replay = Replay(settings=settings, file=file, images=None, rate_per_s=None, limit=None, wait=True)

    stop = asyncio.Event()

    async def answer() -> None:
        async with aclosing(tail_topic(Broker(other.kafka), other.topics.posts.name)) as posts:
            async for post in posts:
                if stop.is_set():
                    return
                origin = Origin(topic=post.topic, partition=post.partition, offset=post.offset)
                found = Raw(value=encode(msgspec.structs.replace(finding(post.offset), origin=origin)))
                await other.feed(theirs)
                await other.feed([found] * (post.key != b"theirs"), topic=other.topics.findings.name)

    async def replayed() -> bool:
        answering = asyncio.create_task(answer())
        await asyncio.sleep(1)  # until it reads
        try:
            async with asyncio.timeout(30):
                return await replay.run()
        finally:
            stop.set()
            await answering

    assert runner.run(replayed())


def test_rebuilt_cache_has_all_but_what_is_no_finding(
    open_field: OpenField, runner: asyncio.Runner, command: Command
) -> None:
    """And says what it left out."""
    other = open_field("rebuilt", partitions=2)
    found = [Raw(value=encode(finding(1)), partition=0), Raw(value=b"{}", partition=0), Raw(value=encode(finding(2)))]
    runner.run(other.feed(found, topic=other.topics.findings.name))
    runner.run(other.feed([Raw(value=encode(alert(1)))], topic=other.topics.alerts.name))

    lasting = ["--redis", other.redis, "--set", "finding_ttl_s=1e9"]  # they are of some years ago
    code, out, err = command("cache", "rebuild", *lasting, prefix=other.prefix)

    assert code == 0
    assert out.startswith("2 findings and 1 alerts written")
    assert err.count("\n") == 1 and f"skipped a record of {other.topics.findings.name}" in err
    code, out, _ = command("findings", "--json", "--redis", other.redis, prefix=other.prefix)
    assert (code, out.count("\n")) == (0, 2)


def test_newest_alerts_are_shown_once_each(open_field: OpenField, runner: asyncio.Runner, command: Command) -> None:
    """The newest last, however often each was delivered; what is no alert is named."""
    other = open_field("alerts", partitions=1)
    assert command("alerts", prefix=other.prefix) == (0, "no alerts\n", "")
    assert command("alerts", "--json", prefix=other.prefix) == (0, "", "")
    values = [encode(alert(number)) for number in (1, 2, 2, 3, 3, 3)]
    records = [Raw(value=value) for value in [*values[:3], b"{}", *values[3:]]]
    runner.run(other.feed(records, topic=other.topics.alerts.name))

    code, out, err = command("alerts", "-n", "2", "--json", prefix=other.prefix)

    assert (code, err.count("\n")) == (0, 1)
    assert f"skipped a record of {other.topics.alerts.name}" in err
    assert [decode(line.encode(), Alert) for line in out.splitlines()] == [alert(2), alert(3)]
    code, out, _ = command("alerts", prefix=other.prefix)
    assert code == 0
    assert [line.split("  ")[3] for line in out.splitlines()] == ["1.00"] * 3
    assert [line.split("  ")[4] for line in out.splitlines()] == ["p1", "p2", "p3"]


def test_new_alerts_are_shown_as_they_come(open_field: OpenField, runner: asyncio.Runner) -> None:
    """Until the reader is interrupted."""
    other = open_field("followed", partitions=1)
    where = ["--kafka", other.kafka, "--prefix", other.prefix]

    async def followed() -> tuple[bytes, int]:
        reader = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "deploy.cli", "alerts", "--follow", *where, stdout=subprocess.PIPE
        )
        assert reader.stdout is not None
        line = asyncio.create_task(reader.stdout.readline())
        try:
            async with asyncio.timeout(60):
                while not line.done():
                    await other.feed([Raw(value=encode(alert(7)))], topic=other.topics.alerts.name)
                    await asyncio.wait([line], timeout=0.5)
        finally:
            reader.send_signal(signal.SIGINT)
            code = await reader.wait()
        return line.result(), code

    line, code = runner.run(followed())

    assert line.endswith(b"ALERT  infrastructure damage  1.00  p7  bridge down\n")
    assert code == 130


def test_alerts_without_their_topic_say_what_makes_it(command: Command) -> None:
    code, out, err = command("alerts", prefix="nobody.")

    assert (code, out) == (1, "")
    assert err.count("\n") == 1 and "no topic nobody.alerts" in err and "sitrep topics create" in err


def test_id_of_a_stranger_cannot_steer_the_terminal(
    open_field: OpenField, runner: asyncio.Runner, command: Command
) -> None:
    """Nor forge a line of the ledger."""
    other = open_field("hostile", partitions=1)
    runner.run(other.feed([Raw(key=b"x\x1b]0;mine\x07\nledger: missing=0", value=b"{}")]))

    code, out, _ = command("ledger", "check", prefix=other.prefix)

    assert code == 1
    assert "\x1b" not in out and "\x07" not in out
    assert [line.split()[0] for line in out.splitlines()] == ["missing", "ledger:"]


def dead_letter(topic: str, *, offset: int, partition: int = 0, attempt: int = 1) -> Raw:
    headers = [(ATTEMPT, str(attempt).encode())]
    record = SimpleNamespace(topic=topic, partition=partition, offset=offset, headers=headers)
    cause = Cause(reason="invalid", stage="prepare", error=ValueError("no text"))
    return Raw(key=b"p", value=b"{}", headers=dead_letter_headers(record, cause), partition=0)


def worker(field: Field, *settings: str) -> tuple[int, str]:
    """Exit code and log of a worker that cannot run."""
    given = ["--kafka", field.kafka, "--redis", field.redis, "--prefix", field.prefix]
    given += [part for one in settings for part in ("--set", one)]
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "worker", "--stage", "prepare", *given],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    return done.returncode, done.stderr


def test_port_that_is_taken_is_told_before_anything_starts(field: Field) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, log = worker(field, f"web_port={port}")

    assert code == 1
    assert log.startswith("sitrep: ")
    assert f"127.0.0.1:{port}" in log and "web_port" in log
    assert log.count("\n") == 1


def test_session_that_the_broker_refuses_ends_the_worker(field: Field) -> None:
    """It would look alive to its supervisor, and never get a post."""
    code, log = worker(field, "web_port=0", "session_timeout_s=1")

    assert code == 1
    assert log.splitlines()[-1].startswith("sitrep: the broker refuses session_timeout_s = 1")
