"""`python -m model.training.train`: reproduces the shipped checkpoint; its steps cache under --out and resume there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from model import checkpoint
from model.classifier import RationaleClassifier
from model.config import ModelConfig
from model.data import datasets
from model.data.corpus import load_corpus, tables
from model.evaluation import summary
from model.evaluation.measures import alert_threshold
from model.evaluation.tables import Figures
from model.network import ImageSelector, Network
from model.records import CLASSES
from model.training import crossval, fit_tasks, image_steps, pretrained, protocol, steps, train_report
from model.training.crossval import Fitted, Modalities, Views
from model.training.fit_tasks import FittedTask
from model.training.image_steps import IMAGE
from model.training.steps import COMPACT, DUAL, Run
from model.training.text_kit import Texts
from model.vision import VisionTower

RELEASE = "2.3.1"
HELD_OUT_FOLD = 0
_ALERT_PRECISION = 0.9


def main() -> None:
    parser = steps.run_parser(__doc__ + " --out gets checkpoint/, dual/ and results/ too.")
    parser.add_argument("--head-seeds", type=int, default=5, help="image heads per fold, for the spread")
    args = parser.parse_args()
    train(steps.run_of(args), args.out, args.head_seeds)


def train(run: Run, out: Path, n_head_seeds: int) -> None:
    run.claim()
    corpus = load_corpus(run.data)
    texts = steps.fit_text_stages(run, corpus, steps.make_kit(run, corpus))
    image_selector, masks = image_steps.fit_image_stage_1(run, corpus, texts.kit, texts.selector)
    towers = {COMPACT: image_steps.fit_image_stage_2(run, corpus), DUAL: pretrained.clip_tower(run.weights)}
    served = steps.as_served(texts)
    views = {name: crossval.views(run, name, corpus, served, tower, masks, IMAGE) for name, tower in towers.items()}
    (out / "results").mkdir(exist_ok=True)
    path = out / "results" / "summary.json"
    whole = image_steps.whole_posts(run, corpus)
    protocol.write_figures(path, corpus, texts, views[COMPACT], views[DUAL], whole, n_head_seeds)
    held_out = crossval.fold_ids(views[COMPACT], HELD_OUT_FOLD)
    (out / "results" / "held_out_ids.txt").write_text("\n".join(held_out) + "\n", encoding="utf-8")
    pooled = fit_tasks.pool(served, views[COMPACT].texts)
    tasks = [fit_tasks.fit_texts(run.data, task, corpus, served, pooled, run.seed) for task in fit_tasks.FURTHER]
    labels = {task: datasets.image_labels(run.data, task) for task in fit_tasks.FURTHER}
    for name, folder in ((COMPACT, out / "checkpoint"), (DUAL, out / DUAL)):
        own = [(task, fit_tasks.task_views(views[name], task, labels[task.task])) for task in tasks]
        if name == COMPACT:
            protocol.write_task_figures(path, own, n_head_seeds)
        parts = Parts(
            name=name,
            texts=texts,
            image_selector=image_selector,
            tower=towers[name],
            views=views[name],
            tasks={task.task: fit_tasks.fit_task(task, seen, held_out, run.seed) for task, seen in own},
        )
        figures = train_report.own_figures(summary.read(path), dual=name == DUAL)
        save(run, folder, parts, figures)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a checkpoint is made of."""

    name: str
    texts: Texts
    image_selector: ImageSelector
    tower: VisionTower
    views: Views
    tasks: Mapping[str, FittedTask]


def save(run: Run, folder: Path, parts: Parts, figures: Figures) -> None:
    """Writes the checkpoint whose heads were fitted without the held-out fold, with what was measured of it."""
    shipped = crossval.fit_fold(parts.views.rationale, parts.views, HELD_OUT_FOLD, run.seed)
    config = make_config(run, parts, shipped)
    network, decider = Network(config), parts.texts.decider
    network.embeddings.load_state_dict(parts.texts.kit.embeddings.state_dict())
    network.text_selector.load_state_dict(parts.texts.selector.state_dict())
    network.text_decider.encoder.load_state_dict(decider.encoder.state_dict())
    network.text_decider.class_head.load_state_dict(decider.class_head.state_dict())
    network.image_selector.load_state_dict(parts.image_selector.state_dict())
    network.image_decider.tower.load_state_dict(parts.tower.state_dict())
    network.image_decider.class_head.load_state_dict(shipped.head.state_dict())
    for task, fitted in parts.tasks.items():
        network.text_decider.further[task].load_state_dict(fitted.text_head.state_dict())
        network.image_decider.further[task].load_state_dict(fitted.image_head.state_dict())
    config = checkpoint.save(folder, network, config, parts.texts.kit.tokenizer_json)
    train_report.write(folder, config, figures, run.seed)
    RationaleClassifier.load(folder)


def make_config(run: Run, parts: Parts, shipped: Fitted) -> ModelConfig:
    """Text-only calibration and the alert threshold come from the dev rows, the rest from the training folds."""
    text_dev, dev_labels = parts.views.text_dev, parts.views.dev_labels
    fusion_text = crossval.fit_text_fusion(text_dev, dev_labels)
    modalities = Modalities(text=text_dev, image=None)
    dev_probs = crossval.probabilities(fusion_text, modalities)
    counts = torch.bincount(dev_labels, minlength=len(CLASSES)).double()
    threshold = alert_threshold(
        np.concatenate([shipped.labels, dev_labels.numpy()]),
        np.concatenate([shipped.probs, dev_probs]),
        CLASSES.index("infrastructure_and_utility_damage"),
        _ALERT_PRECISION,
    )
    return ModelConfig(
        name=parts.name,
        version=f"{parts.name}-{RELEASE}",
        classes=CLASSES,
        languages=("en",),
        text=parts.texts.kit.config,
        image=replace(IMAGE, decider_layers=len(parts.tower.layers)),
        selection=parts.texts.kit.selection,
        fusion_both=shipped.fusion_both,
        fusion_text=fusion_text,
        fusion_image=shipped.fusion_image,
        prior=tuple((counts / counts.sum()).tolist()),
        further={task: fitted.config for task, fitted in parts.tasks.items()},
        alert_threshold=threshold,
        data_digest=datasets.digest(run.data, tables(run.data)),
        weights_sha256="",
        tokenizer_sha256="",
    )


if __name__ == "__main__":
    main()
