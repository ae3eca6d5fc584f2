"""Posts from files, for replay: JSON lines or CrisisMMD's tables; a broken post is sent, a broken table is not."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import msgspec
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from stream.errors import BrokerUnavailable, ImageUnavailable
from stream.headers import Headers
from stream.outbox import Outgoing
from stream.pixels import load_image
from stream.records import JSON, UNDECODABLE, Image, Post, encode
from stream.tables import FeedError, read_table

__all__ = ["FeedCounts", "FeedError", "Producer", "ReplayCounts", "read_feed", "replay"]

JSONL_SUFFIXES: Final = (".jsonl", ".ndjson")
TABLE_SUFFIXES: Final = (".tsv", ".txt")

_ID_COLUMNS: Final = ("post_id", "tweet_id", "image_id")  # the first that tells the rows apart is the id
_TEXT_COLUMNS: Final = ("text", "tweet_text")


@dataclass(slots=True, kw_only=True)
class FeedCounts:
    """What became of a file's rows; `images_left_out` counts, by reason, posts that go without their image."""

    n_posts: int = 0
    n_empty: int = 0
    images_left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayCounts:
    """What a replay did; `late_s` is how far it fell behind its own schedule."""

    n_sent: int
    n_too_large: int
    elapsed_s: float
    late_s: float


class Producer(Protocol):
    """The one call of `aiokafka.AIOKafkaProducer` that a replay needs."""

    async def send(
        self, topic: str, value: bytes | None = None, key: bytes | None = None, *, headers: Headers
    ) -> asyncio.Future[object]:
        """Queue the record, waiting while the buffer is full; the future is its delivery."""
        ...


def read_feed(
    file: Path,
    *,
    images_dir: Path | None = None,
    source: str | None = None,
    max_image_bytes: int = 1_048_576,
    counts: FeedCounts | None = None,
) -> Iterator[Outgoing]:
    """Yield the file's posts as records keyed by post id; its suffix says how to read it.

    The file is read as far as the iterator is consumed, and blocks while it is; a table is checked whole
    before its first row. Image paths are below `images_dir`, or below the file's own folder.

    Raises:
        FeedError: the file is missing, of an unknown kind, or a table that does not hold together.
    """
    counts = FeedCounts() if counts is None else counts
    if not file.is_file():
        raise FeedError(f"there is no file {file}: give a .jsonl or .tsv file")
    if file.suffix in JSONL_SUFFIXES:
        return _jsonl(file, counts)
    if images_dir is not None and not images_dir.is_dir():
        raise FeedError(f"there is no folder {images_dir}: give the one that the table's image paths start from")
    if file.suffix in TABLE_SUFFIXES:
        folder = file.parent if images_dir is None else images_dir
        rows = read_table(file, ids=_ID_COLUMNS, contents=(*_TEXT_COLUMNS, "image"))
        return _posts(rows, file, folder, source, max_image_bytes, counts)
    known = ", ".join(JSONL_SUFFIXES + TABLE_SUFFIXES)
    raise FeedError(f"{file} has the suffix {file.suffix!r}: give JSON lines or a tab-separated table, named {known}")


async def replay(
    producer: Producer,
    topic: str,
    records: Iterable[Outgoing],
    *,
    rate_per_s: float | None = None,
    on_sent: Callable[[Outgoing], None] | None = None,
    max_in_flight: int = 1_000,
    stall_s: float = 300.0,
) -> ReplayCounts:
    """Send the records in order and wait for every delivery; `on_sent` is told each confirmed one.

    With a rate, record n is due n / rate seconds after the start whatever the broker does: after a stall the
    rest follows at once, and `late_s` tells. Without one, records go as fast as they
    are confirmed. At most `max_in_flight` deliveries are awaited at a time.

    Raises:
        BrokerUnavailable: a delivery failed, other than for its size, or none was confirmed for `stall_s`, for which
            the client itself would wait without end; those before it may have arrived.
    """
    run = _Replay(max_in_flight=max_in_flight, on_sent=on_sent)
    try:
        return await _send_all(run, producer, topic, records, rate_per_s, stall_s)
    except TimeoutError as error:
        raise BrokerUnavailable(
            f"{topic} confirmed nothing for {stall_s:g} s; {run.n_sent} were confirmed before: is the broker up?"
        ) from error


