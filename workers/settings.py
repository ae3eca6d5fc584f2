"""Every setting of Sitrep, read in one place: defaults, a TOML file, the environment, then flags.

Nothing else in the project reads the environment.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

ENV_PREFIX: Final = "SITREP_"
CONFIG_FILE: Final = "sitrep.toml"
SHIPPED_CHECKPOINT: Final = Path(__file__).resolve().parent.parent / "model" / "checkpoints" / "compact"

Positive = Annotated[int, Meta(gt=0)]
Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0, le=1e9)]  # thirty years: whatever is longer, as `inf` is, breaks some clock
Wait = Annotated[float, Meta(ge=0, le=1e9)]

_PASSWORD: Final = re.compile(r"(\w+://)([^:@/\s]*:)?.*(?=@)|([?&]password=)[^&\s'\"]*")
_OWN_FLAGS: Final = ("kafka", "redis", "prefix", "checkpoint")  # the others are given by --set


class SettingsError(Exception):
    """A setting that is unknown or out of range; the message names its source, value and fix."""


class Settings(Struct, frozen=True, kw_only=True):
    """How Sitrep runs; what the model is, the checkpoint says."""

    kafka: Annotated[str, Meta(min_length=1, description="Kafka bootstrap servers, HOST:PORT[,HOST:PORT]")] = (
        "127.0.0.1:9092"
    )
    redis: Annotated[
        str,
        Meta(
            pattern="^(redis|rediss|unix)://",
            description="Redis URL",
            extra={"form": "write redis://HOST:PORT/0, rediss://HOST:PORT/0 or unix://PATH"},
        ),
    ] = "redis://127.0.0.1:6379/0"
    prefix: Annotated[
        str,
        Meta(
            pattern=r"^[a-zA-Z0-9._-]*\Z",
            description="prefix of topics, consumer groups and Redis keys",
            extra={"form": "write only A-Z, a-z, 0-9, dot, _ and -"},
        ),
    ] = "sitrep."
    instance: Annotated[
        str,
        Meta(
            pattern=r"^[a-zA-Z0-9._-]{0,200}\Z",
            description="the worker's name in its consumer group, which no other may have: started again under it after"
            " a crash, it takes its partitions back at once; empty: host name and web_port",
            extra={"form": "write at most 200 of A-Z, a-z, 0-9, dot, _ and -"},
        ),
    ] = ""
    partitions: Annotated[Positive, Meta(description="partitions of new topics")] = 12
    replication: Annotated[Positive, Meta(description="replicas of new topics")] = 1
    session_timeout_s: Annotated[
        float, Meta(gt=0, le=86_400, description="silence after which a worker loses its partitions")
    ] = 10.0
    max_stall_s: Annotated[
        float, Meta(gt=0, le=86_400, description="a worker that accepts nothing for so long loses its partitions")
    ] = 300.0
    request_timeout_s: Annotated[Seconds, Meta(description="wait for one answer of the broker")] = 15.0
    publish_timeout_s: Annotated[
        Seconds, Meta(description="how long a finding's delivery is retried before the worker exits")
    ] = 300.0
    exactly_once: Annotated[
        bool,
        Meta(
            description="commit outcomes and offsets together in Kafka transactions, so that consumers that read"
            " committed records only see no outcome twice; covers neither Redis nor posts that a feed sends twice"
        ),
    ] = False
    drain_timeout_s: Annotated[Seconds, Meta(description="how long a stopping worker finishes in-flight posts")] = 15.0
    max_record_bytes: Annotated[Positive, Meta(description="largest record that is read as a post")] = 2_097_152
    max_in_flight: Annotated[Positive, Meta(description="posts accepted and not yet acknowledged, per worker")] = 2_000
    max_in_flight_bytes: Annotated[
        Positive,
        Meta(description="bytes of the same, as they came; their decoded pictures may take as many besides"),
    ] = 67_108_864
    remembered_posts: Annotated[
        int,
        Meta(
            gt=0,
            le=100_000_000,
            description="the latest posts that a worker remembers to tell duplicates; about 50 bytes each, taken at"
            " the start; Redis, when it answers, remembers more",
        ),
    ] = 100_000
    max_batch: Annotated[Positive, Meta(description="posts classified together at most")] = 32
    linger_s: Annotated[Wait, Meta(description="longest wait to fill a micro-batch, from its first post")] = 0.05
    target_latency_s: Annotated[
        Seconds,
        Meta(description="latency that micro-batches are kept small for, of posts that need not queue"),
    ] = 1.0
    triage_lag_posts: Annotated[
        Count,
        Meta(description="consumer lag above which likely damage and casualties go first; 0 or exactly_once: never"),
    ] = 1_000
    triage_window_posts: Annotated[
        Positive, Meta(description="posts that wait, the oldest, among which triage puts some first")
    ] = 2_000
    triage_urgent_prob: Annotated[
        float, Meta(ge=0, le=1, description="probability of damage or casualties at which a post goes first")
    ] = 0.5
    max_overtake_s: Annotated[
        Wait, Meta(description="longest that a post may be overtaken, from when it would have had its turn")
    ] = 60.0
    no_image_rationale_lag_posts: Annotated[
        Count,
        Meta(description="consumer lag above which labels come without image rationale, marked; 0: never"),
    ] = 0
    text_only_lag_posts: Annotated[
        Count,
        Meta(description="consumer lag above which pictures of posts with text are not looked at, marked; 0: never"),
    ] = 0
    degrade_after_s: Annotated[
        Wait, Meta(description="how long lag must stay above its threshold before a degraded mode goes on")
    ] = 10.0
    recover_share: Annotated[
        float, Meta(gt=0, le=1, description="share of its threshold below which lag switches triage or a mode off")
    ] = 0.5
    classify_timeout_s: Annotated[
        Seconds, Meta(description="a micro-batch that takes longer is split and tried again")
    ] = 60.0
    max_hung_batches: Annotated[
        Positive, Meta(description="classifier hangs after which the worker exits for its supervisor")
    ] = 3
    image_processes: Annotated[Positive, Meta(description="processes that decode images")] = 1
    image_timeout_s: Annotated[Seconds, Meta(description="an image that takes longer to decode is left out")] = 5.0
    image_edge: Annotated[Positive, Meta(description="longest edge of a prepared image, pixels")] = 384
    max_image_pixels: Annotated[Positive, Meta(description="larger images are refused before decoding")] = 50_000_000
    image_folder: Annotated[str, Meta(description="folder that posts' image paths may point into; empty: none")] = ""
    checkpoint: Annotated[str, Meta(min_length=1, description="folder of the classifier's checkpoint")] = str(
        SHIPPED_CHECKPOINT
    )
    device: Annotated[str, Meta(description="torch device of the classifier")] = "cpu"
    threads: Annotated[
        int,
        Meta(ge=0, le=1024, description="CPU threads of the classifier; for more, run more workers; 0: torch decides"),
    ] = 1
    alert_threshold: Annotated[
        float, Meta(ge=0, le=1, description="probability of damage that raises an alert; 0: the checkpoint's own")
    ] = 0.0
    finding_ttl_s: Annotated[Seconds, Meta(description="how long Redis keeps a finding")] = 604_800.0
    latest_per_class: Annotated[Positive, Meta(description="findings kept in each Redis index")] = 1_000
    cache_buffer: Annotated[Positive, Meta(description="findings kept for Redis while it is away")] = 10_000
    web_host: Annotated[str, Meta(min_length=1, description="address of metrics and health")] = "127.0.0.1"
    web_port: Annotated[int, Meta(ge=0, le=65_535, description="port of metrics and health; 0: a free one")] = 6066
    ready_stall_s: Annotated[
        Seconds, Meta(description="not ready when there is lag and no batch finished for so long")
    ] = 60.0
    log_level: Annotated[
        str,
        Meta(
            pattern=r"^(debug|info|warning|error)\Z",
            description="log level",
            extra={"form": "write debug, info, warning or error"},
        ),
    ] = "info"


class Sourced(Struct, frozen=True, kw_only=True):
    """A setting's value and where it came from."""

    name: str
    value: Any
    source: str
    description: str


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Settings:
    """Return the settings; flags win over the environment, that over the file, that over defaults.

    Raises:
        SettingsError: a setting is unknown or its value is not allowed.
    """
    return _load(flags, environ=environ, file=file)[0]


