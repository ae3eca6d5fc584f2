"""`python -m model.evaluate`: measures a stored checkpoint through its public face; trains nothing."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from model import data
from model.classifier import RationaleClassifier, Selection
from model.corpus import load_corpus
from model.crossval import tfidf
from model.data import ImageRow, RationaleRow, TextRow
from model.measures import Labels, Probs, auprc, classification, token_f1
from model.records import CLASSES, Example
from model.train_text import marked_words

_N_TIMED = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of the evaluation tables and images")
    parser.add_argument("--out", type=Path, required=True, help="holds held_out_ids.txt; gets JSON")
    args = parser.parse_args()
    classifier = RationaleClassifier.load(args.checkpoint, n_threads=1)
    report = evaluate(classifier, args.data, (args.out / "held_out_ids.txt").read_text(encoding="utf-8").split())
    report["size_mb"] = sum(path.stat().st_size for path in args.checkpoint.iterdir()) / 1e6
    (args.out / "shipped.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def evaluate(classifier: RationaleClassifier, folder: Path, held_out: Sequence[str]) -> dict[str, Any]:
    """Held-out rows with pixels, all official test texts, people's rationales of another event, and speed."""
    wanted = set(held_out)
    rows = [row for row in data.pair_rows(folder) if row.row_id in wanted]
    assert len(rows) == len(wanted), "held_out_ids.txt names rows that the data folder lacks"
    examples = [Example(text=row.text, image=data.read_image(row.path)) for row in rows]
    labels = np.array([row.label for row in rows])
    report: dict[str, Any] = {"version": classifier.version, "digest": classifier.digest}
    report["held_out"] = _views(classifier, examples, labels)
    report["held_out_tfidf"] = classification(labels, _tfidf(folder, rows))
    restored = np.array([row.pixels == "restored" for row in rows])
    for name, chosen in (("restored", restored), ("original", ~restored)):
        part = [example for example, keep in zip(examples, chosen, strict=True) if keep]
        report[f"held_out_{name}_pixels"] = {"rationale only": _rationale_only(classifier, part, labels[chosen])}
    report["official_test_text"] = official_test(classifier, folder)
    report["hagupit"] = plausibility(classifier, data.rationale_rows(folder, "typhoon_hagupit_2014"))
    report["ms_per_post_one_thread"] = timings(classifier, examples)
    return report


def _tfidf(folder: Path, rows: Sequence[ImageRow]) -> Probs:
    """The linear text baseline: whole posts, trained on the official train split."""
    probs: Probs = tfidf(load_corpus(folder).train, [row.text for row in rows]).exp().numpy()
    return probs


def official_test(classifier: RationaleClassifier, folder: Path) -> dict[str, Any]:
    """Official train to official test, text only: all 955 rows."""
    rows: list[TextRow] = data.text_rows(folder, "test")
    examples = [Example(text=row.text) for row in rows]
    return _views(classifier, examples, np.array([row.label for row in rows]))


def plausibility(classifier: RationaleClassifier, rows: Sequence[RationaleRow]) -> dict[str, float]:
    """Agreement with the words people marked, averaged over posts."""
    f1s: list[float] = []
    precisions: list[float] = []
    shares: list[float] = []
    marked_shares: list[float] = []
    for row in tqdm(rows, desc="Hagupit", mininterval=10.0):
        words = classifier.tokenizer.split(row.text)
        marked = marked_words(row, words)
        if not any(marked):
            continue
        selection = classifier.select(Example(text=row.text))
        selected = [index in selection.words for index in range(len(words))]
        f1s.append(token_f1(marked, selected))
        precisions.append(auprc(marked, selection.word_scores))
        shares.append(float(np.mean(selected)))
        marked_shares.append(float(np.mean(marked)))
    return {
        "n": len(f1s),
        "token_f1": float(np.mean(f1s)),
        "auprc": float(np.mean(precisions)),
        "selected_share": float(np.mean(shares)),
        "marked_share": float(np.mean(marked_shares)),
    }


def timings(classifier: RationaleClassifier, examples: Sequence[Example]) -> dict[str, float]:
    """Median milliseconds of one `predict` call with one post, on the threads torch has now."""
    taken: dict[str, list[float]] = {"with image": [], "text only": []}
    for example in examples[:_N_TIMED]:
        for name, post in (("with image", example), ("text only", replace(example, image=None))):
            started = time.perf_counter()
            classifier.predict([post])
            taken[name].append(1e3 * (time.perf_counter() - started))
    return {"n_threads": torch.get_num_threads()} | {name: float(np.median(ms)) for name, ms in taken.items()}


def _views(classifier: RationaleClassifier, examples: Sequence[Example], labels: Labels) -> dict[str, Any]:
    """Rationale only (the product's path), everything shown, and the rationale removed."""
    selections = [classifier.select(example) for example in tqdm(examples, desc="select", mininterval=10.0)]
    rationale = _decide(classifier, examples, selections)
    whole = [_whole(classifier, example, chosen) for example, chosen in zip(examples, selections, strict=True)]
    full = _decide(classifier, examples, whole)
    rest = [_difference(everything, chosen) for everything, chosen in zip(whole, selections, strict=True)]
    removed = _decide(classifier, examples, rest)
    rows = np.arange(len(labels))
    top = full.argmax(1)
    humanitarian = labels != CLASSES.index("not_humanitarian")
    word_shares = np.array([len(s.words) / max(1, len(s.word_scores)) for s in selections])
    patch_shares = np.array([len(s.patches) / max(1, len(s.patch_scores)) for s in selections])
    return {
        "rationale only": classification(labels, rationale),
        "full input": classification(labels, full),
        "rationale removed": classification(labels, removed),
        "comprehensiveness": float((full - removed)[rows, top].mean()),
        "sufficiency": float((full - rationale)[rows, top].mean()),
        "word_share": float(word_shares.mean()),
        "word_share_humanitarian": float(word_shares[humanitarian].mean()),
        "patch_share": float(patch_shares.mean()),
    }


def _rationale_only(classifier: RationaleClassifier, examples: Sequence[Example], labels: Labels) -> dict[str, Any]:
    return classification(labels, _decide(classifier, examples, [classifier.select(e) for e in examples]))


def _decide(classifier: RationaleClassifier, examples: Sequence[Example], selections: Sequence[Selection]) -> Probs:
    return np.stack([classifier.decide(classifier.mask(e, s)) for e, s in zip(examples, selections, strict=True)])


def _whole(classifier: RationaleClassifier, example: Example, selection: Selection) -> Selection:
    """Every word that stage 1 could read and every patch."""
    words = tuple(range(len(selection.word_scores))) if selection.words else ()
    return replace(selection, words=words, patches=tuple(range(len(selection.patch_scores))))


def _difference(everything: Selection, chosen: Selection) -> Selection:
    words = tuple(sorted(set(everything.words) - set(chosen.words)))
    return replace(everything, words=words, patches=tuple(sorted(set(everything.patches) - set(chosen.patches))))


if __name__ == "__main__":
    main()
