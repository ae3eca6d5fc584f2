"""Reads the sample posts as the records to send; what they are is in `deploy/samples/README.md`."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

SAMPLES_FOLDER: Final = Path(__file__).resolve().parent / "samples"
"""What a worker's image folder must be for the samples that name their image by path."""

_POSTS: Final = SAMPLES_FOLDER / "records.jsonl"
_MSGPACK: Final = "application/msgpack"


class RawRecord(Struct, frozen=True, kw_only=True):
    """A record to send as it is; `label` and `fault` are what it was written as, and are not sent.

    `fault` is the reason with which a deliberately broken record is refused.
    """

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    label: str | None = None
    fault: str | None = None


class _Line(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    key: str
    label: str | None = None
    fault: str | None = None
    note: str | None = None
    headers: dict[str, str] = {}
    attach: list[str] = []
    repeat_text: int = 1
    pad_bytes: int = 0
    value: dict[str, Any] | None = None
    raw: str | None = None


def sample_records(n: int | None = None) -> Iterator[RawRecord]:
    """Yield the first n sample records, or each once; beyond the last they come again under new ids."""
    lines = [msgspec.json.decode(line, type=_Line) for line in _POSTS.read_bytes().splitlines()]
    for index in range(len(lines) if n is None else n):
        cycle, position = divmod(index, len(lines))
        yield _record(lines[position], suffix=f"-{cycle + 1}" if cycle else "")


def _record(line: _Line, *, suffix: str) -> RawRecord:
    headers = [(name, value.encode()) for name, value in line.headers.items()]
    key = f"{line.key}{suffix}".encode() if line.key else b""
    value = base64.b64decode(line.raw) if line.raw is not None else _value(line, suffix=suffix)
    return RawRecord(key=key, value=value, headers=headers, label=line.label, fault=line.fault)


def _value(line: _Line, *, suffix: str) -> bytes:
    post = dict(line.value or {})
    post["id"] = f"{post['id']}{suffix}"
    if line.repeat_text > 1:
        post["text"] = str(post["text"]) * line.repeat_text
    if line.attach:
        post["images"] = [{"data": (SAMPLES_FOLDER / name).read_bytes()} for name in line.attach]
    if line.pad_bytes:
        post["filler"] = "x" * line.pad_bytes
    if line.headers.get("content-type") == _MSGPACK:
        return msgspec.msgpack.encode(post)
    return msgspec.json.encode(post)
