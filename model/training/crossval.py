"""The README's protocol: official test rows with pixels in grouped stratified folds; text never trains on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from model import checkpoint
from model.batches import TokenItem
from model.config import Fusion, ImageConfig
from model.data.corpus import Corpus
from model.data.datasets import TextRow
from model.evaluation.measures import Probs
from model.int8 import to_int8
from model.network import TextSelector
from model.selection import choose_words
from model.training import fit_text, train_image, train_text
from model.training.heads import HeadSettings, apply_fusion, fit_fusion, fit_head, folds
from model.training.text_kit import TextKit, Texts
from model.vision import VisionTower

_OTHER_WEIGHT = 0.3  # of a training image outside the test split: other sources, other class mix
_N_INNER_FOLDS = 4
_SETTINGS = HeadSettings()


class Cache(Protocol):
    def cached(self, name: str, make) -> dict[str, Tensor]: ...  # type: ignore[no-untyped-def]


@dataclass(frozen=True, slots=True, kw_only=True)
class Modalities:
    """Class log-probabilities (N, C) of each expert that had evidence."""

    text: Tensor | None
    image: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One way of showing posts to stage 2: N test rows with pixels, then M other labelled images."""

    text: Tensor  # (N, C) log-probabilities
    features: Tensor  # (N, C) pooled
    other_features: Tensor  # (M, C)


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    rationale: View
    full: View
    removed: View
    ids: list[str]
    texts: list[TextRow]
    labels: Tensor  # (N,)
    groups: npt.NDArray[np.str_]
    pixels: list[str]
    other_ids: list[str]
    other_labels: Tensor  # (M,)
    text_dev: Tensor  # rationale only
    text_dev_full: Tensor
    dev_labels: Tensor
    baseline: Tensor  # (N, 5) TF-IDF log-probabilities


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What one fold learnt, and its cross-fitted probabilities on its own training rows."""

    head: nn.Linear
    fusion_both: Fusion
    fusion_image: Fusion
    labels: npt.NDArray[np.int64]
    probs: npt.NDArray[np.float64]


def views(
    run: Cache,
    name: str,
    corpus: Corpus,
    served: Texts,
    tower: VisionTower,
    masks: Tensor,
    image: ImageConfig,
) -> Views:
    """Everything the folds need, with all encoders frozen, the text models as a checkpoint stores and runs them.

    Without a mask the tower is shown the test rows alone: no head is fitted on what else it says there.
    """
    tower, kit = to_int8(checkpoint.as_stored(tower)), served.kit
    test = [k for k, row in enumerate(corpus.images) if row.split == "test"]
    other = [k for k, row in enumerate(corpus.images) if corpus.free[k] and row.label >= 0]
    rows = [corpus.images[k] for k in test]
    texts = [TextRow(row_id=row.row_id, text=row.text, label=row.label) for row in rows]

    def text_view(posts: Sequence[TextRow], kind: str) -> Tensor:
        return fit_text.decide_texts(served.decider, kit.embeddings, shown_items(posts, kind, kit, served.selector))

    def image_view(kind: str) -> tuple[Tensor, Tensor]:
        index = [*test, *other] if kind == "rationale" else test
        shown = {"rationale": masks, "full": torch.ones_like(masks), "removed": ~masks}[kind][index]

        def encode() -> dict[str, Tensor]:
            rows = [corpus.images[k] for k in index]
            return {"features": train_image.tower_features(rows, shown, tower, image, f"{kind} images")}

        features = run.cached(f"{name}_features_{kind}", encode)["features"].float()
        return features[: len(test)], features[len(test) :]

    def view(kind: str) -> View:
        features, other_features = image_view(kind)
        return View(text=text_view(texts, kind), features=features, other_features=other_features)

    return Views(
        rationale=view("rationale"),
        full=view("full"),
        removed=view("removed"),
        ids=[row.row_id for row in rows],
        texts=texts,
        labels=torch.tensor([row.label for row in rows]),
        groups=np.array([row.group for row in rows]),
        pixels=[row.pixels for row in rows],
        other_ids=[corpus.images[k].row_id for k in other],
        other_labels=torch.tensor([corpus.images[k].label for k in other]),
        text_dev=text_view(corpus.dev, "rationale"),
        text_dev_full=text_view(corpus.dev, "full"),
        dev_labels=torch.tensor([row.label for row in corpus.dev]),
        baseline=tfidf(corpus.train, [row.text for row in rows]),
    )


def tfidf(train: Sequence[TextRow], texts: Sequence[str]) -> Tensor:
    """The linear text baseline on whole posts, log-probabilities (N, 5)."""
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    inputs = vectorizer.fit_transform([row.text for row in train])
    model = LogisticRegression(C=10.0, class_weight="balanced", max_iter=500)
    model.fit(inputs, [row.label for row in train])
    return torch.from_numpy(model.predict_log_proba(vectorizer.transform(texts)))


def fit_rows(view: View, views: Views, train: npt.NDArray[np.int64], seed: int) -> Fitted:
    """Head and fusion from the rows at the given positions, and from the other images."""
    labels, groups = views.labels[train], views.groups[train]
    crossed = torch.zeros(len(train), view.text.shape[1])
    for inner, rest in folds(labels.numpy(), groups, _N_INNER_FOLDS):
        crossed[rest] = _log_probs(_fit_head(view, views, train[inner], seed), view.features[train[rest]])
    both = fit_fusion(labels, view.text[train], crossed)
    return Fitted(
        head=_fit_head(view, views, train, seed),
        fusion_both=both,
        fusion_image=fit_fusion(labels, None, crossed),
        labels=labels.numpy(),
        probs=apply_fusion(both, view.text[train], crossed),
    )


def fit_fold(view: View, views: Views, fold: int, seed: int) -> Fitted:
    """Head and fusion as they are without the fold's rows."""
    train, _ = list(folds(views.labels.numpy(), views.groups))[fold]
    return fit_rows(view, views, train, seed)


