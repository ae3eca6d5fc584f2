"""`python -m model.training.retrained`: what the losses of stage 1 are worth, one ablation row each, trained anew.

On texts alone, without a stage 2 of its own: the reader from which all start classifies what each selects, so that
rows differ in the selection only. What was trained stays under --out, from where an interrupted run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from model.data import rationales
from model.data.corpus import load_corpus
from model.data.rationales import marked_words
from model.evaluation.ablations import MEASURES, RETRAINED, TOKEN_F1, record
from model.evaluation.measures import classification, token_f1
from model.network import TextSelector
from model.selection import choose_words
from model.training import crossval, steps
from model.training.heads import apply_fusion
from model.training.protocol import read_rationales
from model.training.steps import Run
from model.training.text_kit import TextKit, Texts
from model.training.train_text import RECIPE, SelectorLosses, score_words

MARKED_EVENT = "typhoon_hagupit_2014"
PROTOCOL = (
    "stage 1 of texts trained anew with this setting; the one reader from which all start classifies the selected words"
    " of the official test texts, calibrated on the official dev split; token-F1 with people's marks on Hagupit tweets"
)
LOSSES: Mapping[str, SelectorLosses] = MappingProxyType(
    {
        "alpha_2_as_shipped": RECIPE,
        "alpha_0_09": SelectorLosses(alpha=0.09),
        "class_loss_off": SelectorLosses(class_weight=0.0),
    }
)
assert tuple(LOSSES) == RETRAINED


def measure(run: Run, path: Path, names: Sequence[str] = RETRAINED) -> None:
    """Trains what is not cached yet, and puts every named row into the ablations at `path` as soon as it is there."""
    run.claim()
    corpus = load_corpus(run.data)
    marked = rationales.rationale_rows(run.data, MARKED_EVENT)
    kit = steps.make_kit(run, corpus)
    stored = steps.stored(kit)
    reader = steps.fit_reader(run, corpus, kit)
    dev_labels = torch.tensor([row.label for row in corpus.dev])
    labels = np.array([row.label for row in corpus.test])
    for name in names:
        selector = steps.fit_selector(run, corpus, kit, reader, LOSSES[name], name)
        texts = Texts(kit=stored, reader=reader, selector=selector, decider=reader)
        fusion = crossval.fit_text_fusion(read_rationales(corpus.dev, texts), dev_labels)
        made = classification(labels, apply_fusion(fusion, read_rationales(corpus.test, texts), None))
        scores = {key: float(str(made[key])) for key in MEASURES} | {TOKEN_F1: agreement(marked, stored, selector)}
        record(path, name, [scores], len(labels), PROTOCOL)
        print(name, *(f"{key} {score:.3f}" for key, score in scores.items()), flush=True)


def agreement(rows: Sequence[rationales.RationaleRow], kit: TextKit, selector: TextSelector) -> float:
    """Mean token-F1 of the selected words with those that people marked."""
    found = []
    for row, (words, scores) in zip(rows, score_words([row.text for row in rows], kit, selector), strict=True):
        chosen = choose_words(words, scores, kit.selection)
        found.append(token_f1(marked_words(row, words), [index in chosen for index in range(len(words))]))
    return float(np.mean(found))


def main() -> None:
    parser = steps.run_parser(__doc__)
    parser.add_argument("--ablations", type=Path, required=True, help="the file of ablations; its other rows stay")
    parser.add_argument("--only", nargs="+", choices=RETRAINED, default=RETRAINED)
    args = parser.parse_args()
    measure(steps.run_of(args), args.ablations, args.only)


if __name__ == "__main__":
    main()
