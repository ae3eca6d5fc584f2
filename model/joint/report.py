"""Measures a trained pair of stages on held-out rows, calibrates it, and writes what came of it."""

from __future__ import annotations

import json
import math
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.classifier import Selection
from model.evaluation import plots
from model.evaluation.measures import Labels, Probs, alert_threshold, calibration_error, classification
from model.evaluation.report import RELIABILITY
from model.joint.archive import Archive
from model.joint.card import model_card
from model.joint.config import JointConfig
from model.joint.network import Decider, Selector
from model.joint.scoring import Job, Left, left_logits, whole_logits
from model.records import CLASSES, HUMANITARIAN, TASKS

_ALERT_PRECISION = 0.9
_HOTTEST = 20.0
_PULL = 0.01  # towards 1: dev rows that are all right would ask for a temperature of 0
METRICS, CALIBRATION, CARD = "metrics.json", "calibration.json", "MODEL_CARD.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    temperature: float
    temperatures: dict[str, float]  # of the other tasks
    prior: tuple[float, ...]
    alert_threshold: float
    calibration: dict[str, Any]
    metrics: dict[str, Any]
    judged: tuple[Labels, Probs]  # the humanitarian test rows, dev rows where there are none


def measure(job: Job, archive: Archive, selector: Selector, decider: Decider, left: Left) -> Measured:
    """Temperatures and alert threshold from dev rows, in float32; then every task's dev and test rows."""
    place = {id(post): k for k, post in enumerate(job.rows.posts)}
    calibration: dict[str, dict[str, float]] = {}
    for task in job.recipe.tasks:
        # a row without evidence gets the prior, whatever the temperature
        dev = left.usable([place[id(post)] for post in archive.dev(task)])
        dev_logits = left_logits(job, decider, left, dev)[task].double()
        dev_labels = job.rows.labels(dev, task)
        calibration[task] = _calibrated(dev_logits, dev_labels)
        if task == HUMANITARIAN:
            dev_probs = (dev_logits / calibration[task]["temperature"]).softmax(1).numpy()
            damage = CLASSES.index("infrastructure_and_utility_damage")
            threshold = alert_threshold(dev_labels.numpy(), dev_probs, damage, _ALERT_PRECISION)
    temperatures = {task: fitted["temperature"] for task, fitted in calibration.items()}
    prior = class_prior(job.rows.labels(range(job.n_train), HUMANITARIAN))
    metrics: dict[str, Any] = {}
    for task, classes in TASKS.items():
        if task not in job.recipe.tasks:
            continue
        for split, posts in (("dev", archive.dev(task)), ("test", archive.test(task))):
            rows = [place[id(post)] for post in posts]
            if not rows:
                continue
            labels = job.rows.labels(rows, task).numpy()
            logits = left_logits(job, decider, left, rows)[task].double()
            probs = (logits / temperatures[task]).softmax(1)
            if task == HUMANITARIAN:
                usable = set(left.usable(rows))
                probs[[k not in usable for k in rows]] = torch.tensor(prior).double()
                judged = labels, probs.numpy()
            metrics[f"{task}.{split}"] = {
                "rationale_only": classification(labels, probs.numpy(), classes),
                "stage_1_full_input": classification(
                    labels, whole_logits(job, selector, rows)[task].double().softmax(1).numpy(), classes
                ),
                "selected": shares([left.selections[k] for k in rows]),
            }
    further = {task: fitted for task, fitted in calibration.items() if task != HUMANITARIAN}
    return Measured(
        temperature=temperatures.pop(HUMANITARIAN),
        temperatures=temperatures,
        prior=prior,
        alert_threshold=threshold,
        calibration=calibration[HUMANITARIAN] | ({"further": further} if further else {}),
        metrics=metrics,
        judged=judged,
    )


def _calibrated(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """A task's temperature, and what it does to the dev rows that it is fitted to."""
    temperature = fit_temperature(logits, labels)
    return {
        "temperature": temperature,
        "n_dev": len(labels),
        "nll_before": float(F.cross_entropy(logits, labels)),
        "nll_after": float(F.cross_entropy(logits / temperature, labels)),
        "ece_before": calibration_error(labels.numpy(), logits.softmax(1).numpy()),
        "ece_after": calibration_error(labels.numpy(), (logits / temperature).softmax(1).numpy()),
    }


def class_prior(labels: Tensor) -> tuple[float, ...]:
    """Each class's share of the rows that are labelled at all; -1 is a row of another task."""
    counts = torch.bincount(labels[labels >= 0], minlength=len(CLASSES)).double()
    return tuple((counts / counts.sum()).tolist())


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature of least cross-entropy, drawn a little towards 1, within 1/20 to 20; by golden section."""
    low, high = -math.log(_HOTTEST), math.log(_HOTTEST)
    golden = (5**0.5 - 1) / 2

    def loss(log_temperature: float) -> float:
        entropy = F.cross_entropy(logits.double() / math.exp(log_temperature), labels)
        return float(entropy) + _PULL * log_temperature**2

    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return math.exp((low + high) / 2)


def shares(selections: Sequence[Selection]) -> dict[str, Any]:
    """How much was selected, and how often something was missing."""
    words = [len(s.words) / len(s.word_scores) for s in selections if s.word_scores]
    patches = [len(s.patches) / len(s.patch_scores) for s in selections if s.patch_scores]
    return {
        "n": len(selections),
        "word_share": float(np.mean(words)) if words else None,
        "patch_share": float(np.mean(patches)) if patches else None,
        "fallbacks": dict(sorted(Counter(name for s in selections for name in s.fallbacks).items())),
    }


def write(out: Path, config: JointConfig, measured: Measured, run: Mapping[str, Any]) -> None:
    """metrics.json, calibration.json, MODEL_CARD.md and a reliability plot beside the weights."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    metrics = {"version": config.version, **measured.metrics, "run": {**run, "versions": versions}}
    for name, values in ((METRICS, metrics), (CALIBRATION, {"version": config.version, **measured.calibration})):
        (out / name).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    (out / CARD).write_text(model_card(config, metrics), encoding="utf-8")
    plots.reliability_diagram(out / RELIABILITY, *measured.judged, calibration_error(*measured.judged))


def run_key(out: Path) -> str | None:
    """What tells the run that wrote the folder from others; None where it does not say."""
    try:
        key = json.loads((out / METRICS).read_text(encoding="utf-8"))["run"]["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(key)