def explain_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> list[Sourced]:
    """Return every setting with its value, the password left out, where that came from, and what it is for."""
    settings, sources = _load(flags, environ=environ, file=file)
    return [
        Sourced(
            name=name,
            value=without_password(settings.redis) if name == "redis" else getattr(settings, name),
            source=sources.get(name, "default"),
            description=description(name),
        )
        for name in Settings.__struct_fields__
    ]


def description(name: str) -> str:
    """Return what the setting is for."""
    return str((_info(name).extra_json_schema or {}).get("description", ""))


def without_password(text: str) -> str:
    """Return the text with `***` for the password of a URL in it: up to the last `@` of the line, to be sure."""
    return _PASSWORD.sub(r"\1\2\3***", text)


def as_variables(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings as the environment variables that say the same to another process."""
    return {f"{ENV_PREFIX}{name.upper()}": str(value) for name, value in values.items()}


def _info(name: str) -> Any:
    for field in msgspec.inspect.type_info(Settings).fields:  # type: ignore[attr-defined]
        if field.name == name:
            return field.type
    raise SettingsError(f"there is no setting {name!r}: `sitrep config` lists them")


def _load(
    flags: Mapping[str, Any] | None, *, environ: Mapping[str, str] | None, file: Path | None
) -> tuple[Settings, dict[str, str]]:
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    environ = os.environ if environ is None else environ
    named = environ.get(f"{ENV_PREFIX}CONFIG")
    path = file or Path(named or CONFIG_FILE)
    for source, found in (
        (f"file {path}", _from_file(path, required=bool(file or named))),
        ("environment", _from_environment(environ)),
        ("flag", {name: value for name, value in (flags or {}).items() if value is not None}),
    ):
        for name, value in found.items():
            shown = f"environment {ENV_PREFIX}{name.upper()}" if source == "environment" else source
            shown = f"flag --{'' if name in _OWN_FLAGS else 'set '}{name}" if source == "flag" else shown
            if name not in Settings.__struct_fields__:
                raise SettingsError(f"{shown}: there is no setting {name!r}; `sitrep config` lists them")
            _check(name, value, shown)
            values[name] = value
            sources[name] = shown
    return msgspec.convert(values, Settings, strict=False), sources


def _check(name: str, value: Any, source: str) -> None:
    try:
        msgspec.convert({name: value}, Settings, strict=False)
    except msgspec.ValidationError as error:
        form = (_info(name).extra or {}).get("form")
        why = form if form and isinstance(value, str) else str(error).partition(" - at ")[0]
        raise SettingsError(
            f"{source}: {name} = {_shown(name, value)} is not allowed: {why} ({description(name)})"
        ) from error
    addresses = value.split(",") if name == "kafka" else [value] if name == "redis" else []
    for address in addresses:
        wrong = _wrong_address(address.strip(), is_url=name == "redis")
        if wrong is not None:
            raise SettingsError(
                f"{source}: {name} = {_shown(name, value)} is not allowed: {wrong} ({description(name)})"
            )


def _shown(name: str, value: Any) -> str:
    if name != "redis" or not isinstance(value, str):
        return repr(value)
    if "://" not in value and "@" in value:  # no URL, but there may be a password in it
        return repr(f"***@{value.rpartition('@')[2]}")
    return repr(without_password(value))


def _wrong_address(address: str, *, is_url: bool) -> str | None:
    """Return what is wrong with one HOST:PORT or Redis URL, None when nothing is."""
    try:
        parts = urlsplit(address if is_url else f"//{address}")
        port = parts.port
    except ValueError as error:
        if is_url and "@" in address:  # what is taken for a port may be the rest of a password
            return "host or port is wrong: percent-encode what is special in a password, / as %2F"
        return str(error)
    if is_url:
        database = parts.path.removeprefix("/")
        if parts.scheme != "unix" and database and not database.isdecimal():
            shown = "" if "@" in database else f" {database!r}"
            return f"the database{shown} is no number: write redis://HOST:PORT/0"
        return None
    if not parts.hostname or port is None or parts.netloc != address:
        return f"{address!r} is not HOST:PORT"
    return None


def _from_file(path: Path, *, required: bool) -> dict[str, Any]:
    if path.is_dir():
        raise SettingsError(f"settings file {path} is a folder: rename it, or name a file by --config FILE")
    if not path.is_file():
        if required or path.exists():
            raise SettingsError(f"there is no settings file {path}: create it, or do not name it")
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {path} is not TOML: {error}") from error


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    return {
        key.removeprefix(ENV_PREFIX).lower(): value
        for key, value in environ.items()
        if key.startswith(ENV_PREFIX) and key != f"{ENV_PREFIX}CONFIG"
    }
