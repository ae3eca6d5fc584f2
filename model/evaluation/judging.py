"""Runs a classifier over posts and keeps what it decided and why, one row each; scores nothing, writes nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from model.classifier import Selection, merge_spans
from model.data.image_file import IMAGE_ERRORS, read_image
from model.data.labelled_posts import LabelledPost
from model.data.rationales import RationaleRow, marked_words
from model.errors import ModelError
from model.evaluation import explanation, views
from model.evaluation.explanation import Looks
from model.evaluation.views import Stages
from model.records import IMAGE_EDGE_PX, Example, ImageRationale, Pixels, TextSpan
from model.text import Word

log = logging.getLogger(__name__)

NO_IMAGE, READ, UNREADABLE = "none", "read", "unreadable"
BUDGETS = (0.05, 0.10, 0.20, 0.35, 0.50, 0.75, 1.0)
_N_READERS = 2


class ImagesMissing(ModelError):
    """Not one of the images that the rows name can be read; the message names the first and the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is asked of each post beyond its prediction."""

    explain: bool = False  # views and ERASER's measures, of every post
    n_budget: int = 300  # labelled posts, evenly spread, that are decided at every one of BUDGETS
    batch: int = 32  # posts read ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What became of one post."""

    post: LabelledPost
    image: str  # NO_IMAGE, READ or UNREADABLE
    probs: npt.NDArray[np.float64]  # (5,) calibrated, from the rationale alone
    selection: Selection
    image_rationale: ImageRationale | None
    spans: tuple[TextSpan, ...]
    selectable: tuple[bool, ...]  # words that may be evidence: no link, user name or bare punctuation
    marked: tuple[bool, ...] | None  # words that people marked, selectable ones alone; None where nobody did
    looks: Looks | None
    at_budgets: tuple[npt.NDArray[np.float64], ...] | None  # (5,) each

    @property
    def has_lost_marks(self) -> bool:
        """Whether nothing that people marked of the post stands in its text as they have it."""
        return self.post.spans is not None and self.marked is None


def judge(classifier: Stages, posts: Sequence[LabelledPost], effort: Effort) -> list[Judged]:
    """Every post, in order; one whose image cannot be read is decided from its text, and says so.

    Warns of marks that are lost. Raises `ImagesMissing` when no named image can be read: then the folder is wrong, not
    an image.
    """
    _check_images(posts)
    budgeted = spread([index for index, post in enumerate(posts) if post.label >= 0], effort.n_budget)
    judged: list[Judged] = []
    bar = tqdm(total=len(posts), desc="classifying", unit="post", disable=None)
    with ThreadPoolExecutor(_N_READERS) as readers, bar:
        for index, (post, image) in enumerate(_with_images(posts, classifier.image_edge_px, effort.batch, readers)):
            judged.append(_judge(classifier, post, image, effort, budget=index in budgeted))
            bar.update()
    if note := lost_marks(judged):
        log.warning(note)
    return judged


def lost_marks(judged: Sequence[Judged]) -> str:
    """What to say of posts with marks that are not found, so that they count for no agreement; "" without any."""
    n_lost = sum(one.has_lost_marks for one in judged)
    n = sum(one.post.spans is not None for one in judged)
    if not n_lost:
        return ""
    return f"{n_lost} of {n} posts have no mark that is found in their words: left out of the agreement with people"


def spread(items: Sequence[int], n: int) -> set[int]:
    """At most n of the items, evenly spread and always the same."""
    if len(items) <= n:
        return set(items)
    return {items[k * len(items) // n] for k in range(n)}


def example_of(post: LabelledPost, image: Pixels | None) -> Example:
    return Example(text=post.text, image=image)


def try_image(path: Path | None, max_edge_px: int = IMAGE_EDGE_PX) -> Pixels | None:
    """The image's pixels, or None when there is no such file or it is no image."""
    if path is None:
        return None
    try:
        return read_image(path, max_edge_px)
    except IMAGE_ERRORS:
        return None


def _check_images(posts: Sequence[LabelledPost]) -> None:
    named = [post.image for post in posts if post.image is not None]
    if named and not any(path.is_file() for path in named):
        raise ImagesMissing(
            f"none of the {len(named)} images is there, the first would be {named[0]}: give their folder with"
            " --images, or --only text"
        )
    if named and all(try_image(path) is None for path in named):
        raise ImagesMissing(f"none of the {len(named)} images can be read, the first is {named[0]}: check the files")


def _with_images(
    posts: Sequence[LabelledPost], max_edge_px: int, batch: int, readers: ThreadPoolExecutor
) -> Iterator[tuple[LabelledPost, Pixels | None]]:
    for start in range(0, len(posts), batch):
        chunk = posts[start : start + batch]
        images = readers.map(try_image, [post.image for post in chunk], repeat(max_edge_px))
        yield from zip(chunk, images, strict=True)


def _judge(classifier: Stages, post: LabelledPost, image: Pixels | None, effort: Effort, *, budget: bool) -> Judged:
    example = example_of(post, image)
    selection = classifier.select(example)
    words = classifier.tokenizer.split(post.text)
    state = READ if image is not None else NO_IMAGE if post.image is None else UNREADABLE
    at_budgets = None
    if budget:
        at_budgets = tuple(views.decide(classifier, example, views.top(selection, share)) for share in BUDGETS)
    return Judged(
        post=post,
        image=state,
        probs=views.decide(classifier, example, selection),
        selection=selection,
        image_rationale=classifier.image_rationale(example, selection),
        spans=merge_spans(words, selection),
        selectable=tuple(word.selectable for word in words),
        marked=_marked(post, words),
        looks=explanation.look(classifier, example, selection) if effort.explain else None,
        at_budgets=at_budgets,
    )


def _marked(post: LabelledPost, words: Sequence[Word]) -> tuple[bool, ...] | None:
    if not post.spans:
        return None
    row = RationaleRow(row_id=post.row_id, text=post.text, label=post.label, spans=post.spans)
    marked = tuple(marked_words(row, words))
    return marked if any(marked) else None
