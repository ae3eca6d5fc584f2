"""What a process under test is told: one JSON argument, the same for ours and for every peer."""

from __future__ import annotations

import sys
from typing import Literal

import msgspec
from msgspec import Struct

Job = Literal["bare", "full", "classify"]


class Terms(Struct, frozen=True, kw_only=True):
    """Read `source`, do the job, write `target`; `classifier` is `free`, `sleep:SECONDS_PER_POST` or `checkpoint`.

    `stop_after` ends the limits, which no signal has to stop; 0 means never.
    """

    kafka: str
    redis: str
    source: str
    target: str
    group: str
    job: Job
    prefix: str
    classifier: str = "free"
    checkpoint: str = ""
    device: str = "cpu"
    threads: int = 1
    max_batch: int = 32
    image_processes: int = 1
    web_port: int = 0
    stop_after: int = 0


def terms_from_command_line() -> Terms:
    """Return the terms in the only argument of this process."""
    return msgspec.json.decode(sys.argv[1].encode(), type=Terms)


def to_argument(terms: Terms) -> str:
    """Return the terms as that argument."""
    return msgspec.json.encode(terms).decode()
