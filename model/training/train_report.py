"""What a training of the shipped kind writes beside its weights: metrics, calibration and model card. Measures nothing.

The files are named as in the folders of joint checkpoints; loading reads none of them.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import CONFIG, TOKENIZER, WEIGHTS
from model.config import ModelConfig, TaskConfig
from model.evaluation import tables
from model.evaluation.tables import Figures
from model.joint.report import CALIBRATION, CARD, METRICS
from model.training.steps import COMPACT

ECE = "calibration.ece"


def write(folder: Path, config: ModelConfig, figures: Figures, seed: int) -> None:
    """metrics.json, calibration.json and MODEL_CARD.md, from the figures (`own_figures`) that the training measured."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    run = {"recipe": COMPACT, "seed": seed, "data_digest": config.data_digest, "versions": versions}
    for name, values in (
        (METRICS, {"version": config.version, **figures, "run": run}),
        (CALIBRATION, calibration(config, figures)),
    ):
        (folder / name).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    (folder / CARD).write_text(model_card(config, figures), encoding="utf-8")


def own_figures(figures: Figures, *, dual: bool) -> dict[str, Mapping[str, Any]]:
    """Of a training's summary what is true of one of its two checkpoints, under the same keys for both."""
    if not dual:
        return {key: figure for key, figure in figures.items() if not key.endswith(tables.DUAL)}
    shared = {
        key: figure for key, figure in figures.items() if key.startswith("official_text.")
    }  # the same text stages
    return {key.removesuffix(tables.DUAL): figures[key] for key in figures if key.endswith(tables.DUAL)} | shared


def calibration(config: ModelConfig, figures: Figures) -> dict[str, Any]:
    """The fusions of every task, whose weights are inverse temperatures, and the error that is left on unseen folds."""
    return {
        "version": config.version,
        **_fusions(config),
        "further": {task: _fusions(fitted) for task, fitted in config.further.items()},
        "alert_threshold": config.alert_threshold,
        "ece": dict(figures[ECE]),
    }


def model_card(config: ModelConfig, figures: Figures) -> str:
    text, image, chosen, ece = config.text, config.image, config.selection, figures[ECE]
    return f"""# {config.version}

A rationale classifier for crisis posts, trained with the recipe `{COMPACT}`.

| | |
|---|---|
| method | Cross-Modal Rationale Transfer for Explainable Humanitarian Classification (arXiv 2603.18611) |
| tasks | {"; ".join(f"{task}: {', '.join(classes)}" for task, classes in config.tasks.items())} |
| stage 1 | {text.n_selector_layers} transformer layers with a BiGRU rationale head; EfficientNet-Lite0 patches, \
{image.rows} × {image.cols}, at {image.size_px} px |
| stage 2 | {text.n_decider_layers} transformer layers on the selected words; the first \
{image.decider_layers} layers of CLIP ViT-B/16 on the selected patches |
| evidence | at most {chosen.max_word_share:.0%} of the words ({chosen.min_words} in a short post) and \
{chosen.n_patches} of {image.rows * image.cols} patches |
| calibration | a weighted product of both experts, text alone from CrisisMMD's dev rows; calibration error (ECE) on \
unseen folds {ece["mean"]:.3f}, spread {ece["sd"]:.3f} |
| files | `{WEIGHTS}` (no pickle), `{CONFIG}`, `{TOKENIZER}`, `{CALIBRATION}`, `{METRICS}` |

## Quality

Written by the training run from `{METRICS}`. The folds' figures are those of the recipe: this checkpoint's own image
head learnt from all folds but the one whose ids `held_out_ids.txt` names, among the run's results.

{tables.model_table(figures, {}, [])}

## Data

CrisisMMD, AIDR with MEDIC labels, CDD, HumAID, and tweets of the 2015 Nepal earthquake with rationales that people
marked; the text's models learnt from a larger one (MPNet) of the same tweets. Tables: `{config.data_digest}`.

## Terms

CrisisMMD and MEDIC are CC BY-NC-SA 4.0, CrisisNLP and HumAID are for humanitarian-computing research: weights trained
on them are for **non-commercial use only**, share alike, with attribution to Alam, Ofli and Imran (CrisisMMD, ICWSM
2018; MEDIC, 2023; HumAID, ICWSM 2021).

## Limits

- It was measured on English posts from Twitter only.
- Selected words and patches are what the label was decided from. They are no proof that the post is true.
- Classes with few rows have probabilities that deserve little trust: see the F1 of each class.
"""


def _fusions(head: ModelConfig | TaskConfig) -> dict[str, Any]:
    named = {"fusion_both": head.fusion_both, "fusion_text": head.fusion_text, "fusion_image": head.fusion_image}
    return {name: asdict(fusion) for name, fusion in named.items()} | {"prior": head.prior}
