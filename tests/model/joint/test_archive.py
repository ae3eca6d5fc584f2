"""CrisisMMD's archive is read as it is unpacked; what is missing is named, and no split leaks into another."""

import csv
import shutil
from pathlib import Path

import pytest

from model import CLASSES
from model.data.table_file import InvalidTable
from model.joint.archive import Archive, DataError, load_archive, load_rationales, without_copies
from model.records import HUMANITARIAN, TASKS
from tests.model.joint.archive_layout import N_ROWS, make_archive, write_tsv

SPLIT_FILE = "task_humanitarian_text_img_agreed_lab_{}.tsv"


@pytest.fixture
def folder(archive_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(archive_folder, tmp_path / "copy"))


def _load(folder: Path, *tasks: str, drop_copies: bool = False) -> Archive:
    return load_archive(folder, [HUMANITARIAN, *tasks], drop_copies=drop_copies)


def test_rows_have_text_image_and_label_of_their_split(folder: Path) -> None:
    archive = _load(folder)
    assert len(archive.train) == 5 * N_ROWS["train"]
    assert len(archive.dev(HUMANITARIAN)) == len(archive.test(HUMANITARIAN)) == 5 * N_ROWS["dev"]
    assert {post.labels[HUMANITARIAN] for post in archive.train} == set(range(len(CLASSES)))
    assert all(post.text and post.image is not None and post.image.is_file() for post in archive.train)
    assert archive.n_missing_images == 0


def test_the_data_folder_may_be_the_archive_itself(folder: Path) -> None:
    for table in (folder / "crisismmd_datasplit_all").iterdir():
        shutil.move(table, folder / "CrisisMMD_v2.0" / table.name)
    assert len(_load(folder / "CrisisMMD_v2.0").train) == 100


def test_the_digest_follows_the_tables(folder: Path) -> None:
    before = _load(folder).digest
    table = folder / "crisismmd_datasplit_all" / SPLIT_FILE.format("train")
    table.write_text(table.read_text().replace("storm", "gale", 1))
    assert before.startswith("sha256:") and _load(folder).digest != before


def test_the_digest_follows_the_annotations_where_texts_come_from_them(folder: Path) -> None:
    """Damage tables have no text, so that another text in the annotations is another training set."""
    table = folder / "CrisisMMD_v2.0" / "annotations" / "larkwood_storm_final_data.tsv"
    with (folder / "crisismmd_datasplit_all" / "task_damage_train.tsv").open("a") as file:
        file.write("larkwood_storm\t7_0\tnone.jpg\tmild_damage\n")
    with_damage, without = _load(folder, "damage").digest, _load(folder).digest
    table.write_text(table.read_text().replace("storm", "gale", 1))
    assert _load(folder, "damage").digest != with_damage
    assert _load(folder).digest == without, "no text came from there"


def test_three_tasks_share_rows_and_damage_takes_its_text_from_the_annotations(folder: Path) -> None:
    archive = _load(folder, "informative", "damage")
    assert len(archive.train) == 100
    damaged = [post for post in archive.train if "damage" in post.labels]
    assert len(damaged) == N_ROWS["train"]
    assert all(post.text and set(post.labels) == set(TASKS) for post in damaged)


def test_a_row_held_out_by_any_task_trains_none(folder: Path) -> None:
    """A damage training row that is a humanitarian test row stays out of training."""
    test = folder / "crisismmd_datasplit_all" / SPLIT_FILE.format("test")
    with test.open() as file:
        stolen = next(row for row in csv.DictReader(file, delimiter="\t"))
    table = folder / "crisismmd_datasplit_all" / "task_damage_train.tsv"
    with table.open("a") as file:
        file.write(f"larkwood_storm\t{stolen['image_id']}\t{stolen['image']}\tsevere_damage\n")
    archive = _load(folder, "damage")
    assert stolen["image_id"] not in {post.row_id for post in archive.train}
    assert stolen["image_id"] in {post.row_id for post in archive.test(HUMANITARIAN)}


def test_copies_of_held_out_posts_can_be_dropped_from_training(folder: Path) -> None:
    archive = _load(folder)
    held = archive.test(HUMANITARIAN)[0]
    table = folder / "crisismmd_datasplit_all" / SPLIT_FILE.format("train")
    lines = table.read_text().splitlines()
    cells = lines[1].split("\t")
    cells[3] = f"RT @someone {held.text.upper()}"
    table.write_text("\n".join([lines[0], "\t".join(cells), *lines[2:]]) + "\n")
    assert len(_load(folder).train) == 100
    assert len(_load(folder, drop_copies=True).train) == 99


def test_posts_whose_text_and_image_disagree_are_left_out(folder: Path) -> None:
    table = folder / "crisismmd_datasplit_all" / SPLIT_FILE.format("train")
    lines = table.read_text().splitlines()
    cells = lines[1].split("\t")
    cells[7] = "not_humanitarian"
    table.write_text("\n".join([lines[0], "\t".join(cells), *lines[2:]]) + "\n")
    assert len(_load(folder).train) == 99


