"""A real worker process with a stub for a classifier: `python -m tests.chaos.worker --classifier sleep:0.002`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.chaos.classifiers import parse_classifier
from workers.device import Classifier
from workers.run import load_classifier, run_worker
from workers.settings import load_settings


def main() -> int:
    """Run one worker until it is stopped and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=["all", "prepare", "classify"], default="all")
    parser.add_argument("--classifier", default="", help="sleep:SECONDS_PER_POST, oom:MAX_BATCH, or checkpoint")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="flags")
    args = parser.parse_args()
    flags = dict(flag.split("=", 1) for flag in args.flags)
    settings = load_settings(flags, environ={"SITREP_CONFIG": str(Path("no-such-file"))})
    classifier: Classifier = (
        load_classifier(settings) if args.classifier == "checkpoint" else parse_classifier(args.classifier)
    )
    return run_worker(settings, stage=args.stage, classifier=classifier)


if __name__ == "__main__":
    sys.exit(main())
