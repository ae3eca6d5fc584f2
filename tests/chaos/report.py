"""The rows of full runs, kept as JSON and shown as a table; rows of faults not run this time stay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.chaos.arena import RESULTS, Row
from tests.chaos.soak import SoakReport

_HEADERS = ("fault", "broker", "runs", "posts", "missing", "repeated", "differing", "recovery, s")

_NOTES = """\
Posts are those that Kafka accepted; repeated are findings delivered more than once, differing those of them
whose content is not the same. Recovery is the longest time from the end of a fault until every partition
was committed again (Redis: until it held every finding; broken posts and classifiers: until all were dealt
with; quotas: until less than a second's posts waited; a feed too fast: until another worker had done what it
left). Loss is what TCP makes of it: 5% of the pieces come late, and some break their connection.
"""


def read_rows(folder: Path = RESULTS) -> list[Row]:
    """Return the rows of the last full runs; none when there are none."""
    file = folder / "summary.json"
    return msgspec.json.decode(file.read_bytes(), type=list[Row]) if file.exists() else []


def write_rows(rows: Sequence[Row], folder: Path = RESULTS) -> None:
    """Write `summary.json` and `table.md`; a row replaces that of the same fault on the same broker."""
    merged = {(row.fault, row.broker): row for row in [*read_rows(folder), *rows]}
    kept = sorted(merged.values(), key=lambda row: (row.broker, row.fault))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=2) + b"\n")
    (folder / "table.md").write_text(f"{table(kept)}\n{_NOTES}{_soak(folder / 'soak.json')}", "utf-8")


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [f"| {' | '.join(_HEADERS)} |", f"|{'---|' * len(_HEADERS)}"]
    for row in rows:
        cells = (row.fault, row.broker, row.runs, row.posts, row.missing, row.duplicates, row.differing, row.recovery_s)
        lines.append(f"| {' | '.join(f'{cell:,}' if isinstance(cell, int) else str(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _soak(file: Path) -> str:
    if not file.exists():
        return ""
    soak = msgspec.json.decode(file.read_bytes(), type=SoakReport)
    return (
        f"\nSoak on {soak.broker} with {soak.redis}: {soak.seconds:.0f} s at {soak.fed_posts_per_s:.0f} posts/s,"
        f" of a capacity of {soak.capacity_posts_per_s:.0f}. Over its second half memory was {soak.rss_mib:.0f} MiB"
        f" with a slope of {soak.rss_slope_mib_per_h:+.1f} MiB/h, open files {soak.open_files:.0f} with"
        f" {soak.open_files_slope_per_h:+.1f}/h; the lag never passed {soak.max_lag_posts:,} posts.\n"
    )
