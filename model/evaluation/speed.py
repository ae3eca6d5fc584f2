"""`python -m model.evaluation.speed`: size of a checkpoint and its milliseconds on one CPU thread, into the summary.

On posts of its own making: a network's time does not depend on what a picture shows, a text's only on its length.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from model.classifier import RationaleClassifier
from model.evaluation import summary
from model.records import Example

_N_RUNS, _N_POSTS = 5, 40
_HEIGHT, _WIDTH = 288, 384  # as images are prepared: the long edge at 384
_TEXT = "bridge on the main road collapsed after flood water rose and people need help with shelter tonight"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--summary", type=Path, required=True, help="gets compact.size_mb, .ms_with_image, .ms_text")
    args = parser.parse_args()
    classifier = RationaleClassifier.load(args.checkpoint, n_threads=1)
    size_mb = sum(path.stat().st_size for path in args.checkpoint.iterdir()) / 1e6
    summary.add(args.summary, "compact.size_mb", [size_mb], 1, f"all files of {classifier.version}")
    for name, posts in (("ms_with_image", made_posts(image=True)), ("ms_text", made_posts(image=False))):
        protocol = (
            f"median of {_N_POSTS} calls with one made-up post, {torch.get_num_threads()} CPU thread, {_N_RUNS} repeats"
        )
        summary.add(args.summary, f"compact.{name}", median_ms(classifier, posts), _N_POSTS, protocol)


def made_posts(*, image: bool) -> list[Example]:
    """Posts of a tweet's length, each in another order of words, with noise as image."""
    dice = np.random.default_rng(0)
    posts: list[Example] = []
    for _ in range(_N_POSTS):
        words = ["@user", *dice.permutation(_TEXT.split()).tolist(), "https://t.co/x"]
        pixels = dice.integers(0, 256, (_HEIGHT, _WIDTH, 3), dtype=np.uint8) if image else None
        posts.append(Example(text=" ".join(words), image=pixels))
    return posts


def median_ms(classifier: RationaleClassifier, posts: Sequence[Example]) -> list[float]:
    """Median milliseconds of a `predict` call with one post, once per repeat; the first call only warms up."""
    classifier.predict(posts[:1])
    medians: list[float] = []
    for _ in range(_N_RUNS):
        taken: list[float] = []
        for post in posts:
            started = time.perf_counter()
            classifier.predict([post])
            taken.append(1e3 * (time.perf_counter() - started))
        medians.append(float(np.median(taken)))
    return medians


if __name__ == "__main__":
    main()
