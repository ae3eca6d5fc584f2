"""Where the time of one process goes: a sampling profile of a run, kept as a short table.

    python -m tests.bench.profiles NAME --job bare|full [--kafka-home DIR] [--data DIR] [--posts N]

Writes `tests/bench/results/profile-NAME.txt`; needs py-spy, which is in the `bench` extra.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.bench.arena import N_PARTITIONS, Arena, opened
from tests.bench.contenders import ROOT, Contender
from tests.bench.machine import commit, machine_name
from tests.bench.posts import Supply, find_supply, load
from tests.bench.watch import Watch

RESULTS = ROOT / "tests" / "bench" / "results"
_N_LINES = 25
_RATE_HZ = 200


def shares(raw: str) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """Return functions with their share of the samples, by own time and with what they called, from py-spy's raw."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    n_samples = 0
    for line in raw.splitlines():
        stack, _, number = line.rpartition(" ")
        n = int(number)
        frames = [_function(frame) for frame in stack.split(";")]
        n_samples += n
        own[frames[-1]] += n
        for frame in set(frames):
            total[frame] += n
    if not n_samples:
        return [], []
    return tuple(  # type: ignore[return-value]
        [(name, n / n_samples) for name, n in counts.most_common(_N_LINES)] for counts in (own, total)
    )


def _function(frame: str) -> str:
    name, _, place = frame.partition(" (")
    file = place.rpartition(":")[0] or place.rstrip(")")
    parts = Path(file).parts
    return f"{name} ({'/'.join(parts[-2:])})"


def header(args: argparse.Namespace, *, broker: str, posts: str) -> list[str]:
    """Return the first lines of a profile: what of, where, and how it was taken."""
    batch = f", batches of {args.max_batch}" if args.job == "full" else ""
    return [
        f"{args.job} job, {args.name}: share of the samples that held the interpreter's lock, {broker}",
        f"commit {commit()}, {machine_name()}",
        f"{args.posts:,} posts, {posts}{batch}; {args.seconds} s from the first record on, {_RATE_HZ} samples/s",
    ]


async def _profiled(arena: Arena, supply: Supply, args: argparse.Namespace) -> str:
    terms = arena.terms(args.job, source="profiled.posts", name="profiled", max_batch=args.max_batch)
    await arena.make_worker_topics(terms.prefix, N_PARTITIONS)
    await load(arena.kafka, terms.source, N_PARTITIONS, supply.text_posts(args.posts))
    contender_name = "sitrep" if args.job == "bare" else "worker"
    contender = Contender(arena, contender_name, terms)
    raw = arena.folder / "profile.raw"
    try:
        watch = Watch(arena.kafka, terms.target, N_PARTITIONS)
        await watch.until(1, pid=contender.pid, is_alive=contender.is_alive, timeout_s=60)
        command = [str(Path(sys.executable).parent / "py-spy"), "record", "--format", "raw", "--rate", str(_RATE_HZ)]
        command += ["--gil", "--duration", str(args.seconds), "--output", str(raw), "--pid", str(contender.pid)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"py-spy failed: {done.stderr[-500:]}")
    finally:
        contender.stop()
    return raw.read_text("utf-8")


def main() -> None:
    """Profile one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--job", choices=["bare", "full"], required=True)
    parser.add_argument("--kafka-home", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--posts", type=int, default=400_000)
    parser.add_argument("--max-batch", type=int, default=256)
    parser.add_argument("--seconds", type=int, default=5)
    args = parser.parse_args()
    with opened(args.kafka_home, device="cpu", checkpoint="") as arena:
        supply = find_supply(args.data)
        own, total = shares(asyncio.run(_profiled(arena, supply, args)))
        lines = header(args, broker=arena.broker, posts=supply.name)
    for title, rows in (("own time", own), ("with what it called", total)):
        lines += ["", title, *(f"{share:7.1%}  {name}" for name, share in rows)]
    path = RESULTS / f"profile-{args.job}-{args.name}.txt"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    print(path.read_text("utf-8"))


if __name__ == "__main__":
    main()
