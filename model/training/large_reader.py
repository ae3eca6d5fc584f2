"""`python -m model.training.large_reader`: what the teacher itself makes of whole texts, by the reader's protocol.

The table then tells what being small costs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from model.data.corpus import load_corpus
from model.evaluation import summary
from model.evaluation.measures import classification
from model.training import crossval, steps, teacher
from model.training.heads import apply_fusion
from model.training.masked_texts import whole
from model.training.protocol import OFFICIAL
from model.training.steps import Run, measure_from_command_line

MEASURES = ("macro_f1", "accuracy", "weighted_f1")
PROTOCOL = f"by MPNet in place of the shipped reader: {OFFICIAL}"


def measure(run: Run, path: Path) -> None:
    """Trains the teacher unless it is cached, and puts its figures into the summary at `path`."""
    run.claim()
    corpus = load_corpus(run.data)
    kit = steps.fit_teacher(run, corpus)
    dev, test = (teacher.read(whole(rows), kit) for rows in (corpus.dev, corpus.test))
    fusion = crossval.fit_text_fusion(dev, torch.tensor([row.label for row in corpus.dev]))
    labels = np.array([row.label for row in corpus.test])
    scores = classification(labels, apply_fusion(fusion, test, None))
    for name in MEASURES:
        key = f"official_text.{name}.mpnet"
        summary.add(path, key, [float(str(scores[name]))], len(labels), PROTOCOL)
        print(f"{key} {scores[name]:.3f}")


if __name__ == "__main__":
    measure_from_command_line(__doc__, measure)
