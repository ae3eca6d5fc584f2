"""The demo's workers: what they are given, and what others on the machine can see of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy.crew import crew


def test_worker_gets_its_settings_where_others_cannot_read_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command line is anybody's to read, and Redis' URL may hold a password."""
    url = "redis://:geheim@127.0.0.1:1/0"
    monkeypatch.setenv("SITREP_PREFIX", "environment.")
    before = dict(os.environ)

    with crew(1, flags={"redis": url, "prefix": "flag."}, config_file=None, logs=tmp_path) as team:
        process = Path("/proc") / str(team.workers[0].child.pid)
        command, environment = ((process / name).read_bytes() for name in ("cmdline", "environ"))

    assert b"worker" in command and b"geheim" not in command
    given = environment.decode().split("\0")
    assert f"SITREP_REDIS={url}" in given and "SITREP_PREFIX=flag." in given
    assert dict(os.environ) == before
