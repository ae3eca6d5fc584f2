"""Replays a file of real posts through a worker and measures it from outside: ledger, rate, latency, quality.

    python -m tests.bench.replay FILE.tsv [--images DIR] [--kafka-home DIR] [--kill] [--name NAME]

The rate is timed by the growth of the findings topic up to its last record. The latency is taken in a
second, paced pass of the first posts at half that rate. Quality is counted on the rows named in
`model/results/held_out_ids.txt`.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import itertools
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from sklearn.metrics import accuracy_score, f1_score

from deploy.embedded import EmbeddedServices, embedded, free_port
from stream.broker import Broker
from stream.feeds import FeedCounts, read_feed, replay
from stream.headers import first_header
from stream.ledger import read_ledger
from stream.reader import read_topic
from stream.records import Finding, decode
from stream.topics import Topics, create_topics, topics
from workers.setting_sources import load_settings

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tests" / "bench" / "results"
HELD_OUT = ROOT / "model" / "results" / "held_out_ids.txt"
MAX_WAIT_S = 1_800.0


class Worker:
    """A worker process, with a log of its own."""

    def __init__(self, services: EmbeddedServices, *, prefix: str, log: Path) -> None:
        self.port = free_port()
        environ = {
            **os.environ,
            "SITREP_KAFKA": services.kafka,
            "SITREP_REDIS": services.redis,
            "SITREP_PREFIX": prefix,
            "SITREP_WEB_PORT": str(self.port),
            "SITREP_INSTANCE": "replayed",  # started again after a crash, it takes its place back
        }
        self._log = log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", "worker"], env=environ, stdout=self._log, stderr=self._log, cwd=ROOT
        )

    def wait_ready(self, timeout_s: float = 90) -> None:
        """Return once /readyz says yes."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the worker ended with {self.process.returncode}: see {self._log.name}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=3) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError(f"the worker is not ready after {timeout_s} s: see {self._log.name}")

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """End the process and wait for it."""
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
            self.process.wait(60)
        self._log.close()


async def _feed(services: EmbeddedServices, wanted: Topics, args: argparse.Namespace, rate: float | None) -> int:
    counts = FeedCounts()
    producer = AIOKafkaProducer(bootstrap_servers=services.kafka, max_request_size=4_194_304, linger_ms=5)
    await producer.start()
    try:
        records = read_feed(args.file, images_dir=args.images, counts=counts)
        if rate is not None:
            records = itertools.islice(records, args.paced_posts)
        sent = await replay(producer, wanted.posts.name, records, rate_per_s=rate)
    finally:
        await producer.stop()
    return sent.n_sent


async def _measured(services: EmbeddedServices, wanted: Topics) -> tuple[list[Finding], list[float], list[float]]:
    """Return the findings, when each was published, and its end-to-end latency in seconds."""
    findings, published, latencies = [], [], []
    async for record in read_topic(Broker(services.kafka), wanted.findings.name):
        finding = decode(record.value, Finding)
        findings.append(finding)
        published.append(record.timestamp / 1000)
        latencies.append(record.timestamp / 1000 - finding.accepted_at.timestamp())
        assert first_header(record.headers, "ce_id") == finding.id
    return findings, published, latencies


