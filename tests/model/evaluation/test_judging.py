"""What is judged of people's marks, and what is said of those that are not."""

from pathlib import Path

import pytest

from model import RationaleClassifier
from model.data.labelled_posts import Choice
from model.evaluation.evaluate import Request, evaluate

HEADER = "tweet_id,tweet_text,corrected_label,informative_content"
FOUND = "1,bridge collapsed in the storm,infrastructure_and_utilities_damage,bridge collapsed"


def report_of(rows: list[str], classifier: RationaleClassifier, folder: Path) -> str:
    (folder / "people.csv").write_text("\n".join([HEADER, *rows, ""]), "utf-8")
    request = Request(
        data=folder / "people.csv", images=None, label_map=None, choice=Choice(modality="text"), faithful=None
    )
    evaluate(classifier, request, folder / "results")
    return (folder / "results" / "report.md").read_text("utf-8")


def test_marks_that_are_not_in_the_text_are_told(
    tiny: RationaleClassifier, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They count for no agreement; rows of no event, of which people marked nearly all, are no loss."""
    rows = [
        FOUND,
        "2,people dead &amp; injured,injured_or_dead_people,dead & injured",
        "3,flood near http://t.co/x,other_useful_information,http://t.co/x",
        "4,love music,not_related_or_irrelevant,loves music",
    ]
    note = "2 of 3 posts have no mark that is found in their words"

    assert f"- {note}" in report_of(rows, tiny, tmp_path)
    assert note in caplog.text


def test_nothing_is_said_where_all_marks_are_found(
    tiny: RationaleClassifier, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert "left out" not in report_of([FOUND], tiny, tmp_path) + caplog.text
