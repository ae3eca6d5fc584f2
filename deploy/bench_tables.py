"""Turns the benchmark's summary into the README's tables; measures and reads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_CONTENDERS: Final = (
    ("Sitrep", ("sitrep", "worker")),
    ("Quix Streams", ("quix",)),
    ("Bytewax", ("bytewax",)),
    ("aiokafka loop", ("aiokafka",)),
    ("naive Faust", ("faust",)),
    ("limit of aiokafka, no decoding", ("limit",)),
)
_JOBS: Final = (("bare", "wire_bare_"), ("full", "wire_full_"), ("classifier", "end_to_end_"))
_FIGURES: Final = (
    ("classifier_alone", "classifier alone, posts/s"),
    ("decode_alone", "decoding and validating alone, posts/s"),
    ("batch_fill", "batch fill"),
    ("device_busy_share", "device busy"),
    ("cpu_s_per_1000_posts", "processor seconds per 1,000 posts, real classifier"),
    ("worker_rss_mb", "worker's memory with its children, real classifier, MB"),
    ("rss_beyond_model_classifying_mb", "the same beyond the model and its work on a batch, MB"),
    ("catch_up_100000_s", "seconds to catch up a backlog of 100,000, full job"),
    ("rate_at_backlog_1e6", "posts/s at a backlog of 1,000,000, full job"),
)


def bench_tables(summary: Mapping[str, Any]) -> str:
    """Return the keys, the rates by contender, other figures, and latencies."""
    about, figures = summary["about"], summary["figures"]
    parts = [
        f"{about['broker']}, {about['redis']}, {about['machine']}; posts: {about['posts']}. Median of the"
        f" repetitions, with their range. {_commits(summary)}",
        _keys(summary),
        _rates(figures),
        _others(figures),
        _latencies(figures),
        _half(summary),
    ]
    return "\n\n".join(part for part in parts if part)


def bench_keys(summary: Mapping[str, Any]) -> str:
    """Return the keys and the rates by contender alone."""
    about = summary["about"]
    return "\n\n".join([f"{about['machine']}. {_commits(summary)}", _keys(summary), _rates(summary["figures"])])


def _commits(summary: Mapping[str, Any]) -> str:
    """Return which commit was measured, key by key where a part was measured again later."""
    keys: dict[str, list[str]] = {}
    for name, entry in summary.items():
        if isinstance(entry, dict) and "reached" in entry:
            keys.setdefault(entry.get("commit", "an earlier one"), []).append(f"`{name}`")
    if len(keys) == 1:
        return f"Commit {next(iter(keys))}."
    return "Commits: " + "; ".join(f"{commit} of {', '.join(names)}" for commit, names in keys.items()) + "."


def _keys(summary: Mapping[str, Any]) -> str:
    rows = ["| key | what | must reach | measured | |", "|---|---|---|---|---|"]
    for name, entry in summary.items():
        if isinstance(entry, dict) and "reached" in entry:
            bound = f"at most {entry['at_most']:g}" if "at_most" in entry else f"{entry['at_least']:g}"
            verdict = "reached" if entry["reached"] else "**missed**"
            rows.append(f"| `{name}` | {entry['what']} | {bound} | {value(entry)} | {verdict} |")
    return "\n".join(rows)


def _rates(figures: Mapping[str, Any]) -> str:
    rows = [
        "| posts/s | " + " | ".join(job for job, _ in _JOBS) + " | lost | duplicated |",
        "|---|---|---|---|---|---|",
    ]
    for title, names in _CONTENDERS:
        entries = [
            next((figures[prefix + name] for name in names if prefix + name in figures), None) for _, prefix in _JOBS
        ]
        there = [entry for entry in entries if entry is not None]
        if there:
            lost, twice = (sum(entry.get(key, 0) for entry in there) for key in ("lost", "duplicated"))
            cells = " | ".join(value(entry) if entry is not None else "" for entry in entries)
            rows.append(f"| {title} | {cells} | {lost} | {twice} |")
    if len(rows) == 2:
        return ""
    told = _told(figures)
    return "\n".join(rows) + (f"\n\n{told}" if told else "")


def _told(figures: Mapping[str, Any]) -> str:
    """Return how many runs with the classifier the rates are of; of some none can be told."""
    prefix = dict(_JOBS)["classifier"]
    entries = {
        title: figures[prefix + name] for title, names in _CONTENDERS for name in names if prefix + name in figures
    }
    n_posts = next((entry["n_posts"] for entry in entries.values() if "n_posts" in entry), None)
    if n_posts is None:
        return ""
    runs = ", ".join(f"{title} {_counted(entry)}" for title, entry in entries.items())
    return f"*classifier*: runs of {n_posts} posts; those of which a rate could be told: {runs}."


def _counted(entry: Mapping[str, Any]) -> str:
    n_told, n_dropped = len(entry["runs"]), entry.get("n_dropped")  # which earlier results lack
    return f"{n_told}" if n_dropped is None else f"{n_told} of {n_told + n_dropped}"


def _others(figures: Mapping[str, Any]) -> str:
    rows = [f"| {title} | {value(figures[name])} |" for name, title in _FIGURES if name in figures]
    return "\n".join(["| figure | measured |", "|---|---|", *rows]) if rows else ""


def _latencies(figures: Mapping[str, Any]) -> str:
    rows = []
    for name, title in (
        ("latency_under_a_rising_rate", "sleeping classifier"),
        ("latency_at_267_posts_per_s", "sleeping classifier, a hurricane's peak"),
        ("latency_at_half_capacity", "real classifier, half its capacity"),
    ):
        for row in figures.get(name, {}).get("rows", []):
            shown = (f"{row['p50_s'] * 1000:.0f}", f"{row['p99_s'] * 1000:.0f}", row["lost"], row["duplicated"])
            cells = (title, f"{row['rate_per_s']:g}", row["n_posts"], *shown)
            rows.append("| " + " | ".join(map(str, cells)) + " |")
    head = [
        "| open-loop load | posts/s | posts | p50, ms | p99, ms | lost | duplicated |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows]) if rows else ""


def _half(summary: Mapping[str, Any]) -> str:
    """Return what the real classifier's half capacity is half of."""
    capacity_per_s = summary.get("p99_over_batch", {}).get("capacity_per_s")
    end_to_end_per_s = summary["figures"].get("end_to_end_worker", {}).get("median")
    if capacity_per_s is None or end_to_end_per_s is None:
        return ""
    source = summary["p99_over_batch"].get("capacity_from", "one run that counts sending and draining")
    origin = {"end_to_end_worker": "the median above"}.get(source, source)
    share = capacity_per_s / 2 / end_to_end_per_s
    return (
        f"Half its capacity: half of {capacity_per_s:g} posts/s ({origin}), which is {share:.0%} of the"
        f" {end_to_end_per_s:g} in the table of rates."
    )


def value(entry: Mapping[str, Any]) -> str:
    """Return a figure's median with its range."""
    if entry["median"] is None:
        return ""
    low, high = entry["spread"]
    shown = f"{entry['median']:,g}" if entry["median"] < 1_000 else f"{entry['median']:,.0f}"
    return shown if low == high else f"{shown} ({low:,g} to {high:,g})"
