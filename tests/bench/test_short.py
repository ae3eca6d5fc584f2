"""The benchmark itself: a short run measures, loses nothing, and its tables can be made of what it wrote."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition

from deploy.bench_tables import bench_tables
from tests.bench.contenders import ROOT
from tests.bench.machine import commit, machine_name
from tests.bench.plots import draw
from tests.bench.profiles import header, shares
from tests.bench.summary import Findings, spread, write
from tests.bench.watch import Growth, Watch


@pytest.mark.integration
def test_short_run_measures_and_loses_nothing(tmp_path: Path) -> None:
    """Ours and a peer do the bare job, the real worker and a peer the full one, and every record arrives once."""
    out = tmp_path / "summary.json"
    command = [sys.executable, "-m", "tests.bench", "--short", "--only", "bare,full", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    summary = json.loads(out.read_text("utf-8"))
    figures = summary["figures"]
    for name in ("wire_bare_limit", "wire_bare_sitrep", "wire_bare_aiokafka", "wire_full_worker", "wire_full_aiokafka"):
        assert figures[name]["median"] > 0
        assert (figures[name]["lost"], figures[name]["duplicated"]) == (0, 0)
    assert summary["wire_bare_over_limit"]["median"] > 0
    assert "embedded" in summary["about"]["broker"]
    assert (tmp_path / "wire-bare.png").stat().st_size > 0
    assert "wire_bare_over_limit" in bench_tables(summary)


def test_key_says_whether_it_is_reached_and_keeps_what_others_measured(tmp_path: Path) -> None:
    """A later run of one section leaves the keys of the others in the file, each with the commit it is of."""
    path = tmp_path / "summary.json"
    about = {"broker": "b", "posts": "p", "redis": "r", "machine": "m"}
    first, second = Findings(about={**about, "commit": "abc"}), Findings(about={**about, "commit": "def"})
    first.key("p99_over_batch", [2.0, 4.0, 3.5])
    write(first, path)
    second.key("wire_full_over_quix", [3.0, 3.2])
    second.figure("wire_full_worker", [10.0], unit="posts/s", name="Sitrep", lost=1, duplicated=2)
    result = write(second, path)
    assert result["p99_over_batch"]["reached"] is False
    assert result["p99_over_batch"]["runs"] == [2.0, 4.0, 3.5]
    assert result["wire_full_over_quix"]["reached"] is True
    assert "| Sitrep |  | 10 |  | 1 | 2 |" in bench_tables(result)
    assert "Commits: def of `wire_full_over_quix`; abc of `p99_over_batch`." in bench_tables(result)


def test_spread_leaves_out_what_could_not_be_told_and_counts_it() -> None:
    told = spread([1.0, float("nan"), 3.0])
    assert told == {"median": 2.0, "spread": [1.0, 3.0], "runs": [1.0, 3.0], "n_dropped": 1}
    assert spread([float("nan")]) == {"median": None, "spread": None, "runs": [], "n_dropped": 1}


def test_contender_without_a_rate_is_left_out_of_the_plot_and_the_table(tmp_path: Path) -> None:
    """Bytewax may publish all in one burst after all of the work, of which no rate can be told."""
    findings = Findings(about={"broker": "b", "posts": "p", "redis": "r", "machine": "m", "commit": "abc"})
    findings.figure("end_to_end_worker", [17.0, 17.2], unit="posts/s", name="Sitrep", lost=0, duplicated=0)
    findings.figure("end_to_end_bytewax", [float("nan")], unit="posts/s", name="Bytewax", lost=0, duplicated=0)
    result = write(findings, tmp_path / "summary.json")
    [plot] = draw(result, tmp_path / "summary.json")
    assert plot.stat().st_size > 1_000
    assert "| Bytewax |  |  |  | 0 | 0 |" in bench_tables(result)


def test_profile_counts_a_function_once_however_deep_it_recurses() -> None:
    own, total = shares("main (a/b.py:1);walk (c/d.py:2);walk (c/d.py:3) 3\nmain (a/b.py:9) 1\n")
    assert own[0] == ("walk (c/d.py)", 0.75)
    assert total == [("main (a/b.py)", 1.0), ("walk (c/d.py)", 0.75)]


def test_profile_says_what_it_is_of() -> None:
    args = Namespace(job="full", name="after", max_batch=256, posts=400_000, seconds=5)
    text = "\n".join(header(args, broker="Apache Kafka 4.3.1", posts="real"))
    for part in (commit(), machine_name(), "Apache Kafka 4.3.1", "400,000 posts, real", "batches of 256", "5 s"):
        assert part in text
    args.job = "bare"
    assert "batches" not in "\n".join(header(args, broker="b", posts="real"))


def test_rate_counts_from_the_first_growth_and_backlog_from_the_start() -> None:
    growth = Growth(points=[(10.0, 0), (10.5, 50), (11.0, 120), (12.5, 250)])
    assert growth.rate_per_s == 100
    assert (growth.seconds_to(100), growth.seconds_to(120), growth.elapsed_s) == (1.0, 1.0, 2.5)


class _Ends:
    """A consumer and a Redis that say how far they are."""

    def __init__(self, n_records: int, n_keys: int) -> None:
        self._n_records, self._n_keys = n_records, n_keys

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, self._n_records)

    async def dbsize(self) -> int:
        return self._n_keys


@pytest.mark.parametrize(
    ("n_records", "n_keys", "n_done"),
    [(60, 2, 60), (100, 2, 99), (100, 2 + 99, 99), (100, 2 + 100, 100)],
    ids=["the topic times it", "nothing stored", "one missing", "all there"],
)
def test_full_job_is_done_when_redis_holds_all(n_records: int, n_keys: int, n_done: int) -> None:
    """Whoever writes to Redis at its end only is timed while it works, and until that end."""
    watch = Watch("nowhere:9092", "findings", 1, redis="redis://nowhere:6379/0")
    ends: Any = _Ends(n_records, n_keys)
    watch._redis = ends
    assert asyncio.run(watch._n_done(ends, 100)) == n_done
