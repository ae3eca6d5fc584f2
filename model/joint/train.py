"""`sitrep train` over a joint encoder: from an archive and a recipe to one checkpoint folder."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import torch
from tokenizers import Tokenizer

from model import checkpoint
from model.data.datasets import digest
from model.data.rationales import RationaleRow
from model.errors import ModelError
from model.joint import folder, report
from model.joint.archive import Archive, load_archive, load_rationales, without_copies
from model.joint.build import freeze, make_encoder, pretrained_encoder, pretrained_tokenizer, with_vocabulary
from model.joint.config import JointConfig
from model.joint.evidence import Kit
from model.joint.feeding import Rows, cached_views
from model.joint.network import Decider, Selector, TwoStage
from model.joint.recipe import Recipe
from model.joint.scoring import Job, Left, select_rows
from model.joint.stages import train_decider, train_selector
from model.joint.states import JointEncoder
from model.joint.targets import human_posts
from model.joint.vocabulary import tokenizer_from_texts
from model.records import HUMANITARIAN, TASKS
from model.tokens import WordTokenizer

log = logging.getLogger(__name__)
_WORK = ".sitrep-train"  # removed in the end: a name that nobody gives a folder of their own


class OutputTaken(ModelError):
    """The output folder holds something that this run would overwrite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What one call of `train` is given."""

    recipe: Recipe
    data: Path
    out: Path
    weights: str | None = None  # folder or hub id, in place of the recipe's
    rationales: Sequence[Path] = ()
    device: str = "cpu"


def train(request: Request) -> JointConfig:
    """Trains, measures and writes the checkpoint to `out`; a run that was killed goes on where it stopped.

    Its state lies in `out/.sitrep-train`, which a finished run removes. Asking for the same again returns at once.
    """
    started = time.monotonic()
    recipe, out = request.recipe, request.out
    archive = load_archive(request.data, list(recipe.tasks), drop_copies=recipe.data.drop_copies)
    marked = load_rationales(request.rationales)
    finished = _finished(out, request, archive)
    if finished is not None:
        return finished
    (out / _WORK).mkdir(parents=True, exist_ok=True)
    encoder, kit, tokenizer_json = _foundation(request, archive)
    job = _job(request, archive, marked, kit)
    selector = Selector(encoder, recipe.selector.gru_width, _tasks(recipe)).to(request.device)
    torch.manual_seed(recipe.seed + 1)  # the stages' new parts differ
    decider = Decider(copy.deepcopy(encoder), _tasks(recipe)).to(request.device)
    job = replace(job, rows=replace(job.rows, seen=_seen(job, selector.encoder, "whole", None)))
    histories = train_selector(job, selector)
    selections = select_rows(job, selector)
    left = Left(rows=job.rows, selections=selections)
    left = replace(left, seen=_seen(job, decider.encoder, "left", left))
    histories |= train_decider(job, decider, left)
    measured = report.measure(job, archive, selector, decider, left)
    config = JointConfig(
        name=recipe.name,
        version="",
        tasks=_tasks(recipe),
        languages=("en",),
        encoder=kit.encoder,
        n_pieces=kit.tokenizer.n_pieces,
        gru_width=recipe.selector.gru_width,
        words=recipe.words,
        transfer=recipe.transfer,
        temperature=measured.temperature,
        temperatures=measured.temperatures,
        prior=measured.prior,
        alert_threshold=measured.alert_threshold,
        image_edge_px=recipe.data.max_edge_px,
        recipe_digest=recipe.digest(),
        data_digest=_data_digest(request, archive),
        weights_sha256="",
        tokenizer_sha256="",
    )
    run = {
        "recipe": msgspec.to_builtins(recipe),
        "pretrained": request.weights or recipe.pretrained,
        "human_rationales": len(job.rows.posts) - len(archive.train) - len(archive.held),
        "n_train": job.n_train,
        "n_missing_images": archive.n_missing_images,
        "device": request.device,
        "seconds_of_last_start": round(time.monotonic() - started, 1),
        "history": histories,
        "key": job.key,
    }
    config = folder.save(out, TwoStage(selector, decider), config, tokenizer_json, int8=recipe.int8_weights)
    report.write(out, config, measured, run)
    shutil.rmtree(out / _WORK)
    return config


def _finished(out: Path, request: Request, archive: Archive) -> JointConfig | None:
    """The checkpoint that is there already, if this very run made it."""
    if not (out / checkpoint.CONFIG).exists():
        return None
    try:
        config = JointConfig.parse(checkpoint.read_config(out))
    except ModelError:
        config = None
    taken = OutputTaken(f"{out} holds another checkpoint; give another --out, or delete it")
    if config is None or (config.recipe_digest, config.data_digest) != (
        request.recipe.digest(),
        _data_digest(request, archive),
    ):
        raise taken
    if (out / _WORK).exists():  # killed while it was written; the work has keys of its own
        return None
    if report.run_key(out) != _key(request, archive):
        raise taken
    log.warning("%s is finished already, with this recipe, data, weights and rationales", out)
    return config


def _foundation(request: Request, archive: Archive) -> tuple[JointEncoder, Kit, str]:
    """The encoder, pretrained or new, and the tokenizer that belongs to it."""
    recipe = request.recipe
    source = request.weights or recipe.pretrained
    torch.manual_seed(recipe.seed)
    if source is not None:
        made = pretrained_encoder(recipe.encoder, source)
        encoder, shape = made.encoder, made.config
        tokenizer_json = pretrained_tokenizer(recipe.encoder, source)
        tokenizer = WordTokenizer(Tokenizer.from_str(tokenizer_json), max_tokens=shape.max_tokens)
    elif recipe.needs_weights:
        raise ModelError(f"the recipe {recipe.name} starts from pretrained weights; give their folder by --weights DIR")
    else:
        tokenizer_json = tokenizer_from_texts((post.text for post in archive.train), recipe.vocabulary_size)
        tokenizer = WordTokenizer(Tokenizer.from_str(tokenizer_json), max_tokens=recipe.encoder.max_tokens)
        shape = with_vocabulary(recipe.encoder, tokenizer.n_pieces)
        encoder = make_encoder(shape)
    if recipe.training.freeze_vision:
        freeze(encoder.seeing())
    kit = Kit(tokenizer=tokenizer, encoder=shape, words=recipe.words, transfer=recipe.transfer, device=request.device)
    return encoder, kit, tokenizer_json


def _job(request: Request, archive: Archive, marked: Sequence[RationaleRow], kit: Kit) -> Job:
    recipe = request.recipe
    unseen = without_copies(marked, archive.held)
    if len(unseen) < len(marked):
        log.warning(
            "%d of %d rows of --rationales are left out: they share a tweet or text with a dev or test row",
            len(marked) - len(unseen),
            len(marked),
        )
    people, targets = human_posts(unseen, kit)
    train_posts = [*archive.train, *people]
    unmarked: list[list[float] | None] = [None] * len(archive.train)
    posts = [*train_posts, *archive.held]
    dev = archive.dev(HUMANITARIAN)
    place = {id(post): k for k, post in enumerate(posts)}
    return Job(
        recipe=recipe,
        rows=Rows(
            posts=posts,
            tasks=tuple(recipe.tasks),
            kit=kit,
            max_edge_px=recipe.data.max_edge_px,
            n_loaders=recipe.training.n_loaders,
            targets=[*unmarked, *targets, *([None] * len(archive.held))],
        ),
        n_train=len(train_posts),
        dev=[place[id(post)] for post in dev],
        work=request.out / _WORK,
        key=_key(request, archive),
    )


def _key(request: Request, archive: Archive) -> str:
    """Tells one run from another, for what may be resumed and what is finished."""
    recipe = request.recipe
    given = [recipe.digest(), _data_digest(request, archive), _weights_digest(request), str(archive.n_missing_images)]
    return hashlib.sha256(json.dumps(given).encode()).hexdigest()


def _weights_digest(request: Request) -> str:
    """Of a folder's files; a hub's id stands for itself."""
    source = str(request.weights or request.recipe.pretrained)
    root = Path(source)
    if not root.is_dir():
        return source
    return digest(root, [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()])


def _data_digest(request: Request, archive: Archive) -> str:
    """Of every table that is trained on: the archive's, and the rationale files in their order."""
    if not request.rationales:
        return archive.digest
    total = hashlib.sha256(archive.digest.encode())
    for path in request.rationales:
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return f"sha256:{total.hexdigest()}"


def _seen(job: Job, encoder: JointEncoder, name: str, left: Left | None) -> Any:
    """Cached features of every row's image, whole or as stage 1 left it; None while the tower is trained."""
    if not job.recipe.training.freeze_vision:
        return None
    items = (lambda k: job.rows.reading(k).item) if left is None else left.item
    encoder.eval()
    return cached_views(encoder, items, len(job.rows.posts), job.work / f"seen-{name}", f"{job.key} {name}", job.device)


def _tasks(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    return {task: TASKS[task] for task in recipe.tasks}
