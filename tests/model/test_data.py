"""HumAID's events are told apart, so that a model can be measured on those that it never read of."""

from pathlib import Path

from model import data
from model.records import CLASSES


def test_humaid_rows_are_those_of_the_events_and_part_asked_for(tmp_path: Path) -> None:
    (tmp_path / "humaid").mkdir()
    for event, label in (("kerala_floods_2018", "injured_or_dead_people"), ("hurricane_irma_2017", "not_humanitarian")):
        for part in ("train", "test"):
            row = f"{event}-{part}\ta post\t{label}\n"
            (tmp_path / "humaid" / f"{event}_{part}.tsv").write_text("tweet_id\ttweet_text\tclass_label\n" + row)

    assert data.humaid_events(tmp_path) == ["hurricane_irma_2017", "kerala_floods_2018"]
    [row] = data.humaid_rows(tmp_path, ["kerala_floods_2018"], "test")
    assert (row.row_id, CLASSES[row.label]) == ("kerala_floods_2018-test", "affected_individuals")
    both = data.humaid_rows(tmp_path, data.humaid_events(tmp_path))
    assert [row.row_id for row in both] == ["hurricane_irma_2017-train", "kerala_floods_2018-train"]
