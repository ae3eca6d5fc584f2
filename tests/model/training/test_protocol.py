"""The protocol's figures from finished views: keys, runs and the plot beside them."""

from pathlib import Path
from typing import Any

import pytest

from model.evaluation import summary
from model.records import CLASSES
from model.training import crossval, protocol
from model.training.heads import HeadSettings
from tests.model.training.made_views import N_ROWS, made_views


def test_training_writes_each_class_and_a_reliability_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both towers, a run for each seed; the figures of whole texts need encoders and are left out here."""
    monkeypatch.setattr(crossval, "_SETTINGS", HeadSettings(n_steps=10))
    monkeypatch.setattr(protocol, "whole_figures", lambda *given: [])
    monkeypatch.setattr(protocol, "official_figures", lambda *given: [])
    path, nothing = tmp_path / "summary.json", Any
    system = made_views()

    protocol.write_figures(path, nothing, nothing, system, made_views(seed=1), system.full, n_seeds=2)  # type: ignore[arg-type]

    figures = summary.read(path)
    own = [figures[f"rationale_only.f1.{name}"] for name in CLASSES]
    assert {len(one["runs"]) for one in own} == {2} and {one["rows"] for one in own} == {N_ROWS}
    macro_f1 = figures["rationale_only.macro_f1"]
    for run in range(2):
        assert sum(one["runs"][run] for one in own) / len(CLASSES) == pytest.approx(macro_f1["runs"][run])
    assert all(f"rationale_only.f1.{name}.dual" in figures for name in CLASSES)
    gap = figures["rationale_only.macro_f1.dual"]["runs"][0] - macro_f1["runs"][0]
    assert figures["compact.macro_f1_gap"]["runs"][0] == pytest.approx(gap)
    assert (tmp_path / protocol.RELIABILITY).read_bytes().startswith(b"\x89PNG")
