"""`sitrep config` and `sitrep schemas`: what is set, and what the records look like; change nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy import options


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("config", rich_help_panel="Look up")(config)
    app.command("schemas", rich_help_panel="Look up")(schemas)


def config(
    as_json: options.AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table for the README.")] = False,
    kafka: options.Kafka = None,
    redis: options.Redis = None,
    prefix: options.Prefix = None,
    config_file: options.Config = None,
    set_: options.Set = None,
) -> None:
    """Show every setting, its value and where it came from.

    Flags win over the environment (`SITREP_NAME`), that over the file (`sitrep.toml`), that over defaults.
    """
    import msgspec
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from workers.setting_sources import explain_settings

    if markdown:
        from deploy.readme import settings_table

        typer.echo(settings_table())
        return
    given = options.flags(kafka=kafka, redis=redis, prefix=prefix, set_=set_)
    settings = explain_settings(given, file=config_file)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(settings)).decode())
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("setting", no_wrap=True)  # a name that is cut cannot be copied
    for heading in ("value", "from", "what it is"):
        table.add_column(heading, overflow="fold")
    for setting in settings:
        style = "" if setting.source == "default" else "bold green"
        table.add_row(
            setting.name, Text(_shown(setting.value), style), Text(setting.source, style), setting.description
        )
    Console().print(table)


def schemas(
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write one file a record instead of printing.")
    ] = None,
) -> None:
    """Print the JSON Schemas of the records on the topics, or write them to a folder."""
    from stream.schemas import schemas as record_schemas
    from stream.schemas import write_schemas

    if out is None:
        for document in record_schemas().values():
            typer.echo(document.decode(), nl=False)
        return
    for file in write_schemas(out):
        typer.echo(file)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}" if value < 1e6 else f"{value:.0f}"
    return str(value) if value != "" else '""'
