"""Options that several commands share, and how they become settings; runs nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from redis.exceptions import RedisError

    from stream.cache import FindingCache
    from stream.topics import Topics
    from workers.settings import Settings

_PANEL = "Where things are (all settings: `sitrep config`)"

Kafka = Annotated[
    str | None,
    typer.Option("--kafka", metavar="HOST:PORT", help="Kafka bootstrap servers.", rich_help_panel=_PANEL),
]
Redis = Annotated[str | None, typer.Option("--redis", metavar="URL", help="Redis URL.", rich_help_panel=_PANEL)]
Prefix = Annotated[
    str | None,
    typer.Option("--prefix", metavar="TEXT", help="Prefix of topics, groups and keys.", rich_help_panel=_PANEL),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings file (TOML).", rich_help_panel=_PANEL),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any other setting; may be repeated.", rich_help_panel=_PANEL),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
KafkaHome = Annotated[
    Path | None,
    typer.Option("--kafka-home", metavar="DIR", help="Start an unpacked Apache Kafka (needs Java 17) instead."),
]


def flags(
    *, kafka: str | None = None, redis: str | None = None, prefix: str | None = None, set_: list[str] | None = None
) -> dict[str, Any]:
    """Return the options as settings by name; a malformed `--set` is a usage error."""
    values: dict[str, Any] = {}
    for item in set_ or []:
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise typer.BadParameter(f"{item!r} is not NAME=VALUE: write for example --set linger_s=0.1")
        values[name.strip().replace("-", "_")] = value
    named = {"kafka": kafka, "redis": redis, "prefix": prefix}
    return values | {name: value for name, value in named.items() if value is not None}


def read_settings(
    *,
    kafka: str | None = None,
    redis: str | None = None,
    prefix: str | None = None,
    checkpoint: str | None = None,
    config: Path | None = None,
    set_: list[str] | None = None,
) -> Settings:
    """Return the settings as the options, the environment and the file give them."""
    from workers.setting_sources import load_settings

    given = flags(kafka=kafka, redis=redis, prefix=prefix, set_=set_)
    if checkpoint is not None:
        given["checkpoint"] = checkpoint
    return load_settings(given, file=config)


def topics_of(settings: Settings) -> Topics:
    """Return the topics of this installation."""
    from stream.topics import topics

    return topics(prefix=settings.prefix, n_partitions=settings.partitions, max_record_bytes=settings.max_record_bytes)


def cache_of(settings: Settings) -> FindingCache:
    """Return the cache of this installation; it connects at the first call."""
    from stream.cache import connect_cache

    return connect_cache(
        settings.redis,
        prefix=settings.prefix,
        ttl_s=settings.finding_ttl_s,
        latest_per_class=settings.latest_per_class,
    )


@asynccontextmanager
async def open_cache(settings: Settings) -> AsyncIterator[FindingCache]:
    """Yield the cache of this installation and close it after; errors of Redis name its address.

    Raises:
        CommandFailed: Redis does not answer, or refuses.
    """
    from redis.exceptions import RedisError

    from deploy.failure import CommandFailed

    cache = cache_of(settings)
    try:
        yield cache
    except RedisError as error:
        raise CommandFailed(redis_failure(error, settings.redis)) from error
    finally:
        await cache.close()


def redis_failure(error: RedisError, url: str | None = None) -> str:
    """Return what to tell the user: a Redis that answers with an error need not be started."""
    from redis import exceptions

    from workers.setting_sources import without_password

    name = "Redis" if url is None else f"Redis at {without_password(url)}"
    silent = isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError)
    refused = exceptions.AuthenticationError | exceptions.AuthorizationError | exceptions.BusyLoadingError
    if silent and not isinstance(error, refused):
        return f"{name} does not answer: {error}: start it or give another address (--redis)"
    return f"{name} refuses: {error}: check the URL (--redis)"
