"""`python -m model.evaluation.ablations`: what each part of the method is worth, one row each; trains no network.

Parts that can be taken out of a finished checkpoint are taken out here, on rows it never saw. Those that shape
the training (`RETRAINED`) need weights of their own: `python -m model.training.retrained` trains those.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from model.data.labelled_posts import Choice, LabelledPost, read_posts
from model.data.table_file import read_table
from model.errors import ModelError
from model.evaluation import summary
from model.evaluation.ablated import SEEDED, WAYS, Case, ways_of
from model.evaluation.insides import insides_of
from model.evaluation.judging import example_of, try_image
from model.evaluation.mask_probe import probe_masks
from model.evaluation.measures import Labels, Probs, classification
from model.evaluation.views import Stages
from model.loading import load_classifier
from model.records import CLASSES, HUMANITARIAN

RETRAINED = ("alpha_2_as_shipped", "alpha_0_09", "class_loss_off")  # stage 1 of texts
MEASURES = ("macro_f1", "accuracy")
TOKEN_F1 = "token_f1"  # with people's marks; of `RETRAINED` alone
PROBE = "mask_alone_linear_probe"
NAMES = (*WAYS, PROBE, *RETRAINED)
_N_SEEDS = 5


class UnknownAblation(ModelError):
    """A name under which no ablation is known; the message names it and the fix."""


def decide_all(
    classifier: Stages, posts: Sequence[LabelledPost], *, seed: int, names: Sequence[str] | None = None
) -> dict[str, Probs]:
    """Class probabilities (N, 5) of every way that the checkpoint has, for the cross-validation to collect.

    Only `SEEDED` ways depend on the seed. An unreadable image counts as none.
    """
    insides = insides_of(classifier)
    made: dict[str, list[Probs]] = {name: [] for name in names or ways_of(insides)}
    for index, post in enumerate(tqdm(posts, desc="ablations", unit="post", disable=None)):
        example = example_of(post, try_image(post.image, classifier.image_edge_px))
        case = Case(
            classifier=classifier,
            insides=insides,
            example=example,
            selection=classifier.select(example),
            dice=np.random.default_rng((seed, index)),
        )
        for name, rows in made.items():
            rows.append(WAYS[name](case))
    return {name: np.stack(rows) for name, rows in made.items()}


def record(path: Path, name: str, runs: Sequence[Mapping[str, float]], rows: int, protocol: str) -> None:
    """Puts one ablation's runs, each with every one of `MEASURES` and perhaps `TOKEN_F1`, into the file."""
    if name not in NAMES:
        raise UnknownAblation(f"{name!r} is no ablation: give one of {', '.join(NAMES)}")
    figures = summary.load(path) if path.exists() else {}
    known = (*MEASURES, TOKEN_F1)
    for measure in known:
        if measure in MEASURES or measure in runs[0]:
            figures[f"{name}.{measure}"] = summary.entry([run[measure] for run in runs], rows, protocol)
    summary.write(path, figures, [f"{one}.{measure}" for one in NAMES for measure in known])


def run(classifiers: Sequence[Stages], posts: Sequence[LabelledPost], path: Path, protocol: str) -> None:
    """Every way on labelled posts; each checkpoint is a run, and of a single one the seeded ways are run five times."""
    labels = np.array([post.label for post in posts])
    runs: dict[str, list[Mapping[str, float]]] = {}
    seeds = range(_N_SEEDS) if len(classifiers) == 1 else range(1)
    for number, classifier in enumerate(classifiers):
        for seed in seeds:
            names = None if seed == 0 else SEEDED
            for name, probs in decide_all(classifier, posts, seed=number + seed, names=names).items():
                runs.setdefault(name, []).append(_scores(labels, probs))
        chosen = [
            classifier.select(example_of(post, try_image(post.image, classifier.image_edge_px))) for post in posts
        ]
        for seed in seeds:
            probs = probe_masks(chosen, labels, seed=number + seed)
            runs.setdefault(PROBE, []).append(_scores(labels, probs))
    for name, scores in runs.items():
        record(path, name, scores, len(posts), protocol)


def _scores(labels: Labels, probs: Probs) -> dict[str, float]:
    made = classification(labels, probs)
    return {name: float(made[name]) for name in MEASURES}  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, nargs="+", help="each is a run of one model")
    parser.add_argument("--data", type=Path, required=True, help="table of labelled posts")
    parser.add_argument("--images", type=Path, help="folder of its images; the table's by default")
    parser.add_argument("--ids", type=Path, help="only rows with these ids: those that no checkpoint was trained on")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", type=Path, required=True, help="ablations.json; its other rows stay")
    parser.add_argument("--protocol", required=True, help="a sentence for the table")
    args = parser.parse_args()
    ids = None if args.ids is None else frozenset(args.ids.read_text(encoding="utf-8").split())
    found = read_posts(
        read_table(args.data), {HUMANITARIAN: CLASSES}, Choice(ids=ids, limit=args.limit), images=args.images
    )
    posts = [post for post in found.posts if post.label >= 0]
    if not posts:
        raise SystemExit(f"{args.data} has no labelled row among those asked for")
    run([load_classifier(path, n_threads=1) for path in args.checkpoint], posts, args.out, args.protocol)


if __name__ == "__main__":
    main()
