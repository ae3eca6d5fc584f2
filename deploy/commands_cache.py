"""`sitrep cache`: fill Redis again from the topics; reads nothing else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from deploy import options

if TYPE_CHECKING:
    from stream.errors import InvalidRecord
    from workers.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command group."""
    cache = typer.Typer(no_args_is_help=True, help="The findings and alerts in Redis.")
    cache.command("rebuild")(rebuild)
    cache.callback()(lambda: None)  # keeps `rebuild` a word of its own
    app.add_typer(cache, name="cache", rich_help_panel="Operate")


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


async def _rebuild(settings: Settings) -> tuple[int, int]:
    from stream.cache_topics import read_entries
    from stream.cache_writer import fill

    def tell(topic: str, error: InvalidRecord) -> None:
        typer.echo(f"sitrep: skipped a record of {topic}: {error}", err=True)

    async with options.open_cache(settings) as cache:
        await cache.ping()
        return await fill(cache, read_entries(settings.broker, options.topics_of(settings), on_unreadable=tell))
