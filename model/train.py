"""`python -m model.train`: reproduces the shipped checkpoint; steps cache under --out and resume from there."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model import checkpoint, crossval, data, fit_tasks, pretrained, protocol, steps
from model.classifier import RationaleClassifier
from model.config import ImageConfig, ModelConfig
from model.corpus import TABLES, Corpus, load_corpus
from model.crossval import Fitted, Modalities, Views
from model.fit_tasks import FittedTask
from model.int8 import to_int8
from model.measures import alert_threshold
from model.network import ImageSelector, Network
from model.protocol import Texts
from model.records import CLASSES
from model.steps import COMPACT, DUAL, IMAGE, Run
from model.vision import VisionTower

RELEASE = "2.2.0"
HELD_OUT_FOLD = 0
_ALERT_PRECISION = 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the training tables and images")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the unpacked pretrained packages")
    parser.add_argument("--out", type=Path, required=True, help="gets checkpoint/, dual/, results/ and cache/")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--head-seeds", type=int, default=5, help="image heads per fold, for the spread")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run = Run(data=args.data, weights=args.weights, cache=args.out / "cache", seed=args.seed)
    run.cache.mkdir(parents=True, exist_ok=True)
    train(run, args.out, args.head_seeds)


def train(run: Run, out: Path, n_head_seeds: int) -> None:
    corpus = load_corpus(run.data)
    texts = steps.fit_text_stages(run, corpus, steps.make_kit(run, corpus))
    image_selector, masks = steps.fit_image_stage_1(run, corpus, texts.kit, texts.selector)
    towers = {COMPACT: steps.fit_image_stage_2(run, corpus), DUAL: pretrained.clip_tower(run.weights)}
    views = {
        name: crossval.views(run, name, corpus, texts.kit, texts.selector, texts.decider, tower, masks, IMAGE)
        for name, tower in towers.items()
    }
    (out / "results").mkdir(exist_ok=True)
    path = out / "results" / "summary.json"
    whole = steps.whole_view(run, corpus, texts)
    protocol.write_figures(path, corpus, texts, views[COMPACT], views[DUAL], whole, n_head_seeds)
    held_out = crossval.fold_ids(views[COMPACT], HELD_OUT_FOLD)
    (out / "results" / "held_out_ids.txt").write_text("\n".join(held_out) + "\n", encoding="utf-8")
    for name, folder in ((COMPACT, out / "checkpoint"), (DUAL, out / DUAL)):
        tasks = fit_further(run, corpus, texts, views[name], held_out, n_head_seeds)
        if name == COMPACT:
            protocol.write_task_figures(path, tasks)
        save(run, folder, name, texts, image_selector, towers[name], views[name], tasks)


def fit_further(
    run: Run, corpus: Corpus, texts: Texts, views: Views, held_out: list[str], n_seeds: int
) -> dict[str, FittedTask]:
    """Heads of the tasks beside the humanitarian one, on the encoders as a checkpoint runs them."""
    reader = fit_tasks.TextReader(
        kit=texts.kit,
        selector=checkpoint.as_stored(texts.selector),
        decider=to_int8(checkpoint.as_stored(texts.decider)),
    )
    return {
        task: fit_tasks.fit_task(run.data, task, corpus, reader, views, held_out, n_seeds, run.seed)
        for task in fit_tasks.FURTHER
    }


def save(
    run: Run,
    folder: Path,
    name: str,
    texts: Texts,
    image_selector: ImageSelector,
    tower: VisionTower,
    views: Views,
    tasks: Mapping[str, FittedTask],
) -> None:
    """Writes the checkpoint whose heads were fitted without the held-out fold."""
    shipped = crossval.fit_fold(views.rationale, views, HELD_OUT_FOLD, run.seed)
    image = replace(IMAGE, decider_layers=len(tower.layers))
    config = make_config(run, name, image, texts, shipped, views.text_dev, views.dev_labels, tasks)
    network = Network(config)
    network.embeddings.load_state_dict(texts.kit.embeddings.state_dict())
    network.text_selector.load_state_dict(texts.selector.state_dict())
    network.text_decider.encoder.load_state_dict(texts.decider.encoder.state_dict())
    network.text_decider.class_head.load_state_dict(texts.decider.class_head.state_dict())
    network.image_selector.load_state_dict(image_selector.state_dict())
    network.image_decider.tower.load_state_dict(tower.state_dict())
    network.image_decider.class_head.load_state_dict(shipped.head.state_dict())
    for task, fitted in tasks.items():
        network.text_decider.further[task].load_state_dict(fitted.text_head.state_dict())
        network.image_decider.further[task].load_state_dict(fitted.image_head.state_dict())
    checkpoint.save(folder, network, config, texts.kit.tokenizer_json)
    RationaleClassifier.load(folder)


def make_config(
    run: Run,
    name: str,
    image: ImageConfig,
    texts: Texts,
    shipped: Fitted,
    text_dev: Tensor,
    dev_labels: Tensor,
    tasks: Mapping[str, FittedTask],
) -> ModelConfig:
    """Text-only calibration and the alert threshold come from the dev rows, the rest from the training folds."""
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
        name=name,
        version=f"{name}-{RELEASE}",
        classes=CLASSES,
        languages=("en",),
        text=texts.kit.config,
        image=image,
        selection=texts.kit.selection,
        fusion_both=shipped.fusion_both,
        fusion_text=fusion_text,
        fusion_image=shipped.fusion_image,
        prior=tuple((counts / counts.sum()).tolist()),
        further={task: fitted.config for task, fitted in tasks.items()},
        alert_threshold=threshold,
        data_digest=data.digest(run.data, TABLES),
        weights_sha256="",
    )


if __name__ == "__main__":
    main()
