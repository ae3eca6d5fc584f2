"""`python -m model.evaluation.quickened`: what integer products cost in accuracy, against float32, into the summary.

Both kinds of `model.int8` are measured, on whatever CPU: only their time depends on it. Differences are told and no
scores, so posts that the checkpoint has learnt from will do.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from tqdm import tqdm

from model.classifier import RationaleClassifier
from model.data.labelled_posts import Choice, LabelledPost, read_posts
from model.data.table_file import read_table
from model.evaluation import summary
from model.evaluation.judging import example_of, try_image
from model.evaluation.measures import Labels, Probs, classification
from model.int8 import Int8Linear, PairedInt8Linear, to_int8
from model.records import CLASSES, HUMANITARIAN

KINDS: Mapping[str, type[Int8Linear]] = MappingProxyType({"int8": Int8Linear, "int8_pairs": PairedInt8Linear})
PROTOCOL = "{version}: float32 minus products of {limit:g} steps in its linear layers, on labelled posts of {table}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="table of labelled posts")
    parser.add_argument("--images", type=Path, help="folder of its images; the table's by default")
    parser.add_argument("--where", default="", metavar="COLUMN=VALUE", help="only rows with this value")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--summary", type=Path, required=True, help=f"gets compact.float32_gap.* of {', '.join(KINDS)}")
    args = parser.parse_args()
    column, _, value = args.where.partition("=")
    choice = Choice(where={column: value} if column else {}, limit=args.limit)
    found = read_posts(read_table(args.data), {HUMANITARIAN: CLASSES}, choice, images=args.images)
    posts = [post for post in found.posts if post.label >= 0]
    if not posts:
        raise SystemExit(f"{args.data} has no labelled row among those asked for: check --where")
    measure(args.checkpoint, posts, args.summary, f"{args.data.name} {args.where}".rstrip())


def measure(checkpoint: Path, posts: Sequence[LabelledPost], path: Path, table: str) -> None:
    """Puts the gaps of both kinds of layers into the summary at `path`."""
    labels = np.array([post.label for post in posts])
    exact = RationaleClassifier.load(checkpoint, n_threads=1, exact=True)
    wanted = decide(exact, posts, "float32")
    for name, kind in KINDS.items():
        quick = RationaleClassifier.load(checkpoint, exact=True)
        to_int8(quick.network, kind)
        protocol = PROTOCOL.format(version=exact.version, limit=kind.limit, table=table)
        for measure, value in gaps(labels, wanted, decide(quick, posts, name)).items():
            summary.add(path, f"compact.float32_gap.{measure}.{name}", [value], len(posts), protocol)


def decide(classifier: RationaleClassifier, posts: Sequence[LabelledPost], title: str) -> Probs:
    """Probabilities (N, C), one post at a time, from what each network selects itself."""
    rows = [
        list(classifier.predict([example_of(post, try_image(post.image))])[0].probs.values())
        for post in tqdm(posts, desc=title, unit="post", disable=None)
    ]
    return np.array(rows)


def gaps(labels: Labels, exact: Probs, quick: Probs) -> dict[str, float]:
    """Scores lost, the share of other labels, and the mean difference of the probability of the exact label."""
    scores = [classification(labels, probs) for probs in (exact, quick)]
    lost = {name: float(str(scores[0][name])) - float(str(scores[1][name])) for name in ("macro_f1", "accuracy")}
    rows, decided = np.arange(len(labels)), exact.argmax(1)
    return lost | {
        "other_labels": float((decided != quick.argmax(1)).mean()),
        "probability": float(np.abs(exact - quick)[rows, decided].mean()),
    }


if __name__ == "__main__":
    main()