def test_missing_images_become_text_only_posts_unless_all_are_missing(folder: Path) -> None:
    images = sorted((folder / "CrisisMMD_v2.0").rglob("*.jpg"))
    images[0].unlink()
    assert _load(folder).n_missing_images == 1
    shutil.rmtree(folder / "CrisisMMD_v2.0" / "data_image")
    with pytest.raises(DataError, match="data_image"):
        _load(folder)


def test_a_table_of_images_stands_in_for_the_archives_own_paths(folder: Path) -> None:
    images = sorted((folder / "CrisisMMD_v2.0").rglob("*.jpg"))
    (folder / "own").mkdir()
    rows = [(path.stem, f"own/{path.name}") for path in images[:7]]
    for path in images:
        shutil.move(path, folder / "own" / path.name)
    write_tsv(folder / "pairs.tsv", ("image_id", "image"), rows)
    archive = _load(folder)
    assert archive.n_missing_images == len(images) - 7


def test_what_is_not_there_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        _load(tmp_path / "nowhere")
    table = folder / "crisismmd_datasplit_all" / SPLIT_FILE.format("dev")
    text = table.read_text()
    table.unlink()
    with pytest.raises(DataError, match=r"agreed_lab_dev\.tsv"):
        _load(folder)
    table.write_text(text.replace("image_id", "picture"))
    with pytest.raises(DataError, match="'image_id'"):
        _load(folder)


def test_a_rationale_file_with_other_columns_is_named(tmp_path: Path) -> None:
    path = tmp_path / "marks.csv"
    path.write_text("tweet_id,tweet_text\n1,x\n")
    with pytest.raises(InvalidTable, match="'corrected_label'"):
        load_rationales([path])
    with pytest.raises(DataError, match=r"none\.csv"):
        load_rationales([tmp_path / "none.csv"])


def test_marked_spans_are_found_in_the_text(tmp_path: Path) -> None:
    path = tmp_path / "marks.csv"
    path.write_text(
        "tweet_id,tweet_text,corrected_label,informative_content\n"
        "1,Old bridge collapsed and roads closed today,infrastructure_and_utilities_damage,"
        "bridge collapsed [SEP] roads closed\n"
    )
    (row,) = load_rationales([path])
    assert [row.text[start:end] for start, end in row.spans] == ["bridge collapsed", "roads closed"]


def test_rationale_tables_of_any_hand_are_read_and_what_is_left_out_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As `sitrep evaluate` reads them: short rows, other encodings, labels written as words."""
    path = tmp_path / "marks.csv"
    path.write_bytes(
        "tweet_id,tweet_text,corrected_label,informative_content\r\n"
        "1,Caf\u00e9 bridge collapsed,Infrastructure and utilities damage,bridge collapsed\r\n"
        "2,all well here,weather,well\r\n"
        "3,cut short\r\n".encode("cp1252")
    )
    (row,) = load_rationales([path])
    assert (row.row_id, row.text[:4]) == ("1", "Caf\u00e9")
    assert f"2 of 3 rows of {path}" in caplog.text


def test_a_byte_order_mark_is_no_part_of_the_first_column(folder: Path, tmp_path: Path) -> None:
    """As spreadsheets write it before CSV and TSV."""
    path = tmp_path / "marks.csv"
    path.write_text(
        "tweet_id,tweet_text,corrected_label,informative_content\n"
        "1,old bridge collapsed,infrastructure_and_utilities_damage,bridge collapsed\n",
        encoding="utf-8-sig",
    )
    (row,) = load_rationales([path])
    assert (row.row_id, row.text) == ("1", "old bridge collapsed")
    table = folder / "crisismmd_datasplit_all" / SPLIT_FILE.format("train")
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    table.write_text("".join("\t".join([row[2], *row]) + "\n" for row in rows), encoding="utf-8-sig")
    assert len(_load(folder).train) == 100


def test_marked_tweets_of_held_out_posts_are_told_apart(folder: Path, tmp_path: Path) -> None:
    """By tweet id, or by the text without links, user names and case."""
    archive = _load(folder)
    test, dev = archive.test(HUMANITARIAN)[0], archive.dev(HUMANITARIAN)[0]
    path = tmp_path / "marks.csv"
    path.write_text(
        "tweet_id,tweet_text,corrected_label,informative_content\n"
        f"'{test.row_id.split('_')[0]}',bridge down,infrastructure_and_utilities_damage,bridge down\n"
        f"1,RT @someone {dev.text.upper()} https://example.org/y,caution_and_advice,RT\n"
        "2,bridge down,infrastructure_and_utilities_damage,bridge down\n"
    )
    marked = load_rationales([path])
    assert len(marked) == 3
    assert [row.row_id for row in without_copies(marked, archive.held)] == ["2"]


def test_the_split_folder_may_have_another_name(tmp_path: Path) -> None:
    assert len(_load(make_archive(tmp_path, split_folder="splits")).train) == 100
