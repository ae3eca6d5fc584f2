"""Writes an evaluation's folder: metrics, predictions, plots and a report. Only the predictions hold posts' words."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model.evaluation import plots
from model.evaluation.judging import READ, UNREADABLE, Judged, lost_marks
from model.evaluation.metrics import labels_of, probs_of

METRICS, PREDICTIONS, REPORT = "metrics.json", "predictions.csv", "report.md"
CONFUSION, RELIABILITY, BUDGETS = "confusion.png", "reliability.png", "budgets.png"
_VIEW_TITLES = {
    "rationale_only": "rationale only (the system)",
    "full": "everything shown",
    "rationale_removed": "rationale removed",
    "text_rationale_only": "text rationale only",
    "image_rationale_only": "image rationale only",
}


def write(folder: Path, judged: Sequence[Judged], metrics: Mapping[str, Any], classes: Sequence[str]) -> None:
    """All files of an evaluation; plots of what has labels only."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / METRICS).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    _write_predictions(folder / PREDICTIONS, judged, classes)
    labelled = [one for one in judged if one.post.label >= 0]
    for name in (CONFUSION, RELIABILITY, BUDGETS):
        (folder / name).unlink(missing_ok=True)  # of an earlier evaluation
    if labelled:
        labels, probs = labels_of(labelled), probs_of(labelled)
        plots.confusion(folder / CONFUSION, labels, probs, classes)
        plots.reliability_diagram(folder / RELIABILITY, labels, probs, metrics["ece"])
    if "budgets" in metrics:
        plots.budget_curve(folder / BUDGETS, metrics["budgets"], metrics["own_budget"])
    (folder / REPORT).write_text(report(metrics, classes, lost_marks(judged)), encoding="utf-8")


def report(metrics: Mapping[str, Any], classes: Sequence[str], further_note: str = "") -> str:
    """The metrics as Markdown, with the plots beside it."""
    checkpoint, data = metrics["checkpoint"], metrics["data"]
    images = metrics["images"]
    parts = [
        f"# {data['file']}",
        f"Checkpoint `{checkpoint['version']}` ({checkpoint['digest'][:19]}…) on {metrics['rows']} posts"
        f" (`{data['digest'][:19]}…`), decided from the selected words and patches alone."
        f" {metrics['n']} have a label, {images['read']} an image.",
        *(f"- {note}" for note in (*_notes(metrics), further_note) if note),
    ]
    if metrics["n"]:
        parts += [_scores(metrics), _per_class(metrics, classes), f"![Confusion]({CONFUSION})"]
        parts += [f"![Reliability]({RELIABILITY})"]
    parts += [_selected(metrics)]
    if "budgets" in metrics:
        parts += [f"![Scores against the share shown]({BUDGETS})"]
    for section in (_views, _explanation, _rationales, _faithfulness):
        text = section(metrics)
        parts += [text] if text else []
    return "\n\n".join(parts) + "\n"


def _notes(metrics: Mapping[str, Any]) -> list[str]:
    notes: list[str] = [*metrics["data"]["notes"]]
    if metrics["images"]["unreadable"]:
        notes.append(f"{metrics['images']['unreadable']} images could not be read: decided from the text alone")
    if metrics["n"] and metrics["n_unlabelled"]:
        notes.append(f"{metrics['n_unlabelled']} posts have no label: predicted, not scored")
    return notes


def _scores(metrics: Mapping[str, Any]) -> str:
    rows = {"all": metrics} | {f"{kind} pixels": part for kind, part in metrics.get("by_pixels", {}).items()}
    return _table(
        ("posts", "n", "accuracy", "Macro-F1", "weighted F1", "ECE"),
        [(name, *_numbers(scores)) for name, scores in rows.items()],
    )


def _numbers(scores: Mapping[str, Any]) -> tuple[str, ...]:
    return (str(scores["n"]), *(f"{scores[key]:.3f}" for key in ("accuracy", "macro_f1", "weighted_f1", "ece")))


def _per_class(metrics: Mapping[str, Any], classes: Sequence[str]) -> str:
    rows = [(name, metrics["per_class"][name]) for name in classes]
    return _table(
        ("class", "n", "precision", "recall", "F1"),
        [(f"`{n}`", str(s["n"]), *(f"{s[key]:.3f}" for key in ("precision", "recall", "f1"))) for n, s in rows],
    )


