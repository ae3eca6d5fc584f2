"""A made-up data set in CrisisMMD's own layout: drawn pictures, invented posts, nobody's data."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image, ImageDraw

from model import CLASSES

_WORDS = {
    "affected_individuals": ("injured", "families", "trapped", "missing", "hospital"),
    "infrastructure_and_utility_damage": ("bridge", "collapsed", "roads", "destroyed", "rubble"),
    "not_humanitarian": ("concert", "tonight", "music", "dinner", "holiday"),
    "other_relevant_information": ("forecast", "landfall", "category", "warning", "map"),
    "rescue_volunteering_or_donation_effort": ("donate", "volunteers", "blankets", "shelter", "rescue"),
}
_FILLER = ("the", "town", "of", "Larkwood", "today", "after", "storm", "we", "saw", "it", "near", "old", "mill")
_COLOURS = ((200, 40, 40), (40, 40, 200), (40, 180, 40), (230, 210, 40), (150, 40, 170))
_COLUMNS = ("event_name", "tweet_id", "image_id", "tweet_text", "image", "label", "label_text", "label_image")
N_ROWS = {"train": 20, "dev": 6, "test": 6}  # of each class


def make_archive(folder: Path, *, seed: int = 0, split_folder: str = "crisismmd_datasplit_all") -> Path:
    """Writes annotations, images and the agreed-label splits; returns the folder."""
    rng = random.Random(seed)
    root = folder / "CrisisMMD_v2.0"
    (root / "data_image" / "larkwood_storm" / "1_9_2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    (folder / split_folder).mkdir(parents=True)
    number = 0
    annotations: list[tuple[str, ...]] = []
    for split, n_rows in N_ROWS.items():
        rows: list[tuple[str, ...]] = []
        informative: list[tuple[str, ...]] = []
        damage: list[tuple[str, ...]] = []
        for label, name in enumerate(CLASSES):
            for _ in range(n_rows):
                number += 1
                tweet_id, image_id = f"9{number:06}", f"9{number:06}_0"
                words = [*rng.sample(_FILLER, 5), *rng.sample(_WORDS[name], 2)]
                rng.shuffle(words)
                text = " ".join([*words, "#LarkwoodStorm", "https://example.org/x"])
                image = f"data_image/larkwood_storm/1_9_2017/{image_id}.jpg"
                draw(label, rng).save(root / image)
                row = ("larkwood_storm", tweet_id, image_id, text, image)
                rows.append((*row, name, name, name, "Positive"))
                told = "not_informative" if name == "not_humanitarian" else "informative"
                informative.append((*row, told, told, told, "Positive"))
                if name == "infrastructure_and_utility_damage":
                    damage.append(("larkwood_storm", image_id, image, rng.choice(("severe_damage", "mild_damage"))))
                annotations.append(
                    (tweet_id, image_id, told, "1.0", told, "1.0", name, "1.0", name, "1.0", "nan", text)
                )
        columns = (*_COLUMNS, "label_text_image")
        write_tsv(folder / split_folder / f"task_humanitarian_text_img_agreed_lab_{split}.tsv", columns, rows)
        write_tsv(folder / split_folder / f"task_informative_text_img_agreed_lab_{split}.tsv", columns, informative)
        write_tsv(
            folder / split_folder / f"task_damage_{split}.tsv", ("Event_name", "Image_id", "Image", "Label"), damage
        )
    write_tsv(
        root / "annotations" / "larkwood_storm_final_data.tsv",
        (
            *("tweet_id", "image_id", "text_info", "text_info_conf", "image_info", "image_info_conf", "text_human"),
            *("text_human_conf", "image_human", "image_human_conf", "image_damage", "tweet_text"),
        ),
        annotations,
    )
    return folder


def draw(label: int, rng: random.Random) -> Image.Image:
    """A patch of the class's colour somewhere on noise-coloured ground, at an odd size."""
    width, height = rng.choice(((96, 64), (64, 80), (72, 72)))
    ground = tuple(rng.randint(90, 160) for _ in range(3))
    image = Image.new("RGB", (width, height), ground)
    x, y = rng.randrange(width // 2), rng.randrange(height // 2)
    ImageDraw.Draw(image).rectangle((x, y, x + width // 2, y + height // 2), fill=_COLOURS[label])
    return image


def write_tsv(path: Path, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    lines = ["\t".join(columns), *("\t".join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
