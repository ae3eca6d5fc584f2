"""`python -m model.evaluation.published`: what others published of the same test rows, scored as ours are."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.data import datasets
from model.data.datasets import ImageRow
from model.evaluation import summary
from model.evaluation.measures import classification
from model.records import CLASSES

FOLDER = "peer_predictions"
PREDICTIONS = {
    "gpt_4o_text_and_image": "gpt-4o-Zeroshot-Text-Image.json",
    "gpt_4o_image_only": "gpt-4o-Zeroshot-Image-Only.json",
    "gpt_4o_text_only": "gpt-4o-Zeroshot-Text-Only.json",
}
# the files number CrisisMMD's classes in an order of their own
_THEIR_CLASSES = (
    "affected_individuals",
    "rescue_volunteering_or_donation_effort",
    "infrastructure_and_utility_damage",
    "other_relevant_information",
    "not_humanitarian",
)
_MEASURES = ("macro_f1", "accuracy", "weighted_f1")
PROTOCOL = "published zero-shot predictions, on the same official test rows with pixels"


def measure(folder: Path, path: Path) -> None:
    """Puts the figures of each file of predictions under `folder` into the summary at `path`.

    Raises:
        ValueError: a file has no prediction for a row, or another label.
    """
    rows = [row for row in datasets.pair_rows(folder) if row.split == "test"]
    labels = np.array([row.label for row in rows])
    for name, file in PREDICTIONS.items():
        predicted = read_predictions(folder / FOLDER / file, rows)
        scores = classification(labels, np.eye(len(CLASSES))[predicted])
        for kind in _MEASURES:
            key = f"unconstrained.{kind}.{name}"
            summary.add(path, key, [float(str(scores[kind]))], len(rows), PROTOCOL)
            print(f"{key} {scores[kind]:.3f}")


def read_predictions(path: Path, rows: Sequence[ImageRow]) -> list[int]:
    """The predicted class of each row, found by its picture's name."""
    of_picture = {Path(one["image_path"]).stem: one for one in json.loads(path.read_text(encoding="utf-8"))}
    predicted: list[int] = []
    for row in rows:
        one = of_picture.get(row.row_id)
        if one is None or _class(one["y_true"]) != row.label:
            raise ValueError(f"{path} has no prediction for {row.row_id} under its label: take the published file")
        predicted.append(_class(one["y_pred"]))
    return predicted


def _class(number: int) -> int:
    return CLASSES.index(_THEIR_CLASSES[number])


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the training tables and images")
    parser.add_argument("--summary", type=Path, required=True, help="the file of figures")
    args = parser.parse_args()
    measure(args.data, args.summary)


if __name__ == "__main__":
    main()
