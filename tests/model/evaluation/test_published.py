"""Others' predictions are scored on our rows, under our classes."""

import json
from pathlib import Path

import pytest

from model.data.datasets import ImageRow
from model.evaluation import published, summary
from model.records import CLASSES


def row(number: int, label: str) -> ImageRow:
    return ImageRow(
        row_id=f"{number}_0", path=Path(), text="", label=CLASSES.index(label), disaster=-1, split="test",
        group="", pixels="restored",
    )  # fmt: skip


ROWS = [row(1, "infrastructure_and_utility_damage"), row(2, "not_humanitarian")]
THEIRS = [
    {"image_path": "data_image/a/2_0.jpg", "y_true": 4, "y_pred": 3},
    {"image_path": "data_image/a/1_0.jpg", "y_true": 2, "y_pred": 2},
    {"image_path": "data_image/a/9_0.jpg", "y_true": 0, "y_pred": 0},
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(published.datasets, "pair_rows", lambda folder: [*ROWS, row(3, "not_humanitarian")][:2])
    (tmp_path / published.FOLDER).mkdir()
    for name in published.PREDICTIONS.values():
        (tmp_path / published.FOLDER / name).write_text(json.dumps(THEIRS), encoding="utf-8")
    return tmp_path


def test_predictions_are_found_by_picture_and_scored_under_our_classes(folder: Path) -> None:
    path = folder / "summary.json"
    published.measure(folder, path)
    figures = summary.read(path)
    assert figures["unconstrained.accuracy.gpt_4o_text_and_image"]["mean"] == 0.5
    assert figures["unconstrained.macro_f1.gpt_4o_image_only"]["rows"] == 2


def test_file_of_other_rows_is_refused(folder: Path) -> None:
    path = folder / published.FOLDER / published.PREDICTIONS["gpt_4o_text_and_image"]
    with pytest.raises(ValueError, match="no prediction for 4_0"):
        published.read_predictions(path, [*ROWS, row(4, "not_humanitarian")])
    with pytest.raises(ValueError, match="no prediction for 1_0"):
        published.read_predictions(path, [row(1, "not_humanitarian")])
