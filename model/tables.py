"""Renders the measured numbers as the Markdown table that the README includes; computes none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def markdown(shipped: Mapping[str, Any], crossval: Mapping[str, Any]) -> str:
    """The tables of both protocols; numbers only from the given reports."""
    held, test, people = shipped["held_out"], shipped["official_test_text"], shipped["hagupit"]
    lines = [
        f"Shipped checkpoint `{shipped['version']}`, {shipped['size_mb']:.1f} MB, on rows it never saw:",
        "",
        "| rows | input | n | accuracy | Macro-F1 | weighted F1 | ECE |",
        "|---|---|---|---|---|---|---|",
    ]
    lines.append(_row("held-out fold, text only", "linear TF-IDF, full input", shipped["held_out_tfidf"]))
    for rows, report in (("held-out fold, text and image", held), ("official test, text only", test)):
        lines += [_row(rows, view, report[view]) for view in ("rationale only", "full input", "rationale removed")]
    n_seeds = crossval["n_seeds"]
    lines += [
        "",
        "Official test rows with pixels, 5 grouped stratified folds,"
        f" image head and fusion over {n_seeds} {'seed' if n_seeds == 1 else 'seeds'}:",
        "",
        "| input | n | accuracy | Macro-F1 | weighted F1 | ECE |",
        "|---|---|---|---|---|---|",
    ]
    folds = [(name, scores) for name, scores in crossval.items() if isinstance(scores, dict)]
    lines += [_folds_row(name, scores, n_seeds) for name, scores in folds]
    timing = shipped["ms_per_post_one_thread"]
    lines += [
        "",
        f"Words selected: {held['word_share_humanitarian']:.0%} of humanitarian posts' words"
        f" ({held['word_share']:.0%} of all); patches: {held['patch_share']:.0%}."
        f" Agreement with people's rationales on another event (Typhoon Hagupit, {people['n']} tweets):"
        f" token-F1 {people['token_f1']:.3f}, AUPRC {people['auprc']:.3f}."
        f" One CPU thread: {timing['with image']:.0f} ms a post with image,"
        f" {timing['text only']:.0f} ms text only.",
        "",
    ]
    return "\n".join(lines)


def _row(rows: str, view: str, scores: Mapping[str, Any]) -> str:
    return (
        f"| {rows} | {view} | {scores['n']} | {scores['accuracy']:.3f} | {scores['macro_f1']:.3f}"
        f" | {scores['weighted_f1']:.3f} | {scores['ece']:.3f} |"
    )


def _folds_row(name: str, scores: Mapping[str, Any], n_seeds: int) -> str:
    def cell(key: str) -> str:
        spread = f" ± {scores[f'{key}_sd']:.3f}" if n_seeds > 1 and f"{key}_sd" in scores else ""
        return f"{scores[key]:.3f}{spread}"

    cells = " | ".join(cell(key) for key in ("accuracy", "macro_f1", "weighted_f1", "ece"))
    return f"| {name} | {scores['n']} | {cells} |"