async def _pass(
    services: EmbeddedServices, args: argparse.Namespace, *, prefix: str, rate: float | None, log: Path
) -> dict[str, Any]:
    """Send the whole file once and return what came of it."""
    settings = load_settings({"prefix": prefix}, environ={})
    wanted = topics(prefix=prefix, n_partitions=12, max_record_bytes=settings.max_record_bytes)
    await create_topics(Broker(services.kafka), wanted.all(), replication=1)
    worker = Worker(services, prefix=prefix, log=log)
    n_kills = 0
    try:
        await asyncio.to_thread(worker.wait_ready)
        feeding = asyncio.create_task(_feed(services, wanted, args, rate))
        start_s = time.monotonic()
        while True:
            await asyncio.sleep(2)
            if args.kill and n_kills < 1 and time.monotonic() - start_s > args.kill:
                worker.stop(signal.SIGKILL)
                n_kills += 1
                worker = Worker(services, prefix=prefix, log=log)
            if worker.process.poll() is not None:
                raise RuntimeError(f"the worker ended with {worker.process.returncode}: see {log}")
            if feeding.done():
                n_sent = await feeding
                ledger = await read_ledger(Broker(services.kafka), wanted)
                if ledger.accepted == n_sent and not ledger.missing:
                    break
            if time.monotonic() - start_s > MAX_WAIT_S:
                raise RuntimeError(f"posts are still missing after {MAX_WAIT_S} s")
    finally:
        worker.stop()
    findings, published, latencies = await _measured(services, wanted)
    first_s = min(finding.accepted_at.timestamp() for finding in findings)
    return {
        "ledger": ledger.summary(),
        "accepted": ledger.accepted,
        "findings": ledger.findings,
        "dead_letters": ledger.dead_letters,
        "duplicates": ledger.duplicates,
        "missing": len(ledger.missing),
        "repeated": len(ledger.repeated),
        "differing": len(ledger.differing),
        "kills": n_kills,
        "posts_per_s": round(len(findings) / (max(published) - first_s), 1),
        "latency_p50_s": round(statistics.median(latencies), 3),
        "latency_p99_s": round(statistics.quantiles(latencies, n=100)[98], 3),
        "_findings": findings,
    }


def _quality(args: argparse.Namespace, findings: list[Finding]) -> dict[str, Any]:
    """Score the published findings against the labels of rows that no part of the model was trained on."""
    with args.file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    if not rows or "label5_agreed" not in rows[0] or not HELD_OUT.exists():
        return {}
    held_out = set(HELD_OUT.read_text("utf-8").split())
    keys = [record.key.decode() if record.key else "" for record in read_feed(args.file, images_dir=args.images)]
    labels = {
        key: (row["label5_agreed"], row["pixels"])
        for key, row in zip(keys, rows, strict=True)
        if row["image_id"] in held_out and row["label5_agreed"]
    }
    found = {finding.post_id: finding.label for finding in findings}
    scores = {}
    for name, wanted in (("all", None), ("original", "original"), ("restored", "restored")):
        ids = [key for key, (_, pixels) in labels.items() if wanted in (None, pixels) and key in found]
        truth, predicted = [labels[key][0] for key in ids], [found[key] for key in ids]
        if ids:
            scores[name] = {
                "rows": len(ids),
                "accuracy": round(float(accuracy_score(truth, predicted)), 4),
                "macro_f1": round(float(f1_score(truth, predicted, average="macro")), 4),
            }
    return scores


def _broker(kafka_home: Path | None) -> str:
    if kafka_home is None:
        return f"embedded (noida-db {version('noida-db')})"
    [client] = (kafka_home / "libs").glob("kafka-clients-*.jar")
    return f"Apache Kafka {client.stem.rpartition('-')[2]}"


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run both passes and return the result."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    log = Path(args.log)
    with embedded(kafka_home=args.kafka_home) as services:
        flood = await _pass(services, args, prefix="flood.", rate=None, log=log)
        findings = flood.pop("_findings")
        result: dict[str, Any] = {
            "file": f"{args.file.parent.name}/{args.file.name}",
            "broker": _broker(args.kafka_home),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}",
            "flood": flood,
        }
        quality = _quality(args, findings)
        if quality:
            result["held_out"] = quality
        if not args.kill and not args.no_paced:
            rate = max(1.0, flood["posts_per_s"] / 2)
            paced = await _pass(services, args, prefix="paced.", rate=rate, log=log)
            paced.pop("_findings")
            result["paced_at_half_rate"] = {"rate_per_s": round(rate, 1), **paced}
    return result


def main() -> None:
    """Measure and write `tests/bench/results/replay-NAME.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--kafka-home", type=Path)
    parser.add_argument("--kill", type=float, default=0.0, metavar="S", help="SIGKILL the worker after S seconds")
    parser.add_argument("--paced-posts", type=int, default=1_000, metavar="N", help="length of the paced pass")
    parser.add_argument("--no-paced", action="store_true", help="leave out the paced pass")
    parser.add_argument("--name", required=True)
    parser.add_argument("--log", default="replay-worker.log")
    args = parser.parse_args()
    args.images = args.images or args.file.parent
    result = asyncio.run(measure(args))
    path = RESULTS / f"replay-{args.name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(json.dumps(result, indent=2))
    print(f"written: {path}")


if __name__ == "__main__":
    main()
