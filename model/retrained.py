"""`python -m model.retrained`: what stage 1's losses are worth, one ablation row each; trains both text stages anew.

Text alone: stage 2 too is trained anew, since it learns from what stage 1 selects. All start from one reader, and
what was trained stays under --out, from where an interrupted run goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from model import crossval
from model.ablations import MEASURES, RETRAINED, record
from model.corpus import load_corpus
from model.heads import apply_fusion
from model.measures import classification
from model.protocol import read_rationales
from model.steps import Run, fit_text_stages, make_kit
from model.train_text import RECIPE, SelectorLosses

PROTOCOL = (
    "decided from text rationales alone: official train split to the official test texts, both text stages trained"
    " anew with this setting from one reader; calibrated on the official dev split"
)
LOSSES: Mapping[str, SelectorLosses] = MappingProxyType(
    {
        "alpha_2_as_shipped": RECIPE,
        "alpha_0_5": SelectorLosses(alpha=0.5),
        "alpha_0_09_as_in_the_paper": SelectorLosses(alpha=0.09),
        "class_loss_off": SelectorLosses(class_weight=0.0),
    }
)
assert tuple(LOSSES) == RETRAINED


def measure(run: Run, path: Path, names: Sequence[str] = RETRAINED) -> None:
    """Trains what is not cached yet, and puts every named row into the ablations at `path` as soon as it is there."""
    corpus = load_corpus(run.data)
    kit = make_kit(run, corpus)
    dev_labels = torch.tensor([row.label for row in corpus.dev])
    labels = np.array([row.label for row in corpus.test])
    for name in names:
        prefix = "" if LOSSES[name] == RECIPE else f"{name}."
        texts = fit_text_stages(run, corpus, kit, losses=LOSSES[name], prefix=prefix)
        fusion = crossval.fit_text_fusion(read_rationales(corpus.dev, texts), dev_labels)
        scores = classification(labels, apply_fusion(fusion, read_rationales(corpus.test, texts), None))
        record(path, name, [{key: float(str(scores[key])) for key in MEASURES}], len(labels), PROTOCOL)
        print(name, *(f"{key} {scores[key]:.3f}" for key in MEASURES), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the training tables")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the unpacked pretrained packages")
    parser.add_argument("--out", type=Path, required=True, help="gets cache/, from where an interrupted run goes on")
    parser.add_argument("--ablations", type=Path, required=True, help="the file of ablations; its other rows stay")
    parser.add_argument("--only", nargs="+", choices=RETRAINED, default=RETRAINED)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run = Run(data=args.data, weights=args.weights, cache=args.out / "cache", seed=args.seed)
    run.cache.mkdir(parents=True, exist_ok=True)
    measure(run, args.ablations, args.only)


if __name__ == "__main__":
    main()
