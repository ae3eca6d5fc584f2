"""`sitrep train`: a classifier of one's own from CrisisMMD's archive and a recipe; needs the extra `train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.warned import warnings_shown


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train", rich_help_panel="Model")(train)


def train(
    recipe: Annotated[
        str, typer.Option("--recipe", metavar="NAME|FILE", help="vilt, dual, compact, tiny, or a TOML file of yours.")
    ],
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="CrisisMMD's archive with its split files, as published.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the checkpoint.")],
    weights: Annotated[
        str | None, typer.Option("--weights", metavar="DIR|ID", help="Pretrained weights, in place of the recipe's.")
    ] = None,
    rationales: Annotated[
        list[Path] | None,
        typer.Option("--rationales", metavar="FILE", help="CSV of tweets with marked rationales; may be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", min=0, help="In place of the recipe's.")] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="NAME", help="cpu, cuda, ...; cuda where there is one.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", min=1, max=1024, help="CPU threads; torch decides.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe, as in transfer.method=cosine."),
    ] = None,
) -> None:
    """Train a classifier and write its folder: weights, config, calibration, metrics and model card.

    A run that is stopped (Ctrl-C, SIGTERM) saves first, one that is killed repeats what came after its last save:
    started again with the same arguments it goes on from there, on a CPU to the same weights. Use the result with
    `sitrep worker --set checkpoint=DIR`.
    """
    from deploy.failure import CommandFailed
    from model.joint.recipe import CompactRecipe, load_recipe

    overrides = [*(set_ or []), *([] if seed is None else [f"seed={seed}"])]
    chosen = load_recipe(recipe, overrides)
    try:
        import sklearn  # noqa: F401
        import tqdm  # noqa: F401
        import transformers
    except ImportError as error:
        raise CommandFailed(
            f"training needs the package {error.name}: `pip install '.[train]'` in the clone"
        ) from error
    transformers.logging.set_verbosity_error()
    if isinstance(chosen, CompactRecipe) and (device not in (None, "cpu") or rationales):
        raise typer.BadParameter(
            "the recipe compact trains on the CPU, on data of its own: leave --device and --rationales out"
        )
    device = _prepared(device, threads)
    if isinstance(chosen, CompactRecipe):
        _train_compact(chosen, data=data, out=out, weights=weights)
        return
    from model.joint import train as joint

    request = joint.Request(
        recipe=chosen, data=data, out=out, weights=weights, rationales=tuple(rationales or ()), device=device
    )
    with warnings_shown():
        config = joint.train(request)
    typer.echo(f"{config.version} is in {out}; its numbers are in {out}/metrics.json")


def _prepared(device: str | None, threads: int | None) -> str:
    """The device to train on, checked before anything is read."""
    import torch

    from model.loading import check_device

    if threads is not None:
        torch.set_num_threads(threads)
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    check_device(device)
    return device


def _train_compact(recipe: object, *, data: Path, out: Path, weights: str | None) -> None:
    from deploy.failure import CommandFailed
    from model.joint.recipe import CompactRecipe
    from model.training.steps import Run
    from model.training.train import train

    assert isinstance(recipe, CompactRecipe)
    if weights is None:
        raise CommandFailed("the recipe compact starts from pretrained packages; give their folder by --weights DIR")
    if not (data / "crisismmd").is_dir():
        raise CommandFailed(
            f"{data} has no folder crisismmd: the recipe compact needs the data that its model card names"
        )
    run = Run(data=data, weights=Path(weights), cache=out / "cache", seed=recipe.seed)
    run.cache.mkdir(parents=True, exist_ok=True)
    train(run, out, recipe.head_seeds)
    typer.echo(f"the checkpoint is in {out / 'checkpoint'}, its results in {out / 'results'}")
