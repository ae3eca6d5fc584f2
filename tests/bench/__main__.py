"""The benchmark: ours, its limits and its peers on one broker, in one run.

    python -m tests.bench [--short] [--only bare,full] [--data DIR] [--kafka-home DIR] [--device cuda]

Writes `tests/bench/results/summary.json` and the plots beside it; `make readme` fills the table from there. Posts
are real ones from `--data`, a folder with a feed (`pairs.tsv`), else the samples that the project ships. The broker
is the Apache Kafka unpacked in `--kafka-home`, else the embedded one.

With `--device cuda` it is the classifier on the GPU that is measured, alone and in the pipeline; give `--out
tests/bench/results/gpu-NAME.json`, and `--checkpoint DIR` for another one than the shipped.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.bench import plots
from tests.bench.arena import Arena, opened
from tests.bench.backlog import backlog
from tests.bench.endtoend import classify
from tests.bench.gpu import gpu
from tests.bench.inference import inference
from tests.bench.latency import latency
from tests.bench.machine import commit, machine_name
from tests.bench.plan import FULL, GPU_SECTIONS, ON_GPU, SECTIONS, SHORT, Plan
from tests.bench.posts import Supply, find_supply
from tests.bench.scaling import scaling
from tests.bench.summary import SUMMARY, Findings, write
from tests.bench.wire import bare, full

Section = Callable[[Arena, Supply, Plan, Findings], Awaitable[None]]

RUNS: dict[str, Section] = {
    "bare": bare,
    "full": full,
    "inference": inference,
    "classify": classify,
    "latency": latency,
    "scaling": scaling,
    "backlog": backlog,
    "gpu": gpu,
}
assert set(RUNS) == {*SECTIONS, *GPU_SECTIONS}

_VERSIONS = ("aiokafka", "faust-streaming", "quixstreams", "bytewax", "confluent-kafka", "msgspec", "torch")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run the sections that are asked for, and return the whole summary."""
    plan = SHORT if args.short else ON_GPU if args.device != "cpu" else FULL
    supply = find_supply(args.data)
    with opened(args.kafka_home, device=args.device, checkpoint=args.checkpoint) as arena:
        findings = Findings(about=_about(arena, supply, args))
        for name in args.only or (SECTIONS if args.device == "cpu" else GPU_SECTIONS):
            start_s = time.monotonic()
            asyncio.run(RUNS[name](arena, supply, plan, findings))
            logging.info("section %s took %.0f s", name, time.monotonic() - start_s)
            summary = write(findings, args.out)
    return summary


def _about(arena: Arena, supply: Supply, args: argparse.Namespace) -> dict[str, Any]:
    return {
        "broker": arena.broker,
        "redis": arena.redis_name,
        "posts": supply.name,
        "device": args.device,
        "machine": machine_name(),
        "classifier_threads": 1,
        "versions": _versions(),
        "commit": commit(),
        **({} if args.device == "cpu" else {"gpu": _gpu_name()}),
        "short": bool(args.short),
    }


def _versions() -> dict[str, str]:
    """What is installed of the packages that matter; a short run does without the peers."""
    found = {}
    for name in _VERSIONS:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _gpu_name() -> str:
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch finds no GPU: leave the option out, or install a CUDA build of torch")
    return str(torch.cuda.get_device_name())


def _sections(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in RUNS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no section {', '.join(unknown)}: choose from {', '.join(RUNS)}")
    return names


def main() -> None:
    """Measure, write, plot."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="a few posts of everything of ours, for a test")
    parser.add_argument("--only", type=_sections, default=(), metavar="SECTION,...")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a folder with real posts")
    parser.add_argument("--kafka-home", type=Path, metavar="DIR", help="an unpacked Apache Kafka; needs Java 17")
    parser.add_argument("--device", default="cpu", help="the classifier's torch device")
    parser.add_argument(
        "--checkpoint", default="", metavar="DIR", help="the classifier's folder; empty: the shipped one"
    )
    parser.add_argument("--out", type=Path, default=SUMMARY, metavar="FILE", help="the results file")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # topics that are made and deleted all the time
    summary = measure(args)
    plots.draw(summary, args.out)
    print(plots.text(summary))
    print(f"written: {args.out}")


if __name__ == "__main__":
    main()
