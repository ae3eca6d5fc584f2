"""`sitrep topics` and `ledger`: what is on the topics, and whether every post has its outcome."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deploy import options

if TYPE_CHECKING:
    from stream.book import PartitionCounts
    from stream.broker import Broker
    from stream.ledger import Ledger
    from stream.reader import Bounds
    from stream.records import Origin
    from stream.topics import Topic, Topics


def register(app: typer.Typer) -> None:
    """Add the command groups."""
    topics = typer.Typer(no_args_is_help=True, help="Create or describe the Kafka topics.")
    topics.command("create")(create)
    topics.command("describe")(describe)
    app.add_typer(topics, name="topics", rich_help_panel="Operate")
    ledger = typer.Typer(no_args_is_help=True, help="Check that every accepted post has its outcome.")
    ledger.command("check")(check)
    ledger.callback()(lambda: None)  # keeps `check` a word of its own
    app.add_typer(ledger, name="ledger", rich_help_panel="Operate")


def create(
    kafka: options.Kafka = None,
    prefix: options.Prefix = None,
    config_file: options.Config = None,
    set_: options.Set = None,
) -> None:
    """Create the topics that do not exist yet; partitions and replicas are settings."""
    from stream.topics import create_topics

    settings = options.read_settings(kafka=kafka, prefix=prefix, config=config_file, set_=set_)
    topics = options.topics_of(settings)
    created = asyncio.run(create_topics(settings.broker, topics.all(), replication=settings.replication))
    for topic, bounds in zip(topics.all(), asyncio.run(_held(settings.broker, topics)), strict=True):
        there = _partitions(topic, bounds)
        note = "" if there == str(topic.n_partitions) else f"  partitions: {there}"
        typer.echo(f"{'created' if topic.name in created else 'exists '}  {topic.name}{note}")


def describe(
    as_json: options.AsJson = False,
    kafka: options.Kafka = None,
    prefix: options.Prefix = None,
    config_file: options.Config = None,
    set_: options.Set = None,
) -> None:
    """Show each topic: what is on it, its key, partitions and records there, and how long they are to be kept."""
    import msgspec
    from rich.console import Console
    from rich.table import Table

    settings = options.read_settings(kafka=kafka, prefix=prefix, config=config_file, set_=set_)
    topics = options.topics_of(settings)
    held = asyncio.run(_held(settings.broker, topics))
    if as_json:
        rows = [
            msgspec.to_builtins(topic)
            | {"exists": bounds is not None, "n_offsets": None if bounds is None else _n_records(bounds)}
            | ({} if bounds is None else {"n_partitions": len(bounds)})
            for topic, bounds in zip(topics.all(), held, strict=True)
        ]
        typer.echo(msgspec.json.format(msgspec.json.encode(rows)).decode())
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("topic", "partitions", "records", "kept", "key", "what is on it"):
        justify: Literal["right", "left"] = "right" if heading in ("partitions", "records", "kept") else "left"
        table.add_column(heading, justify=justify, no_wrap=heading != "what is on it")
    for topic, bounds in zip(topics.all(), held, strict=True):
        days = f"{topic.retention_ms / 86_400_000:g} d"
        records = "not there" if bounds is None else f"{_n_records(bounds):,}"
        table.add_row(topic.name, _partitions(topic, bounds), records, days, topic.key, topic.purpose)
    Console().print(table)


def check(
    wait_s: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0, help="Wait so long for missing outcomes.")
    ] = 0.0,
    show_partitions: Annotated[
        bool, typer.Option("--partitions", help="Show the counts of each partition and its range of offsets.")
    ] = False,
    show_ids: Annotated[bool, typer.Option("--ids", help="Show every accepted post with its outcome.")] = False,
    as_json: options.AsJson = False,
    kafka: options.Kafka = None,
    prefix: options.Prefix = None,
    config_file: options.Config = None,
    set_: options.Set = None,
) -> None:
    """Check that every accepted post has exactly one kind of outcome; exits 1 when one is missing or extra."""
    import msgspec

    from deploy.render import safe

    settings = options.read_settings(kafka=kafka, prefix=prefix, config=config_file, set_=set_)
    ledger = asyncio.run(_checked(settings.broker, options.topics_of(settings), wait_s, keep_ids=show_ids))
    if as_json:
        typer.echo(msgspec.json.encode(msgspec.to_builtins(ledger)))
    else:
        for one in ledger.entries:
            if one.outcome is not None:  # the missing follow below
                typer.echo(f"{one.outcome:<11}  {_place(one.origin)}  {safe(one.post_id)}")
        if show_partitions:
            for part in ledger.partitions:
                typer.echo(_counts(part))
        for entry in ledger.missing:
            typer.echo(f"missing    {_place(entry.origin)}  {safe(entry.post_id)}")
        for origin in ledger.extra:
            typer.echo(f"extra      {_place(origin)}")
        for finding_id in ledger.differing:
            typer.echo(f"differing  {finding_id}")
        if ledger.repeated:
            typer.echo(f"{len(ledger.repeated)} findings were delivered more than once")
        typer.echo(ledger.summary())
    if not ledger.balanced:
        raise typer.Exit(1)


async def _checked(broker: Broker, topics: Topics, wait_s: float, *, keep_ids: bool) -> Ledger:
    from stream.ledger import read_ledger

    deadline = time.monotonic() + wait_s
    while True:
        start = time.monotonic()
        ledger = await read_ledger(broker, topics, keep_ids=keep_ids)
        now = time.monotonic()
        if not ledger.missing or now >= deadline:
            return ledger
        await asyncio.sleep(min(max(0.5, now - start), deadline - now))


async def _held(broker: Broker, topics: Topics) -> list[dict[int, Bounds] | None]:
    """What the broker has of each topic, None where it has no such topic."""
    from stream.reader import UnknownTopic, topic_bounds

    held: list[dict[int, Bounds] | None] = []
    for topic in topics.all():
        try:
            held.append(await topic_bounds(broker, topic.name))
        except UnknownTopic:
            held.append(None)
    return held


def _n_records(bounds: dict[int, Bounds]) -> int:
    return sum(bound.end - bound.first for bound in bounds.values())


def _partitions(topic: Topic, bounds: dict[int, Bounds] | None) -> str:
    """The broker's number of partitions, and the setting where it is another."""
    if bounds is None or len(bounds) == topic.n_partitions:
        return str(topic.n_partitions)
    return f"{len(bounds)} (setting: {topic.n_partitions})"


def _counts(part: PartitionCounts) -> str:
    if part.first == part.end:
        return f"partition {part.partition}: no posts"
    return (
        f"partition {part.partition}, offsets {part.first} to {part.end - 1}: accepted={part.accepted}"
        f" findings={part.findings} dead_letters={part.dead_letters} duplicates={part.duplicates}"
        f" missing={part.missing}"
    )


def _place(origin: Origin) -> str:
    return f"{origin.topic}-{origin.partition}-{origin.offset}"
