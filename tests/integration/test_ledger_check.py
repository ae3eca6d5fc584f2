"""`sitrep ledger check` on real topics: it names what is missing and what is extra, and says so by its exit code."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from deploy.cli import main
from stream.records import Duplicate, Finding, Origin, encode
from tests.chaos.field import Field, Raw, numbered
from tests.integration.conftest import OpenField
from tests.stream.findings import finding

pytestmark = pytest.mark.integration


@pytest.fixture
def field(open_field: OpenField) -> Field:
    """Topics of the test's own, without a worker."""
    return open_field("ledger", partitions=2)


def check_ledger(field: Field, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, list[str]]:
    with pytest.raises(SystemExit) as leaving:
        main(["ledger", "check", "--kafka", field.kafka, "--prefix", field.prefix, *flags])
    assert isinstance(leaving.value.code, int)
    return leaving.value.code, capsys.readouterr().out.splitlines()


def test_missing_and_extra_are_named(field: Field, runner: asyncio.Runner, capsys: pytest.CaptureFixture[str]) -> None:
    posts = field.topics.posts.name
    records = [Raw(key=record.key, value=record.value, partition=0) for record in numbered(3)]
    runner.run(field.feed(records))

    def decided(origin: Origin, number: int) -> Finding:
        return msgspec.structs.replace(finding(number), origin=origin)

    done = [Origin(topic=posts, partition=0, offset=offset) for offset in range(3)]
    stranger = Origin(topic="elsewhere", partition=0, offset=7)
    runner.run(field.feed([Raw(value=encode(decided(done[0], 0)))], topic=field.topics.findings.name))
    runner.run(
        field.feed(
            [Raw(value=encode(Duplicate(post_id="post-000001", origin=done[1], first=done[0], differs=False)))],
            topic=field.topics.duplicates.name,
        )
    )

    code, lines = check_ledger(field, capsys, "--partitions", "--ids")
    assert code == 1
    assert lines == [
        f"finding      {posts}-0-0  post-000000",
        f"duplicate    {posts}-0-1  post-000001",
        "partition 0, offsets 0 to 2: accepted=3 findings=1 dead_letters=0 duplicates=1 missing=1",
        "partition 1: no posts",
        f"missing    {posts}-0-2  post-000002",
        "ledger: accepted=3 findings=1 dead_letters=0 duplicates=1 missing=1",
    ]

    runner.run(field.feed([Raw(value=encode(decided(done[2], 2)))], topic=field.topics.findings.name))
    code, lines = check_ledger(field, capsys)
    assert (code, lines) == (0, ["ledger: accepted=3 findings=2 dead_letters=0 duplicates=1 missing=0"])

    runner.run(field.feed([Raw(value=encode(decided(stranger, 9)))], topic=field.topics.findings.name))
    code, lines = check_ledger(field, capsys)
    assert (code, lines[0]) == (1, "extra      elsewhere-0-7")
