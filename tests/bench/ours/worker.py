"""The real worker, as `sitrep worker` runs it, with a classifier that is free, sleeps, or is a checkpoint."""

from __future__ import annotations

import sys

from tests.bench.terms import terms_from_command_line
from tests.bench.work import classifier_for
from workers.run import run_worker
from workers.setting_sources import load_settings

_IN_FLIGHT = 2_000  # the default


def main() -> int:
    """Run until stopped and return the exit code."""
    terms = terms_from_command_line()
    flags = {
        "kafka": terms.kafka,
        "redis": terms.redis,
        "prefix": terms.prefix,
        "web_port": terms.web_port,
        "max_batch": terms.max_batch,
        "max_in_flight": max(_IN_FLIGHT, 8 * terms.max_batch),
        "image_processes": terms.image_processes,
        "threads": terms.threads,
        "device": terms.device,
        "log_level": "warning",
    }
    settings = load_settings(flags, environ={})
    return run_worker(settings, stage="all", classifier=classifier_for(terms))


if __name__ == "__main__":
    sys.exit(main())