async def _send_all(
    run: _Replay, producer: Producer, topic: str, records: Iterable[Outgoing], rate_per_s: float | None, stall_s: float
) -> ReplayCounts:
    now = asyncio.get_running_loop().time
    start, late_s = now(), 0.0
    for number, record in enumerate(records):
        due = start if rate_per_s is None else start + number / rate_per_s
        await asyncio.sleep(max(0.0, due - now()))
        async with asyncio.timeout(stall_s):
            await run.slots.acquire()
            if rate_per_s is not None:
                late_s = max(late_s, now() - due)
            run.check(topic)
            await run.send(producer, topic, record)
    for _ in range(run.max_in_flight):
        async with asyncio.timeout(stall_s):
            await run.slots.acquire()
    run.check(topic)
    return ReplayCounts(n_sent=run.n_sent, n_too_large=run.n_too_large, elapsed_s=now() - start, late_s=late_s)


class _Replay:
    def __init__(self, *, max_in_flight: int, on_sent: Callable[[Outgoing], None] | None) -> None:
        self.max_in_flight = max_in_flight
        self.slots = asyncio.Semaphore(max_in_flight)
        self.n_sent = 0
        self.n_too_large = 0
        self._on_sent = on_sent
        self._failure: BaseException | None = None

    async def send(self, producer: Producer, topic: str, record: Outgoing) -> None:
        try:
            delivery = await producer.send(topic, value=record.value, key=record.key, headers=record.headers)
        except MessageSizeTooLargeError:
            self.n_too_large += 1
            self.slots.release()
        except (KafkaError, OSError) as error:
            raise BrokerUnavailable(f"cannot send to {topic}: {error!r}") from error
        else:
            delivery.add_done_callback(partial(self.delivered, record))

    def delivered(self, record: Outgoing, delivery: asyncio.Future[object]) -> None:
        self.slots.release()
        error = asyncio.CancelledError() if delivery.cancelled() else delivery.exception()
        if isinstance(error, MessageSizeTooLargeError):
            self.n_too_large += 1
        elif error is not None:
            self._failure = self._failure or error
        else:
            self.n_sent += 1
            if self._on_sent is not None:
                self._on_sent(record)

    def check(self, topic: str) -> None:
        if self._failure is not None:
            raise BrokerUnavailable(f"a delivery to {topic} failed: {self._failure!r}") from self._failure


class _Keyed(msgspec.Struct):
    id: str


def _jsonl(file: Path, counts: FeedCounts) -> Iterator[Outgoing]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines):
            value = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 0 else line.strip()
            if not value:
                continue
            try:
                key = msgspec.json.decode(value, type=_Keyed).id.encode() or None
            except UNDECODABLE:
                key = None  # sent all the same: what becomes of it is the pipeline's to say
            counts.n_posts += 1
            yield _record(key, value)


def _posts(
    rows: Sequence[dict[str, str]],
    file: Path,
    images_dir: Path,
    source: str | None,
    max_image_bytes: int,
    counts: FeedCounts,
) -> Iterator[Outgoing]:
    if source is None:
        source = "crisismmd" if rows and {"tweet_id", "image_id"} <= set(rows[0]) else file.stem[:64]
    for post_id, row in zip(_unique_ids(rows), rows, strict=True):
        images, missing = [], None
        if row.get("image"):
            try:
                image = Image(path=_below(images_dir, row["image"]))
                data = load_image(image, folder=images_dir, max_bytes=max_image_bytes)
                images.append(Image(data=data))
            except ImageUnavailable as error:
                missing = error.reason
        text = next((row[name] for name in _TEXT_COLUMNS if name in row), "")
        if not text.strip() and not images:
            counts.n_empty += 1
            continue
        if missing is not None:
            counts.images_left_out[missing] += 1
        counts.n_posts += 1
        post = Post(id=post_id, text=text, images=images, source=source)
        yield _record(post_id.encode(), encode(post))


def _below(folder: Path, path: str) -> str:
    """Return the path without the folder's own name, which is how data sets are often unpacked."""
    first, _, rest = path.partition("/")
    return rest if rest and first == folder.name and not (folder / first).exists() else path


def _unique_ids(rows: Sequence[dict[str, str]]) -> Iterator[str]:
    """Yield an id for each row, the same in every replay of the file.

    The post's or tweet's own id, if no two rows share one; else the image's, likewise; else the former,
    with `#2`, `#3` and so on from its second row on.
    """
    columns = [[row[name] for row in rows] for name in _ID_COLUMNS if rows and name in rows[0]]
    for ids in columns:
        if len(set(ids)) == len(ids):
            yield from ids
            return
    seen: Counter[str] = Counter()
    for post_id in columns[0] if columns else ():
        seen[post_id] += 1
        yield post_id if seen[post_id] == 1 else f"{post_id}#{seen[post_id]}"


def _record(key: bytes | None, value: bytes) -> Outgoing:
    return Outgoing(key=key, value=value, headers=[("content-type", JSON.encode())])