def fold_ids(views: Views, fold: int) -> list[str]:
    """Image ids that the shipped checkpoint never saw: the fold's held-out rows."""
    _, held = list(folds(views.labels.numpy(), views.groups))[fold]
    return sorted(views.ids[k] for k in held)


def fit_text_fusion(text_dev: Tensor, dev_labels: Tensor) -> Fusion:
    """Calibration of text alone, from the official dev rows."""
    return fit_fusion(dev_labels, text_dev, None)


def probabilities(fusion: Fusion, given: Modalities) -> npt.NDArray[np.float64]:
    return apply_fusion(fusion, given.text, given.image)


def cross_validate(views: Views, seed: int) -> dict[str, Probs]:
    """Held-out probabilities (N, C): from the rationale, its image alone, everything, and without the rationale."""
    shape = views.rationale.text.shape
    probs = {name: np.zeros(shape) for name in ("rationale", "image", "full", "removed")}
    for train, held in folds(views.labels.numpy(), views.groups):
        fitted = fit_rows(views.rationale, views, train, seed)
        for name, view in (("rationale", views.rationale), ("full", views.full), ("removed", views.removed)):
            image = _log_probs(fitted.head, view.features[held])
            probs[name][held] = apply_fusion(fitted.fusion_both, view.text[held], image)
        image = _log_probs(fitted.head, views.rationale.features[held])
        probs["image"][held] = apply_fusion(fitted.fusion_image, None, image)
    return probs


def _fit_head(view: View, views: Views, train: npt.NDArray[np.int64], seed: int) -> nn.Linear:
    features = torch.cat([view.features[train], view.other_features])
    labels = torch.cat([views.labels[train], views.other_labels])
    weights = torch.cat([torch.ones(len(train)), torch.full((len(views.other_labels),), _OTHER_WEIGHT)])
    return fit_head(features, labels, weights, view.text.shape[1], seed, _SETTINGS)


@torch.inference_mode()
def _log_probs(head: nn.Linear, features: Tensor) -> Tensor:
    logits: Tensor = head(features)
    return logits.log_softmax(1)


def shown_items(rows: Sequence[TextRow], kind: str, kit: TextKit, selector: TextSelector) -> list[TokenItem]:
    items: list[TokenItem] = []
    for words, scores in train_text.score_words([row.text for row in rows], kit, selector):
        chosen = choose_words(words, scores, kit.selection)
        if kind == "full":
            tokens = kit.tokenizer.encode(words)
        else:
            hidden = [index for index in range(len(words)) if index not in chosen]
            tokens = kit.tokenizer.encode_selected(words, chosen if kind == "rationale" else hidden)
        items.append(TokenItem(input_ids=tokens.input_ids, label=0))
    return items
