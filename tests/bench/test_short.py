"""The benchmark itself: a short run measures, loses nothing, and its tables can be made of what it wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.bench_tables import bench_tables
from tests.bench.contenders import ROOT
from tests.bench.profiles import shares
from tests.bench.summary import Findings, spread, write


@pytest.mark.integration
def test_short_run_measures_and_loses_nothing(tmp_path: Path) -> None:
    """Ours and a peer do the bare job, the real worker the full one, and every record arrives once."""
    out = tmp_path / "summary.json"
    command = [sys.executable, "-m", "tests.bench", "--short", "--only", "bare,full", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    summary = json.loads(out.read_text("utf-8"))
    figures = summary["figures"]
    for name in ("wire_bare_limit", "wire_bare_sitrep", "wire_bare_aiokafka", "wire_full_worker"):
        assert figures[name]["median"] > 0
        assert (figures[name]["lost"], figures[name]["duplicated"]) == (0, 0)
    assert summary["wire_bare_over_limit"]["median"] > 0
    assert "embedded" in summary["about"]["broker"]
    assert (tmp_path / "wire-bare.png").stat().st_size > 0
    assert "wire_bare_over_limit" in bench_tables(summary)


def test_key_says_whether_it_is_reached_and_keeps_what_others_measured(tmp_path: Path) -> None:
    """A later run of one section leaves the keys of the others in the file."""
    path = tmp_path / "summary.json"
    about = {"broker": "b", "posts": "p", "redis": "r", "machine": "m"}
    first, second = Findings(about=about), Findings(about=about)
    first.key("p99_over_batch", [2.0, 4.0, 3.5])
    write(first, path)
    second.key("wire_full_over_quix", [3.0, 3.2])
    second.figure("wire_full_worker", [10.0], unit="posts/s", name="Sitrep", lost=1, duplicated=2)
    result = write(second, path)
    assert result["p99_over_batch"]["reached"] is False
    assert result["p99_over_batch"]["runs"] == [2.0, 4.0, 3.5]
    assert result["wire_full_over_quix"]["reached"] is True
    assert "| Sitrep |  | 10 |  | 1 | 2 |" in bench_tables(result)


def test_spread_leaves_out_what_could_not_be_told() -> None:
    assert spread([1.0, float("nan"), 3.0]) == {"median": 2.0, "spread": [1.0, 3.0], "runs": [1.0, 3.0]}
    assert spread([float("nan")])["median"] is None


def test_profile_counts_a_function_once_however_deep_it_recurses() -> None:
    own, total = shares("main (a/b.py:1);walk (c/d.py:2);walk (c/d.py:3) 3\nmain (a/b.py:9) 1\n")
    assert own[0] == ("walk (c/d.py)", 0.75)
    assert total == [("main (a/b.py)", 1.0), ("walk (c/d.py)", 0.75)]