def _selected(metrics: Mapping[str, Any]) -> str:
    chosen = metrics["selected"]
    groups = {"": "of all posts", "_humanitarian": "of humanitarian posts"}
    there = [suffix for suffix in groups if f"words{suffix}" in chosen]  # other tasks know no humanitarian posts
    rows = [
        (
            unit,
            *("" if chosen[key] is None else f"{chosen[key]:.1%}" for key in (f"{unit}{suffix}" for suffix in there)),
        )
        for unit in ("words", "patches")
    ]
    shares = _table(("selected", *(groups[suffix] for suffix in there)), rows)
    counts = [(f"`{name}`", str(count)) for name, count in metrics["fallbacks"].items()]
    return shares + ("\n\n" + _table(("fallback", "posts"), counts) if counts else "")


def _views(metrics: Mapping[str, Any]) -> str:
    if "views" not in metrics:
        return ""
    rows = [(title, *_numbers(metrics["views"][name])) for name, title in _VIEW_TITLES.items()]
    return _table(("shown", "n", "accuracy", "Macro-F1", "weighted F1", "ECE"), rows)


def _explanation(metrics: Mapping[str, Any]) -> str:
    if "explanation" not in metrics:
        return ""
    made = metrics["explanation"]
    names = ("comprehensiveness", "sufficiency", "aopc", "aopc_sufficiency", "macro_f1_drop")
    rows = [(f"`{name}`", f"{made[name]:.3f}") for name in names if name in made]
    shares = [
        (f"{share:.0%}", f"{lost:.3f}", f"{kept:.3f}")
        for share, lost, kept in zip(
            made["thresholds"], made["comprehensiveness_at"], made["sufficiency_at"], strict=True
        )
    ]
    return "\n\n".join(
        (_table(("measure", "value"), rows), _table(("top", "comprehensiveness", "sufficiency"), shares))
    )


def _rationales(metrics: Mapping[str, Any]) -> str:
    if "rationales" not in metrics:
        return ""
    found = metrics["rationales"]
    rows = [("the classifier", *_agreement(metrics))]
    rows += [(name.replace("_", " "), *_agreement(scores)) for name, scores in found["baselines"].items()]
    about = (
        f"Agreement with people's rationales, {found['n']} posts, of whose words people marked"
        f" {found['marked_share']:.0%}:"
    )
    return about + "\n\n" + _table(("selection", "token-F1", "IOU-F1", "AUPRC"), rows)


def _agreement(scores: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"{scores[key]:.3f}" if key in scores else "" for key in ("token_f1", "iou_f1", "auprc"))


def _faithfulness(metrics: Mapping[str, Any]) -> str:
    if "image_faithfulness" not in metrics:
        return ""
    made = metrics["image_faithfulness"]
    rows = [
        (name.replace("_", " "), f"{scores['insertion']:.3f}", f"{scores['deletion']:.3f}")
        for name, scores in made["methods"].items()
    ]
    about = (
        f"Which patches matter, {made['n']} images: area under the probability of the image's class while patches come"
        f" in (high is good) and go out (low is good), best first. Gain over RISE with {made['rise_masks']} masks:"
        f" {made['gain_over_rise']:+.1%}."
    )
    return about + "\n\n" + _table(("scores", "insertion", "deletion"), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _write_predictions(path: Path, judged: Sequence[Judged], classes: Sequence[str]) -> None:
    """One row per post in the table's order; spans are `start-end` in characters, patches row-major positions.

    `grid` is rows x columns, `boxes` x0,y0,x1,y1 of each patch in fractions of the image.
    """
    columns = ["id", "label", "predicted", *(f"prob_{name}" for name in classes)]
    columns += ["rationale", "spans", "patches", "grid", "boxes", "image", "fallbacks"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for one in judged:
            seen = one.image_rationale
            words = " [SEP] ".join(one.post.text[span.start : span.end] for span in one.spans)
            writer.writerow(
                [
                    one.post.row_id,
                    classes[one.post.label] if one.post.label >= 0 else "",
                    classes[int(one.probs.argmax())],
                    *(f"{prob:.6f}" for prob in one.probs),
                    words,
                    " ".join(f"{span.start}-{span.end}" for span in one.spans),
                    " ".join(map(str, one.selection.patches)),
                    "" if seen is None else f"{seen.rows}x{seen.cols}",
                    "" if seen is None else " ".join(",".join(f"{edge:.4f}" for edge in box) for box in seen.boxes),
                    {READ: "read", UNREADABLE: "unreadable"}.get(one.image, ""),
                    " ".join(one.selection.fallbacks),
                ]
            )
