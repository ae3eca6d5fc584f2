"""`sitrep evaluate`: measures a checkpoint on any table of posts; needs neither Kafka nor Redis."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.warned import warnings_shown

if TYPE_CHECKING:
    from model.evaluation.evaluate import Request

_ROWS, _FILES, _MEASURES, _SUMMARY = "Which rows", "Files", "What is measured", "The project's summary of figures"
_MODALITIES = ("both", "text", "image")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate", rich_help_panel="Measure")(evaluate)


def evaluate(
    data: Annotated[Path, typer.Option("--data", metavar="FILE", help="Posts, as TSV or CSV.", rich_help_panel=_FILES)],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the results go.", rich_help_panel=_FILES)
    ] = Path("sitrep-evaluation"),
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Folder of the images [the table's].", rich_help_panel=_FILES),
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoint",
            metavar="DIR",
            help="Checkpoint folder [the shipped one]. Several are runs of one model.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    label_map: Annotated[
        Path | None,
        typer.Option(
            "--label-map", metavar="FILE", help="TOML or JSON: their label to our class.", rich_help_panel=_FILES
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="PART=NAME",
            help="The column of a part: id, text, image, label, rationale or pixels.",
            rich_help_panel=_ROWS,
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="COLUMN=VALUE", help="Only rows that have it.", rich_help_panel=_ROWS),
    ] = None,
    ids: Annotated[
        Path | None,
        typer.Option("--ids", metavar="FILE", help="Only rows with these ids, one a line.", rich_help_panel=_ROWS),
    ] = None,
    only: Annotated[
        str, typer.Option("--only", metavar="MODALITY", help="Show text or image alone.", rich_help_panel=_ROWS)
    ] = "both",
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="The first N rows.", rich_help_panel=_ROWS)
    ] = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="ERASER's measures of the rationales.", rich_help_panel=_MEASURES),
    ] = False,
    faithful: Annotated[
        int | None,
        typer.Option(
            "--faithful", metavar="N", min=1, help="Patch scores against RISE and others.", rich_help_panel=_MEASURES
        ),
    ] = None,
    masks: Annotated[
        int,
        typer.Option(
            "--masks",
            metavar="N",
            min=1,
            help="With --faithful: RISE's, a decision each.",
            rich_help_panel=_MEASURES,
        ),
    ] = 256,
    batch: Annotated[
        int, typer.Option("--batch", metavar="N", min=1, help="Posts read ahead.", rich_help_panel=_MEASURES)
    ] = 32,
    threads: Annotated[
        int,
        typer.Option(
            "--threads",
            metavar="N",
            min=0,
            max=1024,
            help="CPU threads; 0: torch decides. With one, results are a worker's.",
            rich_help_panel=_MEASURES,
        ),
    ] = 1,
    summary: Annotated[
        Path | None,
        typer.Option("--summary", metavar="FILE", help="Add the figures to it.", rich_help_panel=_SUMMARY),
    ] = None,
    as_: Annotated[
        list[str] | None,
        typer.Option("--as", metavar="KEY", help="Under this key: zero_shot.dmd.", rich_help_panel=_SUMMARY),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", metavar="TEXT", help="How it was measured.", rich_help_panel=_SUMMARY),
    ] = None,
) -> None:
    """Measure a checkpoint on a table of posts: metrics, predictions with their evidence, a report and plots.

    Reads CrisisMMD's columns (image_id, tweet_text, image, label), HumAID's (tweet_id, tweet_text, class_label) and
    tables with people's rationales (tweet_text, informative_content, corrected_label). A missing text or image
    column means image only or text only; without labels there are predictions only.
    """
    _check_libraries()
    if only not in _MODALITIES:
        raise typer.BadParameter(f"{only!r} is none of {', '.join(_MODALITIES)}", param_hint="--only")
    if len({summary is None, not as_, protocol is None}) > 1:
        raise typer.BadParameter("--summary, --as and --protocol go together: give all three or none")
    from model.data.labelled_posts import COLUMNS, Choice
    from model.evaluation.evaluate import Request
    from model.evaluation.faithfulness import Settings
    from model.evaluation.judging import Effort

    columns = _pairs(column, "--column")
    if unknown := sorted(set(columns) - set(COLUMNS)):
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(COLUMNS)}", param_hint="--column")

    request = Request(
        data=data,
        images=images,
        label_map=label_map,
        choice=Choice(
            columns=columns,
            where=_pairs(where, "--where"),
            ids=None if ids is None else _ids(ids),
            modality=only,
            limit=limit,
        ),
        effort=Effort(explain=explain, batch=batch),
        faithful=Settings(n_images=faithful, n_masks=masks) if faithful is not None else None,
    )
    _check_before(request, out, as_ or [])
    runs = _runs(checkpoint, threads, out, request)
    if summary is not None and protocol is not None:
        from model.evaluation.evaluate import add_to_summary

        for prefix in as_ or []:
            for key in add_to_summary(summary, prefix, runs, protocol):
                typer.echo(f"{summary}: {key}")


def _check_before(request: Request, out: Path, keys: list[str]) -> None:
    """Fails now where the end of a long run would."""
    from deploy.failure import CommandFailed
    from model.data.table_file import read_table
    from model.evaluation.evaluate import keys_of

    read_table(request.data)
    for prefix in keys:
        keys_of(prefix)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandFailed(f"cannot write to {out}: {error.strerror}: give another folder by --out") from error


def _ids(file: Path) -> frozenset[str]:
    try:
        return frozenset(file.read_text("utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{file} is not UTF-8: give one id a line", param_hint="--ids") from error


def _runs(checkpoints: list[Path] | None, threads: int, out: Path, request: Request) -> list[dict[str, Any]]:
    from model.evaluation.evaluate import evaluate as run
    from model.loading import load_classifier
    from workers.settings import SHIPPED_CHECKPOINT

    made: list[dict[str, Any]] = []
    folders = checkpoints or [SHIPPED_CHECKPOINT]
    for number, folder in enumerate(folders, start=1):
        classifier = load_classifier(folder, n_threads=threads or None)
        into = out if len(folders) == 1 else out / f"run-{number}"
        with warnings_shown():
            made.append(run(classifier, request, into))
        typer.echo(_line(made[-1]))
        typer.echo(f"{into}/report.md")
    return made


def _line(metrics: dict[str, Any]) -> str:
    if not metrics["n"]:
        return f"{metrics['rows']} posts, none with a label: predictions only"
    scores = f"accuracy {metrics['accuracy']:.3f}, Macro-F1 {metrics['macro_f1']:.3f}"
    marks = f", token-F1 {metrics['token_f1']:.3f}, AUPRC {metrics['auprc']:.3f}" if "auprc" in metrics else ""
    return f"{metrics['n']} posts: {scores}{marks}"


def _pairs(items: list[str] | None, option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in items or []:
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise typer.BadParameter(f"{item!r} is not NAME=VALUE", param_hint=option)
        pairs[name.strip()] = value.strip()
    return pairs


def _check_libraries() -> None:
    from deploy.failure import CommandFailed

    missing = [name for name in ("captum", "matplotlib", "sklearn", "tqdm") if importlib.util.find_spec(name) is None]
    if missing:
        raise CommandFailed(
            f"`sitrep evaluate` needs {missing[0]}: install the extra with `pip install '.[train]'` in the clone"
        )
