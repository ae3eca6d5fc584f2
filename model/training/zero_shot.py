"""`python -m model.training.zero_shot`: text rationales on events that no training tweet is of.

The shipped checkpoint has read tweets of all of HumAID's events. This trains both text stages once more by the same
recipe, without a tweet of the events that CrisisMMD does not have either, and measures on those events' test tweets.
The teacher is left out: it would have to be trained anew as well.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from model.data import datasets
from model.data.corpus import load_corpus
from model.evaluation import summary
from model.evaluation.measures import classification
from model.training import crossval
from model.training.heads import apply_fusion
from model.training.protocol import read_rationales
from model.training.steps import Run, fit_text_stages, make_kit, measure_from_command_line

CRISISMMD_EVENTS = frozenset({"hurricane_harvey_2017", "hurricane_irma_2017", "hurricane_maria_2017"})
MEASURES = ("macro_f1", "accuracy")
PROTOCOL = (
    "HumAID's test tweets of the event, text rationale only, by the shipped recipe for text, with no teacher, trained"
    " without a tweet of {n} events ({events}); calibrated on CrisisMMD's official dev split"
)


def measure(run: Run, path: Path) -> None:
    """Trains what is not cached yet, and puts every unseen event's figures into the summary at `path`."""
    unseen = [event for event in datasets.humaid_events(run.data) if event not in CRISISMMD_EVENTS]
    run.claim(unseen)
    corpus = load_corpus(run.data, unseen)
    texts = fit_text_stages(run, corpus, make_kit(run, corpus), taught=False)

    dev = read_rationales(corpus.dev, texts)
    fusion = crossval.fit_text_fusion(dev, torch.tensor([row.label for row in corpus.dev]))
    protocol = PROTOCOL.format(n=len(unseen), events=", ".join(unseen))
    for event in unseen:
        rows = datasets.humaid_rows(run.data, [event], "test")
        scores = classification(
            np.array([row.label for row in rows]), apply_fusion(fusion, read_rationales(rows, texts), None)
        )
        for name in MEASURES:
            key = f"zero_shot.humaid.{event}.{name}"
            summary.add(path, key, [float(str(scores[name]))], len(rows), protocol)
            print(f"{key} {scores[name]:.3f}")


if __name__ == "__main__":
    measure_from_command_line(__doc__, measure)
