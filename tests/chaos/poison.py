"""Posts that cannot be handled, and a classifier that fails, at every position of a batch."""

from __future__ import annotations

import asyncio
import io
import struct
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import msgspec
from PIL import Image as Pillow

from stream.broker import Broker
from stream.headers import ATTEMPT, REPLAYED, VALUE_OMITTED
from stream.reader import read_topic
from stream.records import Finding, Image, Post, decode, encode
from tests.chaos.arena import Arena, Row, check, make_row
from tests.chaos.field import Field, Raw

_BATCH = 8


def images() -> dict[str, tuple[bytes, bool]]:
    """Return pictures by kind, each with whether it can be used."""

    def saved(picture: Pillow.Image, kind: str, **options: object) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        return buffer.getvalue()

    photo = Pillow.effect_noise((96, 64), 50).convert("RGB")
    jpeg = saved(photo, "JPEG")
    exif = Pillow.Exif()
    exif[0x0112] = 6
    return {
        "zero bytes": (b"", False),
        "truncated JPEG": (jpeg[: len(jpeg) // 2], False),
        "image bomb": (_bomb(60_000), False),
        "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', False),
        "HEIC": (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(64), False),
        "animated GIF": (saved(photo, "GIF", save_all=True, append_images=[photo.rotate(90)]), True),
        "CMYK": (saved(photo.convert("CMYK"), "JPEG"), True),
        "16-bit": (saved(Pillow.new("I;16", (40, 40), 40_000), "PNG"), True),
        "EXIF-rotated": (saved(photo, "JPEG", exif=exif), True),
    }


def broken_records() -> dict[str, Raw]:
    """Return records that are no posts, by kind."""
    return {
        "undecodable": Raw(value=b"\xff\xfe{not json", key=b"undecodable"),
        "wrong type": Raw(value=b'{"id": "wrong", "text": 7}', key=b"wrong"),
        "wrong shape": Raw(value=b"[1, 2]"),
        "no value": Raw(value=None, key=b"gone"),
        "unknown content-type": Raw(value=b"<post/>", headers=[("content-type", b"text/xml")]),
        "not MessagePack": Raw(value=b"\xc1", headers=[("content-type", b"application/msgpack")]),
        "too large": Raw(value=encode(Post(id="large", text="x", images=[Image(data=bytes(1_575_000))])), key=b"large"),
        "empty": Raw(value=encode(Post(id="empty", text="  ")), key=b"empty"),
        "attempt that is no number": Raw(value=b"{", headers=[(ATTEMPT, b"7" * 5_000)]),
        "marks itself as put back": Raw(value=b"{", headers=[(REPLAYED, b"x"), (VALUE_OMITTED, b"1")]),
        "deeply nested": Raw(value=b'{"id": "deep", "geo": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"),
    }


async def poison(arena: Arena) -> Row:
    """Broken records and pictures come first, in the middle and last among good posts."""
    async with arena.field("poison", max_batch=_BATCH) as field:
        worker = field.worker()
        start = time.monotonic()
        records: list[Raw] = []
        for kind, record in broken_records().items():
            records += _surround([record], kind)
        for kind, (data, _) in images().items():
            for text in (f"{kind} with words", ""):
                post = Post(id=f"{kind}-{bool(text)}", text=text, images=[Image(data=data)])
                records += _surround([Raw(value=encode(post), key=post.id.encode())], f"{kind}{bool(text)}")
        n_fed = await field.feed(records)
        await field.settled(arena.pick(120, 90))
        recovery_s = time.monotonic() - start
        assert worker.is_alive, worker.log()
        assert await field.committed_without_outcome() == 0
        ledger = await field.ledger()
        found = await _findings(field)
    check(ledger, posts=n_fed)
    n_broken = 3 * len(broken_records()) + 3 * sum(not usable for _, usable in images().values())
    assert ledger.dead_letters == n_broken, ledger.summary()
    for kind, (_, usable) in images().items():
        with_words = found[f"{kind}-True-0"]
        assert any(word.startswith("image_") for word in with_words.degraded) is not usable, with_words.degraded
        assert (f"{kind}-False-0" in found) is usable
    assert sum(finding.text.startswith("good") for finding in found.values()) == _n_good(records)
    return make_row("poison first, middle and last", arena.broker.name, ledger, recovery_s=recovery_s)


async def classifier_faults(arena: Arena) -> Row:
    """The classifier raises, answers nonsense or too little, or runs out of memory, at every position."""
    faults = ("raise", "nan", "few", "odd", "oom")
    async with arena.field("classifier", max_batch=_BATCH, linger_s=0.2) as field:
        worker = field.worker(classifier="oom:5")  # besides, no batch above 5 posts fits
        start = time.monotonic()
        records: list[Raw] = []
        for fault in faults:
            post = Post(id=fault, text=f"[{fault}]")
            records += _surround([Raw(value=encode(post), key=fault.encode())], fault)
        n_fed = await field.feed(records)
        await field.settled(90)
        recovery_s = time.monotonic() - start
        assert worker.is_alive, worker.log()
        ledger = await field.ledger()
        found = await _findings(field)
        metrics = worker.metrics()
    check(ledger, posts=n_fed)
    assert ledger.dead_letters == 3 * len(faults), ledger.summary()
    assert sum(finding.text.startswith("good") for finding in found.values()) == _n_good(records) == ledger.findings
    reasons = Counter({name: int(value) for name, value in metrics.items() if name.startswith("sitrep_dead_letters_")})
    assert reasons["sitrep_dead_letters_total{reason=invalid_prediction}"] == 6
    assert reasons["sitrep_dead_letters_total{reason=classifier_error}"] == 6
    assert reasons["sitrep_dead_letters_total{reason=out_of_memory}"] == 3
    fault = "classifier raises, NaN, too few, out of memory"
    return make_row(fault, arena.broker.name, ledger, recovery_s=recovery_s)


async def classifier_hangs(arena: Arena) -> Row:
    """The classifier hangs on more posts than a worker bears: it exits, and is started again as often as it takes."""
    n_hangs = arena.pick(5, 2)
    async with arena.field(
        "hangs", max_batch=_BATCH, linger_s=0.2, classify_timeout_s=0.7, max_hung_batches=2
    ) as field:
        records: list[Raw] = []
        for number in range(n_hangs):
            post = Post(id=f"hang-{number}", text="[hang]")
            records += [Raw(value=encode(post), key=post.id.encode(), partition=0), *_good(f"h{number}", 3)]
        n_fed = await field.feed(records)
        start = time.monotonic()
        worker, n_restarts = field.worker(ready=False), 0
        settling = asyncio.create_task(field.settled(110))
        while not settling.done():
            if not worker.is_alive:
                assert worker.wait(1) == 1
                n_restarts += 1
                assert n_restarts < 2 * n_hangs, f"no progress after {n_restarts} restarts\n{worker.log()}"
                worker = field.worker(ready=False)
            await asyncio.sleep(0.1)
        await settling
        recovery_s = time.monotonic() - start
        ledger = await field.ledger()
    check(ledger, posts=n_fed)
    assert ledger.dead_letters == n_hangs, ledger.summary()
    assert n_restarts >= 1, "the worker bore more hangs than it may"
    return make_row(
        "classifier hangs past its deadline", arena.broker.name, ledger, recovery_s=recovery_s, runs=n_hangs
    )


def _surround(poison_records: Sequence[Raw], name: str) -> list[Raw]:
    """Return the poison first, in the middle and last among good posts, all of one partition."""
    records: list[Raw] = []
    for number, place in enumerate((0, _BATCH // 2, _BATCH - 1)):
        batch = _good(f"{name}-{number}", _BATCH - 1)
        batch[place:place] = [_renamed(record, number) for record in poison_records]
        records += batch
    return records


def _renamed(record: Raw, number: int) -> Raw:
    """Return the record as another post: the same id again would be a duplicate."""
    value, key = record.value, record.key
    if key is not None and value is not None and b'"id":"' in value[:20]:
        post = msgspec.json.decode(value)
        post["id"] = f"{post['id']}-{number}"
        value, key = msgspec.json.encode(post), post["id"].encode()
    return replace(record, value=value, key=key, partition=0)


def _good(name: str, n_posts: int) -> list[Raw]:
    posts = [Post(id=f"good-{name}-{number}", text=f"good post {name} {number}") for number in range(n_posts)]
    return [Raw(value=encode(post), key=post.id.encode(), partition=0) for post in posts]


def _n_good(records: Sequence[Raw]) -> int:
    return sum(record.key is not None and record.key.startswith(b"good-") for record in records)


async def _findings(field: Field) -> dict[str, Finding]:
    found = {}
    async for record in read_topic(Broker(field.kafka), field.topics.findings.name):
        finding = decode(record.value, Finding)
        found[finding.post_id] = finding
    return found


def _bomb(edge: int) -> bytes:
    """Return a PNG of a few bytes that claims edge x edge pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", edge, edge, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(edge + 1)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")
