"""Reads the settings in one place: defaults, a TOML file, the environment, then flags; says what is wrong with one.

Nothing else in the project reads the environment.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from workers.settings import Settings, SettingsError, check_buffer, description, info

ENV_PREFIX: Final = "SITREP_"
CONFIG_FILE: Final = "sitrep.toml"
_PASSWORD: Final = re.compile(r"(\w+://)([^:@/\s]*:)?.*(?=@)|([?&]password=)[^&\s'\"]*")
_OWN_FLAGS: Final = ("kafka", "redis", "prefix", "checkpoint")  # the others are given by --set


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
            value=_without_secret(name, getattr(settings, name)),
            source=sources.get(name, "default"),
            description=description(name),
        )
        for name in Settings.__struct_fields__
    ]


def without_password(text: str) -> str:
    """Return the text with `***` for the password of a URL in it: up to the last `@` of the line, to be sure."""
    return _PASSWORD.sub(r"\1\2\3***", text)


def as_variables(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings as the environment variables that say the same to another process."""
    return {f"{ENV_PREFIX}{name.upper()}": str(value) for name, value in values.items()}


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
    settings = msgspec.convert(values, Settings, strict=False)
    _check_security(settings)
    check_buffer(settings)
    return settings, sources


def _check(name: str, value: Any, source: str) -> None:
    try:
        msgspec.convert({name: value}, Settings, strict=False)
    except msgspec.ValidationError as error:
        form = (info(name).extra or {}).get("form")
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


def _check_security(settings: Settings) -> None:
    """Refuse what would not be used: who gives a password or a certificate does not mean to go without."""
    protocol = settings.kafka_security_protocol
    says = f"kafka_security_protocol = {protocol!r}"
    if "SASL" in protocol and not (settings.kafka_username and settings.kafka_password):
        raise SettingsError(f"{says} needs kafka_username and kafka_password: give both")
    for name in ("kafka_username", "kafka_password"):
        if getattr(settings, name) and "SASL" not in protocol:
            raise SettingsError(f"{says} makes no use of {name}: write SASL_SSL, or leave that out")
    for name in ("kafka_ca_file", "kafka_cert_file", "kafka_key_file"):
        if getattr(settings, name) and "SSL" not in protocol:
            raise SettingsError(f"{says} makes no use of {name}: write SSL or SASL_SSL, or leave that out")
    if settings.kafka_key_file and not settings.kafka_cert_file:
        raise SettingsError(f"kafka_key_file = {settings.kafka_key_file!r} needs its certificate: give kafka_cert_file")


def _without_secret(name: str, value: Any) -> Any:
    if name == "kafka_password":
        return "***" if value else ""
    return without_password(value) if name == "redis" else value


def _shown(name: str, value: Any) -> str:
    if name == "kafka_password":
        return "***"
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
