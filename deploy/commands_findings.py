"""`sitrep findings` and `cache`: read what was found, and fill Redis again from the topic."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from deploy import options

if TYPE_CHECKING:
    from stream.errors import InvalidRecord
    from stream.records import Finding
    from workers.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("findings", rich_help_panel="Look up")(findings)
    cache = typer.Typer(no_args_is_help=True, help="The findings in Redis.")
    cache.command("rebuild")(rebuild)
    cache.callback()(lambda: None)  # keeps `rebuild` a word of its own
    app.add_typer(cache, name="cache", rich_help_panel="Operate")


def findings(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for new findings until Ctrl-C.")] = False,
    post_id: Annotated[str | None, typer.Option("--post-id", metavar="ID", help="The finding of this post.")] = None,
    label: Annotated[str | None, typer.Option("--label", metavar="CLASS", help="Only of this class.")] = None,
    n: Annotated[int, typer.Option("-n", min=1, metavar="N", help="How many of the newest.")] = 20,
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
    if label is not None:
        _check_label(label)
    if follow and post_id is not None:
        raise typer.BadParameter("--follow shows new findings, --post-id one that is there: give one of the two")
    if follow:
        asyncio.run(_follow(settings, label, as_json))
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


def rebuild(
    kafka: options.Kafka = None,
    redis: options.Redis = None,
    prefix: options.Prefix = None,
    config_file: options.Config = None,
    set_: options.Set = None,
) -> None:
    """Write the findings and alerts of the topics to Redis again; repeating it changes nothing.

    What is older than `finding_ttl_s` is left out.
    """
    from workers.setting_sources import without_password

    settings = options.read_settings(kafka=kafka, redis=redis, prefix=prefix, config=config_file, set_=set_)
    n_findings, n_alerts = asyncio.run(_rebuild(settings))
    typer.echo(f"{n_findings} findings and {n_alerts} alerts written to {without_password(settings.redis)}")


def _check_label(label: str) -> None:
    from deploy.render import LOOKS

    if label not in LOOKS:
        raise typer.BadParameter(f"{label!r} is no class: one of {', '.join(LOOKS)}", param_hint="--label")


async def _cached(settings: Settings, post_id: str | None, label: str | None, n: int) -> list[Finding]:
    async with options.open_cache(settings) as cache:
        if post_id is not None:
            finding = await cache.get(post_id)
            return [] if finding is None else [finding]
        return await cache.latest(label, n)


async def _follow(settings: Settings, label: str | None, as_json: bool) -> None:
    from stream.errors import InvalidRecord
    from stream.reader import tail_topic
    from stream.records import Finding, decode

    def tell(is_away: bool) -> None:
        state = "does not answer: waiting for it" if is_away else "answers again"
        typer.echo(f"sitrep: the Kafka broker at {settings.kafka} {state}", err=True)

    async for record in tail_topic(settings.broker, options.topics_of(settings).findings.name, on_away=tell):
        try:
            finding = decode(record.value, Finding)
        except InvalidRecord as error:
            typer.echo(f"sitrep: skipped a record of the findings topic: {error}", err=True)
            continue
        if label is None or finding.label == label:
            _show(finding, as_json=as_json, in_full=False)


async def _rebuild(settings: Settings) -> tuple[int, int]:
    from stream.cache_topics import read_entries
    from stream.cache_writer import fill

    def tell(topic: str, error: InvalidRecord) -> None:
        typer.echo(f"sitrep: skipped a record of {topic}: {error}", err=True)

    async with options.open_cache(settings) as cache:
        await cache.ping()
        return await fill(cache, read_entries(settings.broker, options.topics_of(settings), on_unreadable=tell))


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
        line = Text(f"{finding.accepted_at.astimezone():%H:%M:%S}  ", style="dim")
        line.append(f"{look(finding.label).name:<21}", style=f"bold {look(finding.label).style}")
        line.append(f"  {finding.probability:4.0%}  ")
        line.append(f"{safe(finding.post_id)}  ", style="dim")
        console.print(line + highlighted(finding.text, finding.text_rationale), soft_wrap=True)
