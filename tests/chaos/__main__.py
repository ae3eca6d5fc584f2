"""Runs the fault suite: `python -m tests.chaos [--short] [--kafka-home DIR | --kafka HOST:PORT] ...`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.chaos.apache import ApacheKafka, usable_kafka_home
from tests.chaos.arena import RESULTS, Arena, Row
from tests.chaos.brokers import Broker, Emulator, Foreign
from tests.chaos.redis_server import Redis, RedisServer
from tests.chaos.report import table, write_rows
from tests.chaos.suite import SCENARIOS


def main() -> int:
    """Run the scenarios one after the other; return 1 when any of them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--short", action="store_true", help="the version that `make test` runs; writes no results")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--kafka-home", type=Path, metavar="DIR", help="an unpacked Apache Kafka; needs Java 17")
    where.add_argument("--kafka", metavar="HOST:PORT", help="a broker of your own; it is left alone")
    parser.add_argument("--redis-server", metavar="PROGRAM", help="a redis-server to start; else the embedded Redis")
    parser.add_argument("--only", action="append", choices=list(SCENARIOS), metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--soak-s", type=float, default=1800.0, metavar="S", help="length of the soak (1800)")
    parser.add_argument("--seed", type=int, default=20_240_229)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    args = parser.parse_args()

    if args.kafka_home and not usable_kafka_home(args.kafka_home):
        parser.error(f"no Apache Kafka in {args.kafka_home}, or no Java: name an unpacked one, and install Java 17")
    if args.redis_server and shutil.which(args.redis_server) is None:
        parser.error(f"no program {args.redis_server!r}: install redis-server, or leave --redis-server out")

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # brokers that are away are the point here

    rows: list[Row] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="sitrep-chaos-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        broker: Broker
        if args.kafka:
            broker = Foreign(args.kafka)
        elif args.kafka_home:
            broker = ApacheKafka(args.kafka_home, folder / "kafka")
        else:
            broker = Emulator("kafka", folder / "kafka")
        redis: Redis
        if args.redis_server:
            redis = RedisServer(args.redis_server, folder / "redis")
        else:
            redis = Emulator("redis", folder / "redis")
        arena = Arena(
            broker=broker, redis=redis, folder=folder, short=args.short, seed=args.seed,
            kafka_home=args.kafka_home, soak_s=args.soak_s, results=args.results,
        )  # fmt: skip
        try:
            for name in args.only or SCENARIOS:
                entry = SCENARIOS[name]
                why = entry.unfit(type(broker), short=args.short and not args.only)
                if why:
                    print(f"{name}: left out, {why}", flush=True)
                    continue
                start = time.monotonic()
                try:
                    row = asyncio.run(entry.run(arena))
                except Exception:
                    failed.append(name)
                    print(
                        f"{name}: FAILED after {time.monotonic() - start:.0f} s\n{traceback.format_exc()}", flush=True
                    )
                else:
                    rows.append(row)
                    print(f"{name}: {time.monotonic() - start:.0f} s, {row}", flush=True)
                    if not args.short:
                        write_rows([row], args.results)  # at once: a run that is interrupted keeps what it has
        finally:
            broker.stop()
            redis.stop()
    print(table(rows))
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
