"""`sitrep demo`, `up` and `down`: try the pipeline without installing a broker; never for production."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy import options

StateDir = Annotated[
    Path, typer.Option("--dir", metavar="DIR", help="Where the services keep their data and are remembered.")
]

_STATE_DIR = Path(".sitrep")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("demo", rich_help_panel="Try")(demo)
    app.command("up", rich_help_panel="Try")(up)
    app.command("down", rich_help_panel="Try")(down)


def demo(
    posts: Annotated[int | None, typer.Option("--posts", metavar="N", min=1, help="How many sample posts.")] = None,
    rate: Annotated[float, typer.Option("--rate", metavar="N", min=0.1, help="Posts per second.")] = 10.0,
    workers: Annotated[int, typer.Option("--workers", metavar="N", min=1, max=16, help="How many workers.")] = 1,
    keep_running: Annotated[
        bool, typer.Option("--keep-running", help="Stay after the sample, and serve the page, until Ctrl-C.")
    ] = False,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for the page, findings, pictures and logs.")
    ] = Path("sitrep-demo"),
    kafka_home: options.KafkaHome = None,
    kafka: options.Kafka = None,
    redis: options.Redis = None,
    prefix: options.Prefix = None,
    config_file: options.Config = None,
    set_: options.Set = None,
) -> None:
    """See the whole pipeline at work: starts Kafka, Redis and a worker, feeds sample posts, shows findings.

    Nothing needs to be installed before, nothing is left running after. The last line is the ledger:
    how many posts were accepted and what became of them; exits 1 when one is missing.
    """
    from deploy.demo import Demo

    given = options.flags(kafka=kafka, redis=redis, prefix=prefix, set_=set_)
    _check_kafka_home(kafka, kafka_home)
    run = Demo(
        flags=given,
        config_file=config_file,
        kafka_home=kafka_home,
        n_posts=posts,
        rate_per_s=rate,
        n_workers=workers,
        keep_running=keep_running,
        out=out,
    )
    raise typer.Exit(run.run())


def up(
    state_dir: StateDir = _STATE_DIR,
    kafka_home: options.KafkaHome = None,
    kafka: options.Kafka = None,
    redis: options.Redis = None,
) -> None:
    """Start Kafka and Redis for trying, on free ports of this machine only, until `sitrep down`."""
    from deploy.embedded import up as start
    from workers.setting_sources import without_password

    _check_kafka_home(kafka, kafka_home)
    if kafka is not None and redis is not None:
        raise typer.BadParameter("with both --kafka and --redis there is nothing to start: leave out what you lack")
    options.read_settings(kafka=kafka, redis=redis)  # a wrong address is told before anything starts
    found = start(state_dir, kafka=kafka, redis=redis, kafka_home=kafka_home)
    services = found.services
    shown = without_password(services.redis)
    note = "" if shown == services.redis else "  (with the password for ***)"
    typer.echo("already running" if found.already_running else "started")
    typer.echo(f"  Kafka  {services.kafka}")
    typer.echo(f"  Redis  {shown}")
    typer.echo(f"  data   {services.data_dir}")
    typer.echo(f"Next, in this shell:{note}")
    typer.echo(f"  export SITREP_KAFKA={services.kafka} SITREP_REDIS={shown}")
    typer.echo("  sitrep topics create && sitrep worker")


def down(state_dir: StateDir = _STATE_DIR) -> None:
    """Stop what `sitrep up` started; the data stays."""
    from deploy.embedded import down as stop

    stopped = stop(state_dir)
    if not stopped:
        typer.echo(f"nothing of {state_dir} was running")
    for child in stopped:
        typer.echo(f"stopped {child.name} (process {child.pid})")


def _check_kafka_home(kafka: str | None, kafka_home: Path | None) -> None:
    if kafka is not None and kafka_home is not None:
        raise typer.BadParameter("--kafka uses a broker that runs, --kafka-home starts one: give one of the two")
