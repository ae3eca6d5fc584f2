"""`sitrep findings` and `alerts`: read what was found; change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from deploy import options

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord
    from msgspec import Struct

    from stream.records import Alert, Finding
    from workers.settings import Settings

R = TypeVar("R", bound="Struct")

Follow = Annotated[bool, typer.Option("--follow", "-f", help="Wait for new ones until Ctrl-C.")]
Newest = Annotated[int, typer.Option("-n", min=1, metavar="N", help="How many of the newest.")]

_FURTHER: Final = 4


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("findings", rich_help_panel="Look up")(findings)
    app.command("alerts", rich_help_panel="Look up")(alerts)


def findings(
    follow: Follow = False,
    post_id: Annotated[str | None, typer.Option("--post-id", metavar="ID", help="The finding of this post.")] = None,
    label: Annotated[
        str | None,
        typer.Option("--label", metavar="CLASS", help="Only of this class, by its name as shown or on the wire."),
    ] = None,
    n: Newest = 20,
    as_json: options.AsJson = False,
    kafka: options.Kafka = None,
    redis: options.Redis = None,
    prefix: options.Prefix = None,
    config_file: options.Config = None,
    set_: options.Set = None,
) -> None:
    """Show the newest findings, one by post id, or new ones as they come.

    The newest come from Redis, new ones (`--follow`) from the findings topic. On a terminal the words
    behind each label are highlighted; with `--json` each line is one finding.
    """
    from deploy.failure import CommandFailed

    settings = options.read_settings(kafka=kafka, redis=redis, prefix=prefix, config=config_file, set_=set_)
    label = None if label is None else _class_of(label)
    if follow and post_id is not None:
        raise typer.BadParameter("--follow shows new findings, --post-id one that is there: give one of the two")
    if follow:
        asyncio.run(_follow_findings(settings, label, as_json))
        return
    found = asyncio.run(_cached(settings, post_id, label, n))
    if post_id is not None and not found:
        raise CommandFailed(
            f"no finding of post {post_id!r} in Redis: it is not classified yet, or expired"
            f" (findings stay {settings.finding_ttl_s / 86_400:g} days)"
        )
    if not found and not as_json:
        typer.echo("no findings")
    for finding in found if post_id is not None else reversed(found):
        _show(finding, as_json=as_json, in_full=post_id is not None)


def alerts(
    follow: Follow = False,
    n: Newest = 20,
    as_json: options.AsJson = False,
    kafka: options.Kafka = None,
    prefix: options.Prefix = None,
    config_file: options.Config = None,
    set_: options.Set = None,
) -> None:
    """Show the newest alerts, or new ones as they come; the newest is last.

    They come from the alerts topic, and need no Redis. An alert that was delivered twice is shown once, with `--follow`
    as often as it comes; with `--json` each line is one alert.
    """
    settings = options.read_settings(kafka=kafka, prefix=prefix, config=config_file, set_=set_)
    if follow:
        asyncio.run(_follow_alerts(settings, as_json))
        return
    found = asyncio.run(_newest_alerts(settings, n))
    if not found and not as_json:
        typer.echo("no alerts")
    for alert in found:
        _show_alert(alert, as_json=as_json)


def _class_of(name: str) -> str:
    from deploy.render import LOOKS

    wanted = " ".join(name.lower().split())
    for label, shown in LOOKS.items():
        if wanted in (label, shown.name):
            return label
    choices = ", ".join(f"'{shown.name}' ({label})" for label, shown in LOOKS.items())
    raise typer.BadParameter(f"{name!r} is no class: one of {choices}", param_hint="--label")


async def _cached(settings: Settings, post_id: str | None, label: str | None, n: int) -> list[Finding]:
    async with options.open_cache(settings) as cache:
        if post_id is not None:
            finding = await cache.get(post_id)
            return [] if finding is None else [finding]
        return await cache.latest(label, n)


async def _newest_alerts(settings: Settings, n: int) -> list[Alert]:
    """Read the topic from its end, further back until there are enough: an alert may be there more than once."""
    from stream.reader import Bounds, read_batches, topic_bounds
    from stream.records import Alert

    topic = options.topics_of(settings).alerts.name
    kept = await topic_bounds(settings.broker, topic)
    ends = {number: bound.end for number, bound in kept.items()}
    found: dict[str, tuple[int, int, Alert]] = {}  # when it was published, and its offset
    n_back = n
    while len(found) < n and any(end > kept[number].first for number, end in ends.items()):
        look = {number: Bounds(first=max(kept[number].first, end - n_back), end=end) for number, end in ends.items()}
        async for batch in read_batches(settings.broker, topic, bounds=look):
            for record in batch:
                alert = _read(record, Alert)
                if alert is not None:
                    found[alert.id] = (record.timestamp, record.offset, alert)
        ends = {number: bound.first for number, bound in look.items()}
        n_back *= _FURTHER
    return [alert for _, _, alert in sorted(found.values(), key=itemgetter(0, 1))[-n:]]


async def _follow_findings(settings: Settings, label: str | None, as_json: bool) -> None:
    from stream.records import Finding

    def show(finding: Finding) -> None:
        if label is None or finding.label == label:
            _show(finding, as_json=as_json, in_full=False)

    await _follow(settings, options.topics_of(settings).findings.name, Finding, show)


async def _follow_alerts(settings: Settings, as_json: bool) -> None:
    from stream.records import Alert

    def show(alert: Alert) -> None:
        _show_alert(alert, as_json=as_json)

    await _follow(settings, options.topics_of(settings).alerts.name, Alert, show)


async def _follow(settings: Settings, topic: str, kind: type[R], show: Callable[[R], None]) -> None:
    from stream.reader import tail_topic

    def tell(is_away: bool) -> None:
        state = "does not answer: waiting for it" if is_away else "answers again"
        typer.echo(f"sitrep: the Kafka broker at {settings.kafka} {state}", err=True)

    async for record in tail_topic(settings.broker, topic, on_away=tell):
        outcome = _read(record, kind)
        if outcome is not None:
            show(outcome)


def _read(record: ConsumerRecord, kind: type[R]) -> R | None:
    """Return what the record holds; one that is no such record is told, and left out."""
    from stream.errors import InvalidRecord
    from stream.records import decode

    try:
        return decode(record.value, kind)
    except InvalidRecord as error:
        typer.echo(f"sitrep: skipped a record of {record.topic}: {error}", err=True)
        return None


def _show(finding: Finding, *, as_json: bool, in_full: bool) -> None:
    import sys

    from rich.console import Console
    from rich.text import Text

    from deploy.render import finding_line, finding_lines, highlighted, look, safe
    from stream.records import encode

    if as_json:
        typer.echo(encode(finding))
        return
    console = Console()
    if in_full:
        console.print(finding_lines(finding, plain=not sys.stdout.isatty()), soft_wrap=True)
    elif not sys.stdout.isatty():
        typer.echo(finding_line(finding))
    else:
        line = Text.assemble((f"{finding.accepted_at.astimezone():%H:%M:%S}  ", "dim"))
        line.append(f"{look(finding.label).name:<21}", style=f"bold {look(finding.label).style}")
        line.append(f"  {finding.probability:4.0%}  ")
        line.append(f"{safe(finding.post_id)}  ", style="dim")
        console.print(line + highlighted(finding.text, finding.text_rationale), soft_wrap=True)


def _show_alert(alert: Alert, *, as_json: bool) -> None:
    import sys

    from rich.console import Console
    from rich.text import Text

    from deploy.render import alert_line
    from stream.records import encode

    if as_json:
        typer.echo(encode(alert))
    elif not sys.stdout.isatty():
        typer.echo(f"{alert.raised_at:%Y-%m-%d %H:%M:%S}  {alert_line(alert)}")
    else:
        when = f"{alert.raised_at.astimezone():%Y-%m-%d %H:%M:%S}  "
        Console().print(Text.assemble((when, "dim"), (alert_line(alert), "bold red")), soft_wrap=True)
