"""A process with the classifier of the wire's jobs and nothing else: what a worker's memory is held against."""

from __future__ import annotations

import json

import psutil

from tests.bench.terms import terms_from_command_line
from tests.bench.work import classifier_for
from workers.findings import example


def main() -> None:
    """Print one line of JSON: this process's memory."""
    classifier = classifier_for(terms_from_command_line())
    assert classifier is not None and callable(example)
    print(json.dumps({"rss_bytes": psutil.Process().memory_info().rss}))


if __name__ == "__main__":
    main()
