"""Turns a table into posts to evaluate: which column is what, which image belongs to which row; decodes none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model.data import labels
from model.data.labels import normal
from model.data.rationales import find_spans
from model.data.table_file import InvalidTable, Table

# what a part of a post is called, best first; `label` of a rationale table is its uncorrected one
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "id": ("image_id", "tweet_id", "post_id", "id"),
    "text": ("tweet_text", "text"),
    "image": ("image", "image_path"),
    "label": ("label5_agreed", "corrected_label", "label", "class_label", "humanitarian"),
    "rationale": ("informative_content",),
    "pixels": ("pixels",),
}
MODALITIES = ("both", "text", "image")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPost:
    """A row: `label` is -1 where it has none, `spans` None where nobody marked any, `image` may not exist."""

    row_id: str
    text: str
    image: Path | None
    label: int
    spans: tuple[tuple[int, int], ...] | None
    pixels: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which rows and columns of a table are meant."""

    columns: Mapping[str, str] = field(default_factory=dict)  # part of a post -> its column, where not in COLUMNS
    where: Mapping[str, str] = field(default_factory=dict)  # column -> the value that kept rows have
    ids: Collection[str] | None = None  # kept rows; None: all
    modality: str = "both"  # one of MODALITIES
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Posts:
    """The posts of a table in its order, under the names of the columns that they came from."""

    posts: list[LabelledPost]
    task: str  # that the labels are of
    columns: dict[str, str]
    notes: tuple[str, ...]


def read_posts(
    table: Table,
    tasks: labels.Tasks,
    choice: Choice,
    *,
    images: Path | None = None,
    label_map: Mapping[str, str] | None = None,
) -> Posts:
    """The chosen rows as posts; raises `InvalidTable` or `UnknownLabel`. Images are looked for, not opened."""
    columns = _columns(table, choice)
    rows = list(_chosen(table, choice, columns))
    if not rows:
        raise InvalidTable(f"{table.path} has no row that was asked for: check --where and --ids")
    get = _getter(columns)
    task, numbers = labels.class_indices([get(row, "label") for _, row in rows], tasks, label_map)
    find_image = _image_finder(table.path.parent, images)
    posts = [
        LabelledPost(
            row_id=get(row, "id").strip().strip("'") or f"row-{number}",
            text=get(row, "text") if choice.modality != "image" else "",
            image=find_image(get(row, "image").strip()) if choice.modality != "text" else None,
            label=label,
            spans=_spans(row, get, columns),
            pixels=get(row, "pixels").strip(),
        )
        for (number, row), label in zip(rows, numbers, strict=True)
    ]
    return Posts(posts=posts, task=task, columns=columns, notes=(*table.notes, *_repeated(posts)))


def _columns(table: Table, choice: Choice) -> dict[str, str]:
    found: dict[str, str] = {}
    for part, names in COLUMNS.items():
        asked = choice.columns.get(part, "").lower()
        if asked and asked not in table.columns:
            raise InvalidTable(f"{table.path} has no column {asked!r}: its columns are {', '.join(table.columns)}")
        here = [name for name in names if name in table.columns]
        if asked or here:
            found[part] = asked or here[0]
    needed = {"both": ("text", "image"), "text": ("text",), "image": ("image",)}[choice.modality]
    if not any(part in found for part in needed):
        wanted = " or ".join(COLUMNS[part][0] for part in needed)
        raise InvalidTable(
            f"{table.path} has no column {wanted}: its columns are {', '.join(table.columns)};"
            f" name one with --column {needed[0]}=NAME"
        )
    return found


def _chosen(table: Table, choice: Choice, columns: Mapping[str, str]) -> Iterable[tuple[int, dict[str, str]]]:
    for name in choice.where:
        if name.lower() not in table.columns:
            raise InvalidTable(f"{table.path} has no column {name!r}: its columns are {', '.join(table.columns)}")
    if choice.ids is not None and "id" not in columns:
        raise InvalidTable(f"{table.path} has no column of ids: name one with --column id=NAME")
    n_kept = 0
    for number, row in enumerate(table.rows, start=1):
        if any(row[name.lower()].strip() != value for name, value in choice.where.items()):
            continue
        if choice.ids is not None and row[columns["id"]].strip().strip("'") not in choice.ids:
            continue
        if choice.limit is not None and n_kept == choice.limit:
            return
        n_kept += 1
        yield number, row


def _getter(columns: Mapping[str, str]) -> Callable[[Mapping[str, str], str], str]:
    return lambda row, part: row[columns[part]] if part in columns else ""


def _spans(
    row: Mapping[str, str], get: Callable[[Mapping[str, str], str], str], columns: Mapping[str, str]
) -> tuple[tuple[int, int], ...] | None:
    """The words that people marked; None without any, and for rows of no event, of which they marked nearly all."""
    marked = get(row, "rationale")
    if "rationale" not in columns or not marked.strip() or normal(get(row, "label")).startswith("not_"):
        return None
    return find_spans(get(row, "text"), marked)


def _image_finder(beside: Path, images: Path | None) -> Callable[[str], Path | None]:
    """Where a row's image is: under the given folder, or beside the table, by its path or by its bare name."""
    if images is not None and not images.is_dir():
        raise InvalidTable(f"{images} is no folder: give the one that holds the images (--images)")
    folders = [folder for folder in (images, beside) if folder is not None]

    def find(name: str) -> Path | None:
        if not name:
            return None
        name = name.replace("\\", "/")
        candidates = [folder / part for folder in folders for part in (name, name.rpartition("/")[2])]
        return next((path for path in candidates if path.is_file()), candidates[0])

    return find


def _repeated(posts: Sequence[LabelledPost]) -> list[str]:
    n_repeated = sum(count - 1 for count in Counter(post.row_id for post in posts).values())
    return [f"{n_repeated} rows repeat the id of an earlier row; each was kept"] if n_repeated else []
