"""Dead letters on a broker, listed, shown and put back a few at a time, as where they do not fit in memory together."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaProducer

from deploy.cli import main
from stream.headers import ATTEMPT, Cause, dead_letter_headers, first_header, pointer_headers
from tests.chaos.field import Field, Raw
from tests.integration.conftest import OpenField, read_all

pytestmark = pytest.mark.integration

Command = Callable[..., list[str]]

# number of the post, and the attempt that failed
FAILED = [(number, 1) for number in range(6)] + [(1, 2), (4, 2), (1, 3)]
OMITTED = 7


@pytest.fixture
def field(open_field: OpenField, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> Field:
    """Posts that failed, some of them again, and one whose bytes were too large to be kept."""
    monkeypatch.setattr("stream.dead_letters._LETTERS_PER_TRANSACTION", 2)
    monkeypatch.setattr("stream.letter_survey._PORTION_BYTES", 600)
    monkeypatch.setattr("stream.letter_survey._GAP_BYTES", 300)
    field = open_field("portions", partitions=1)
    letters = [letter(field, number, attempt=attempt) for number, attempt in FAILED]
    omitted = letter(field, OMITTED)
    letters.append(Raw(value=None, key=b"p", headers=pointer_headers(omitted.headers, size_bytes=9_000), partition=0))
    runner.run(field.feed(letters, topic=field.topics.dead_letters.name))
    return field


@pytest.fixture
def command(field: Field, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str) -> list[str]:
        with pytest.raises(SystemExit) as leaving:
            main(["dead-letters", *arguments, "--kafka", field.kafka, "--prefix", field.prefix])
        out, err = capsys.readouterr()
        assert (int(leaving.value.code or 0), err) == (0, "")
        return out.splitlines()

    return run


def letter(field: Field, number: int, *, attempt: int = 1) -> Raw:
    headers = [(ATTEMPT, str(attempt).encode())]
    record = SimpleNamespace(topic=field.topics.posts.name, partition=0, offset=number, headers=headers)
    cause = Cause(reason="invalid", stage="prepare", error=ValueError("no text"))
    return Raw(value=b"post %d" % number, headers=dead_letter_headers(record, cause), partition=0)


def test_each_letter_goes_back_once_in_its_order(field: Field, runner: asyncio.Runner, command: Command) -> None:
    topic = field.topics.posts.name
    ids = [f"{topic}-0-{number}" for number in (*range(6), OMITTED)]

    _, *lines = command("list")
    assert [(line.split()[0], line.split()[2]) for line in lines] == list(zip(ids, "1311211", strict=True))
    listed = [json.loads(line) for line in command("list", "--json")]
    assert [(one["id"], one["replayed"]) for one in listed] == [(name, False) for name in ids]
    [*_, shown] = command("show", ids[1])
    assert shown == "value     6 bytes: b'post 1'"

    *lines, summary = command("replay", "--all", "--max-attempts", "2")
    assert [line.split()[2] for line in lines if line.startswith("put back")] == [ids[n] for n in (0, 2, 3, 4, 5)]
    assert [line.split()[1] for line in lines if line.startswith("left")] == [ids[6], ids[1]]
    assert summary == "5 put back, 0 had been before, 2 left"
    assert command("replay", "--all", "--max-attempts", "2")[-1] == "0 put back, 5 had been before, 2 left"
    assert command("replay", "--id", ids[1], "--id", ids[0])[-1] == "1 put back, 1 had been before, 0 left"

    posts = runner.run(read_all(field.kafka, topic))
    assert [one.value for one in posts] == [b"post %d" % number for number in (0, 2, 3, 4, 5, 1)]
    assert [first_header(one.headers, ATTEMPT) for one in posts] == ["2", "2", "2", "3", "2", "4"]
    assert all(json.loads(line)["replayed"] for line in command("list", "--json")[:-1])


def test_letter_of_a_record_of_nothing_goes_back(
    open_field: OpenField, runner: asyncio.Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other clients send records without key and value, which aiokafka does not."""
    field = open_field("nothing", partitions=1)

    async def feed() -> None:
        async with AIOKafkaProducer(bootstrap_servers=field.kafka) as producer:
            batch = producer.create_batch()
            headers = letter(field, 0).headers
            batch.append(key=None, value=None, timestamp=None, headers=headers)
            await (await producer.send_batch(batch, field.topics.dead_letters.name, partition=0))

    runner.run(feed())
    with pytest.raises(SystemExit) as leaving:
        main(["dead-letters", "replay", "--all", "--kafka", field.kafka, "--prefix", field.prefix])
    assert leaving.value.code in (0, None), capsys.readouterr().err
    assert [one.value or b"" for one in runner.run(read_all(field.kafka, field.topics.posts.name))] == [b""]
