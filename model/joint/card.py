"""The model card of a trained checkpoint, from its config and its metrics alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.joint.config import JointConfig


def model_card(config: JointConfig, metrics: Mapping[str, Any]) -> str:
    run, encoder = metrics["run"], config.encoder
    rows = ["| rows | input | n | accuracy | Macro-F1 | weighted F1 | ECE |", "|---|---|---|---|---|---|---|"]
    for key, measured in metrics.items():
        if "." not in key:
            continue
        for view in ("rationale_only", "stage_1_full_input"):
            score = measured[view]
            numbers = " | ".join(f"{score[name]:.3f}" for name in ("accuracy", "macro_f1", "weighted_f1", "ece"))
            rows.append(f"| {key} | {view.replace('_', ' ')} | {score['n']} | {numbers} |")
    selected = metrics.get("humanitarian.test", metrics["humanitarian.dev"])["selected"]
    budget = "all" if config.words.max_word_share >= 1 else f"at most {config.words.max_word_share:.0%} of the"
    temperatures = ", ".join(f"{task}: temperature {config.temperature_of(task):.3f}" for task in config.tasks)
    return f"""# {config.version}

A rationale classifier for crisis posts, trained with the recipe `{run["recipe"]["name"]}`
({run["recipe"]["summary"]}).

| | |
|---|---|
| method | Cross-Modal Rationale Transfer for Explainable Humanitarian Classification (arXiv 2603.18611) |
| encoders | two of the kind `{encoder.kind}`, one a stage, from {run["pretrained"] or "new weights"} |
| tasks | {"; ".join(f"{task}: {', '.join(classes)}" for task, classes in config.tasks.items())} |
| words | {budget} words scored {config.words.word_threshold} or more, the best one where none is |
| patches | {config.transfer.method}, {config.transfer.heatmap} heatmap, top {config.transfer.top_share:.0%} |
| calibration | {temperatures}, from dev rows |
| files | `model.safetensors` (no pickle), `config.json`, `tokenizer.json`, `calibration.json`, `metrics.json`, \
`reliability.png` |

## Quality

Written by the training run from `metrics.json`; the dev rows chose the epoch and the temperatures, the test
rows nothing.

{chr(10).join(rows)}

Selected: {_share(selected["word_share"])} of the words, {_share(selected["patch_share"])} of the patches.
Fallbacks: {selected["fallbacks"] or "none"}.

## Data

{run["n_train"]} training rows, of which people marked the rationales of {run["human_rationales"]};
{run["n_missing_images"]} images were missing. Tables: `{config.data_digest}`.
{_targets(run)}

## Terms

CrisisMMD is CC BY-NC-SA 4.0: weights trained on it are for **non-commercial use only**, share alike, with
attribution to Alam, Ofli and Imran (ICWSM 2018). Other data and pretrained weights bring their own terms.

## Limits

- It was measured on English posts from Twitter only.
- Selected words and patches are what the label was decided from. They are no proof that the post is true.
- Classes with few rows have probabilities that deserve little trust: see the per-class numbers in `metrics.json`.
"""


def _targets(run: Mapping[str, Any]) -> str:
    if "stage_1_evidence" in run["history"]:
        return "Other posts' rationales were learnt from the words that their own class rests on (gradient evidence)."
    return "Other posts taught the class only."


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.0%}"
