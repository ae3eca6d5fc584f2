"""The cross-validation: no group on both sides of a split, nothing learnt from a held-out label."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model.records import CLASSES
from model.training import crossval
from model.training.heads import N_FOLDS, HeadSettings, folds
from tests.model.training.made_views import N_ROWS, made_views


@pytest.fixture(autouse=True)
def quick_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossval, "_SETTINGS", HeadSettings(n_steps=10))


def test_no_split_divides_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the protocol's folds nor those within them; each row is held out once."""
    views = made_views()
    splits: list[tuple[Any, Any]] = []
    training: list[Any] = []  # rows of the fold that is being fitted

    def spied(labels: Any, groups: Any, n_folds: int = N_FOLDS) -> Iterator[tuple[Any, Any]]:
        rows = np.arange(N_ROWS) if n_folds == N_FOLDS else training[-1]
        for train, held in folds(labels, groups, n_folds):
            if n_folds == N_FOLDS:
                training.append(train)
            splits.append((rows[train], rows[held]))
            yield train, held

    monkeypatch.setattr(crossval, "folds", spied)
    crossval.cross_validate(views, 0)

    assert len(splits) == 5 + 5 * 4
    assert all(not set(views.groups[train]) & set(views.groups[held]) for train, held in splits)
    outer = [held for train, held in splits if len(train) + len(held) == N_ROWS]
    assert sorted(np.concatenate(outer)) == list(range(N_ROWS))


def test_labels_of_a_held_out_fold_do_not_reach_its_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the same folds, other labels there leave the fold's rows as they were, and change the other rows."""
    views = made_views()
    drawn = list(folds(views.labels.numpy(), views.groups))
    _, held = drawn[2]
    other = views.labels.clone()
    other[held] = (other[held] + 1) % len(CLASSES)

    def same(labels: Any, groups: Any, n_folds: int = N_FOLDS) -> Iterator[tuple[Any, Any]]:
        return iter(drawn) if n_folds == N_FOLDS else folds(labels, groups, n_folds)

    monkeypatch.setattr(crossval, "folds", same)
    before = crossval.cross_validate(views, 0)
    after = crossval.cross_validate(replace(views, labels=other), 0)

    rest = np.setdiff1d(np.arange(N_ROWS), held)
    for name in ("rationale", "image", "full", "removed"):
        assert np.array_equal(before[name][held], after[name][held])
        assert not np.allclose(before[name][rest], after[name][rest])
