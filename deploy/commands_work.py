"""`sitrep worker`, `replay` and `explain`: run the pipeline, feed it from a file, ask it about one post."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deploy import options

if TYPE_CHECKING:
    from stream.records import Finding, PreparedImage
    from workers.settings import Settings


Checkpoint = Annotated[
    str | None, typer.Option("--checkpoint", metavar="DIR", help="Folder of the classifier's checkpoint.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("worker", rich_help_panel="Run")(worker)
    app.command("replay", rich_help_panel="Run")(replay)
    app.command("explain", rich_help_panel="Try")(explain)


def worker(
    stage: Annotated[
        Literal["all", "prepare", "classify"],
        typer.Option("--stage", help="Run both stages, or one of them apart from the other."),
    ] = "all",
    exactly_once: Annotated[
        bool,
        typer.Option("--exactly-once", help="Commit outcomes and offsets together, in Kafka transactions."),
    ] = False,
    checkpoint: Checkpoint = None,
    kafka: options.Kafka = None,
    redis: options.Redis = None,
    prefix: options.Prefix = None,
    config_file: options.Config = None,
    set_: options.Set = None,
) -> None:
    """Run a worker until SIGTERM or Ctrl-C: posts in; findings, alerts and dead letters out.

    Metrics and health are served on `/metrics`, `/healthz` and `/readyz`. Run up to as many workers as
    the posts topic has partitions (more would idle); with `--stage prepare` and `--stage classify` the two scale on
    their own.
    """
    if exactly_once:
        set_ = [*(set_ or []), "exactly_once=true"]
    settings = options.read_settings(
        kafka=kafka, redis=redis, prefix=prefix, checkpoint=checkpoint, config=config_file, set_=set_
    )
    from workers.run import run_worker

    raise typer.Exit(run_worker(settings, stage=stage))


def replay(
    file: Annotated[Path, typer.Argument(metavar="PATH", help="Posts as .jsonl, or a CrisisMMD table as .tsv.")],
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Folder that a table's image paths start from; default: its own."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="N", min=0.001, help="Posts per second; default: at full speed.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Stop after N posts.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the outcome of each, then report latencies and the ledger.")
    ] = False,
    kafka: options.Kafka = None,
    prefix: options.Prefix = None,
    config_file: options.Config = None,
    set_: options.Set = None,
) -> None:
    """Send the posts of a file to the posts topic, and report how many per second.

    Exits 1 when a post was left out because it is larger than the topic takes, with `--wait` also when the ledger
    does not balance; posts of others that have no outcome yet do not count.
    """
    from deploy.replaying import Replay

    settings = options.read_settings(kafka=kafka, prefix=prefix, config=config_file, set_=set_)
    run = Replay(settings=settings, file=file, images=images, rate_per_s=rate, limit=limit, wait=wait)
    if not asyncio.run(run.run()):
        raise typer.Exit(1)


def explain(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The post's text, in quotes; may be empty.")],
    image: Annotated[Path | None, typer.Option("--image", metavar="FILE", help="The post's picture.")] = None,
    as_json: options.AsJson = False,
    png: Annotated[
        Path | None,
        typer.Option(
            "--png", metavar="FILE", help="Where to draw the picture's evidence; default: here; with --json: nowhere."
        ),
    ] = None,
    checkpoint: Checkpoint = None,
    config_file: options.Config = None,
    set_: options.Set = None,
) -> None:
    """Classify one post and show the evidence: the words that decided, and the patches of the picture.

    Needs neither Kafka nor Redis. Stage 2 of the classifier sees nothing but the evidence shown.
    """
    import sys

    from rich.console import Console

    from deploy.render import finding_lines
    from stream.records import encode

    if png is not None and image is None:
        raise typer.BadParameter("there is no picture to draw on: give --image FILE too", param_hint="--png")
    if not text.strip() and image is None:
        raise typer.BadParameter("give a text, or a picture with --image FILE", param_hint="TEXT")
    settings = options.read_settings(checkpoint=checkpoint, config=config_file, set_=set_)
    prepared = None if image is None else _prepare(image, settings)
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # a shell's bytes that are no UTF-8
    finding = _classify(text, prepared, settings)
    if as_json:
        typer.echo(encode(finding))
    else:
        Console().print(finding_lines(finding, plain=not sys.stdout.isatty()), soft_wrap=True)
        png = png or (None if image is None else Path(f"{image.stem}-rationale.png"))
    if png is not None and prepared is not None:
        _draw(finding, prepared, png)
        if not as_json:
            typer.echo(f"picture evidence drawn: {png}")


def _draw(finding: Finding, prepared: PreparedImage, file: Path) -> None:
    from deploy.failure import CommandFailed
    from deploy.overlay import draw_overlay, picture_of

    assert finding.image_rationale is not None
    try:
        draw_overlay(picture_of(prepared), finding.image_rationale).save(file, format="PNG")
    except OSError as error:
        raise CommandFailed(
            f"cannot draw the picture's evidence to {file}: {error.strerror}: give another file by --png FILE"
        ) from error


def _prepare(file: Path, settings: Settings) -> PreparedImage:
    from deploy.failure import CommandFailed
    from stream.errors import ImageUnavailable
    from stream.pixels import prepare_image

    try:
        data = file.read_bytes()
        return prepare_image(data, index=0, edge=settings.image_edge, max_pixels=settings.max_image_pixels)
    except OSError as error:
        raise CommandFailed(f"cannot read the picture {file}: {error.strerror}") from error
    except ImageUnavailable as error:
        raise CommandFailed(f"cannot use the picture {file}: {error}") from error


def _classify(text: str, image: PreparedImage | None, settings: Settings) -> Finding:
    from model import load_classifier
    from stream.records import ModelInfo, Origin, Post, PreparedPost
    from workers.findings import check_prediction, example, make_finding, now_utc

    classifier = load_classifier(Path(settings.checkpoint), device=settings.device, n_threads=settings.threads or None)
    if image is not None and classifier.image_edge_px > settings.image_edge:
        typer.echo(
            f"sitrep: the picture is read at {settings.image_edge} px, as a worker would read it; the classifier was"
            f" trained on {classifier.image_edge_px} px: --set image_edge={classifier.image_edge_px}",
            err=True,
        )
    prepared = PreparedPost(
        post=Post(id="explain", text=text, source="command line"),
        origin=Origin(topic="command-line", partition=0, offset=0),
        accepted_at=now_utc(),
        image=image,
    )
    [prediction] = classifier.predict([example(prepared)])
    check_prediction(prediction, classifier.classes)
    info = ModelInfo(name=classifier.name, version=classifier.version, digest=classifier.digest)
    return make_finding(prepared, prediction, info, languages=classifier.languages, now=now_utc())
