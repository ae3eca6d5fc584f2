"""A real worker process with a stub for a classifier: `python -m tests.chaos.worker --classifier sleep:0.002`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from typing import Any

from tests.chaos.classifiers import parse_classifier
from workers.device import Classifier
from workers.run import load_classifier, run_worker
from workers.setting_sources import load_settings


def main() -> int:
    """Run one worker until it is stopped and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=["all", "prepare", "classify"], default="all")
    parser.add_argument("--classifier", default="", help="sleep:SECONDS_PER_POST, oom:MAX_BATCH, or checkpoint")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="flags")
    parser.add_argument("--via", action="append", default=[], metavar="PORT=PROXY_PORT")
    args = parser.parse_args()
    lead_through({int(port): int(proxy) for port, _, proxy in (one.partition("=") for one in args.via)})
    flags = dict(flag.split("=", 1) for flag in args.flags)
    settings = load_settings(flags, environ={})
    classifier: Classifier = (
        load_classifier(settings) if args.classifier == "checkpoint" else parse_classifier(args.classifier)
    )
    return run_worker(settings, stage=args.stage, classifier=classifier)


def lead_through(routes: Mapping[int, int]) -> None:
    """Connect to another port wherever the program asks for one of these, as a router on the way would.

    A broker names its own address to its clients, so an address in the settings would lead past a proxy.
    """
    connect: Any = asyncio.BaseEventLoop.create_connection

    async def create_connection(self: Any, factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        return await connect(self, factory, host, routes.get(port, port), **options)

    asyncio.BaseEventLoop.create_connection = create_connection  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    sys.exit(main())
