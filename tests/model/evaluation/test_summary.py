"""The file of measured figures: only what was measured gets in, and the README's table says it as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.evaluation import summary
from model.evaluation.summary import InvalidFigure
from model.evaluation.tables import model_table

PROTOCOL = "5 grouped folds, 5 seeds"


def test_runs_become_mean_and_sample_spread(tmp_path: Path) -> None:
    """0.5, 0.7 and 0.9: mean 0.7, standard deviation 0.2."""
    path = tmp_path / "results" / "summary.json"

    summary.add(path, "rationale_only.macro_f1", [0.5, 0.7, 0.9], 698, PROTOCOL)

    entry = json.loads(path.read_text("utf-8"))["rationale_only.macro_f1"]
    assert entry["mean"] == pytest.approx(0.7)
    assert entry["sd"] == pytest.approx(0.2)
    assert (entry["runs"], entry["rows"], entry["protocol"]) == ([0.5, 0.7, 0.9], 698, PROTOCOL)
    assert set(entry) == {"mean", "sd", "runs", "rows", "protocol"}


def test_adding_keeps_the_others_and_replaces_the_same(tmp_path: Path) -> None:
    """Figures come from several commands; each writes its own and leaves the rest."""
    path = tmp_path / "summary.json"
    summary.add(path, "zero_shot.humaid.kerala_floods_2018.macro_f1", [0.5], 1582, PROTOCOL)
    summary.add(path, "unconstrained.macro_f1", [0.8], 698, PROTOCOL)
    summary.add(path, "unconstrained.macro_f1", [0.9, 0.9], 698, PROTOCOL)

    figures = summary.read(path)

    assert list(figures) == ["unconstrained.macro_f1", "zero_shot.humaid.kerala_floods_2018.macro_f1"]
    assert figures["unconstrained.macro_f1"]["runs"] == [0.9, 0.9]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("key", "runs", "rows", "protocol", "told"),
    [
        ("rationale_only.macro_f1", [], 10, PROTOCOL, "at least one"),
        ("rationale_only.macro_f1", [float("nan")], 10, PROTOCOL, "finite"),
        ("rationale_only.macro_f1", [0.5], 0, PROTOCOL, "rows 0"),
        ("rationale_only.macro_f1", [0.5], 10, " ", "protocol"),
        ("rationale.macro_f1", [0.5], 10, PROTOCOL, "rationale.macro_f1"),
        ("zero_shot.humaid/x", [0.5], 10, PROTOCOL, "zero_shot.humaid/x"),
    ],
)
def test_figure_that_was_not_measured_is_refused(
    key: str, runs: list[float], rows: int, protocol: str, told: str, tmp_path: Path
) -> None:
    """No runs, no rows, no protocol or no such key: nothing is written."""
    path = tmp_path / "summary.json"

    with pytest.raises(InvalidFigure, match=told):
        summary.add(path, key, runs, rows, protocol)

    assert not path.exists()


GOOD = {"mean": 0.6, "sd": 0.0, "runs": [0.6], "rows": 10, "protocol": PROTOCOL}


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({name: value for name, value in GOOD.items() if name != "runs"}, "runs"),
        ({**GOOD, "runs": []}, "at least one"),
        ({**GOOD, "runs": ["0.6"]}, "finite"),
        ({**GOOD, "mean": 0.9}, "its runs say 0.600000"),
        ({**GOOD, "sd": 0.1}, "sd"),
        ({**GOOD, "rows": True}, "rows"),
        ({**GOOD, "note": "by hand"}, "note"),
        (0.6, "0.6"),
    ],
)
def test_hand_made_entry_is_refused(entry: object, told: str, tmp_path: Path) -> None:
    """The table is generated from runs; an entry that lacks them, or contradicts them, stops it."""
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"rationale_only.macro_f1": entry}), "utf-8")

    with pytest.raises(InvalidFigure, match=told):
        summary.read(path)


def test_broken_file_is_named(tmp_path: Path) -> None:
    """A truncated file is not silently begun anew."""
    path = tmp_path / "summary.json"
    path.write_text('{"a": ', "utf-8")

    with pytest.raises(InvalidFigure, match=r"summary\.json is not JSON"):
        summary.add(path, "aopc", [0.1], 1, PROTOCOL)


def test_table_shows_goal_spread_pixels_and_protocol_once() -> None:
    """Several runs show their spread, one run none; both kinds of pixels stand apart; protocols are spelt out below."""
    figures = {
        "rationale_only.macro_f1": summary.entry([0.5, 0.7, 0.9], 698, PROTOCOL),
        "compact.ms_text": summary.entry([14.04], 100, "one thread"),
        "rationale_only.macro_f1.original_pixels": summary.entry([0.6], 89, PROTOCOL),
        "rationale_only.macro_f1.restored_pixels": summary.entry([0.7], 609, PROTOCOL),
        "rationale_only.weighted_f1": summary.entry([0.8], 698, PROTOCOL),
        "rationale_only.macro_f1.dual": summary.entry([0.9], 698, PROTOCOL),
    }
    ablations = {"no_stage_2.macro_f1": summary.entry([0.55], 698, PROTOCOL)}

    earlier = [{"rationale_only.macro_f1": summary.entry([mean, mean + 0.1], 698, PROTOCOL)} for mean in (0.5, 0.6)]

    table = model_table(figures, ablations, earlier).splitlines()

    title = "Macro-F1, decided from rationales alone (the system)"
    assert f"| {title} | 0.700 ± 0.200 | ≥ 0.80 | **missed** | 3 | 698 | (1) |" in table
    assert "| one post without image, one thread | 14.0 ms | ≤ 15 ms | reached | 1 | 100 | (2) |" in table
    assert "| `rationale_only.macro_f1` | 0.600 | 0.700 | 89 + 609 | (1) |" in table
    assert "| `rationale_only.macro_f1` | 0.700 ± 0.200 | 0.900 | 3 | 698 | (1) |" in table  # shipped and `dual`
    runs = "0.700 ± 0.200 | 0.600 ± 0.071 | 0.550 to 0.650"
    assert f"| Macro-F1, decided from rationales alone (the system) | {runs} | 2 | 698 | (1) |" in table
    assert "| `rationale_only.weighted_f1` | 0.800 | 1 | 698 | (1) |" in table
    assert "| no stage 2 | 0.550 | 1 | 698 | (1) |" in table
    assert table[-2:] == [f"1. {PROTOCOL}", "2. one thread"]


def test_without_figures_the_table_says_so() -> None:
    """A fresh checkout of the code alone claims nothing."""
    assert model_table({}, {}, []) == "Nothing has been measured yet."


def test_published_files_hold_measured_figures_only() -> None:
    """What the README's table is generated from."""
    results = Path(summary.__file__).parents[1] / "results"
    for name in ("summary.json", "ablations.json"):
        if (results / name).exists():
            assert summary.read(results / name) if name == "summary.json" else summary.load(results / name)
