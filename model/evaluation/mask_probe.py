"""Do the masks leak the label? A linear model is fitted on where the rationale is, with nothing of what it says."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from model.classifier import Selection
from model.errors import ModelError
from model.evaluation.measures import Labels, Probs
from model.records import CLASSES

_N_BINS = 8
_N_FOLDS = 5


class TooFewPosts(ModelError):
    """Too few labelled posts to fit and test anything; the message says how many are needed."""


def mask_features(selections: Sequence[Selection]) -> Probs:
    """What the masks alone say: how many words, how many of them selected and where, and which patches; (N, F)."""
    n_patches = max((len(one.patch_scores) for one in selections), default=0)
    rows = np.zeros((len(selections), 3 + _N_BINS + n_patches))
    for row, one in zip(rows, selections, strict=True):
        n_words = len(one.word_scores)
        row[:3] = n_words, len(one.words), float(bool(one.patch_scores))
        for word in one.words:
            row[3 + word * _N_BINS // n_words] += 1
        row[[3 + _N_BINS + patch for patch in one.patches]] = 1
    return rows


def probe_masks(selections: Sequence[Selection], labels: Labels, *, seed: int) -> Probs:
    """How well a linear model, fitted on masks without content, guesses the label of unseen posts; (N, 5).

    Far above the commonest class, the selection itself would give the label away. A class of a single post is
    guessed by a model that never saw it.
    """
    second = np.sort(np.bincount(labels, minlength=len(CLASSES)))[-2]
    n_folds = min(_N_FOLDS, int(second))
    if n_folds < 2:
        raise TooFewPosts("the mask probe needs two labelled posts of each of two classes: give more rows")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1_000))
    splitter = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that a fold lacks
        found = cross_val_predict(model, mask_features(selections), labels, cv=splitter, method="predict_proba")
    probs = np.zeros((len(labels), len(CLASSES)))
    probs[:, np.unique(labels)] = found
    return probs
