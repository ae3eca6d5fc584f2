"""Posts from files: every row comes through once, under an id of its own, and broken tables say where."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError

from stream.errors import BrokerUnavailable
from stream.feeds import FeedCounts, FeedError, read_feed, replay
from stream.headers import Headers
from stream.outbox import Outgoing
from stream.records import Post, decode_post
from tests.stream.pictures import halves, saved

PICTURE = saved(halves(), "PNG")
CRISISMMD = "event_name\ttweet_id\timage_id\ttweet_text\timage\tlabel\n"
STREAM = "post_id\timage_id\timage\ttext\n"


def posts(file: Path, counts: FeedCounts | None = None, images_dir: Path | None = None) -> list[Post]:
    read = []
    for record in read_feed(file, counts=counts, images_dir=images_dir):
        assert record.headers == [("content-type", b"application/json")]
        post = decode_post(record.value, max_bytes=1_000_000)
        assert record.key == post.id.encode()
        read.append(post)
    return read


def table(folder: Path, text: str | bytes, name: str = "feed.tsv") -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


# -- JSON lines


def test_jsonl_lines_are_sent_as_they_are(tmp_path: Path) -> None:
    lines = [b'{"id": "p-1", "text": "a", "later": 1}', b'{ "text":"b","id" : "\xc3\xa9" }']
    file = table(tmp_path, b"\n".join([b"\xef\xbb\xbf" + lines[0], b"", b"  ", lines[1]]), "feed.jsonl")
    records = list(read_feed(file))
    assert [record.value for record in records] == lines
    assert [record.key for record in records] == [b"p-1", "é".encode()]


@pytest.mark.parametrize(
    "line",
    [b"not json", b"[]", b'{"id": 7}', b'{"id": "a\xff"}', b'{"id": "\\ud800"}', b'{"text": "a"}', b"[" * 9_999, b"{}"],
)
def test_broken_jsonl_line_is_sent_without_a_key(tmp_path: Path, line: bytes) -> None:
    """The pipeline makes a dead letter of it; a feed that dropped it would hide it."""
    counts = FeedCounts()
    file = table(tmp_path, line + b'\r\n{"id": "p-1", "text": "a"}\r\n', "feed.ndjson")
    broken, sound = read_feed(file, counts=counts)
    assert (broken.key, broken.value) == (None, line)
    assert (sound.key, sound.value) == (b"p-1", b'{"id": "p-1", "text": "a"}')
    assert counts.n_posts == 2


# -- tables


def test_official_split_becomes_posts(tmp_path: Path) -> None:
    row = "california_wildfires\t9177\t9177_0\tHouses burn — 50 gone\tdata_image/a.png\tinformative\n"
    (tmp_path / "data_image").mkdir()
    (tmp_path / "data_image" / "a.png").write_bytes(PICTURE)
    (post,) = posts(table(tmp_path, CRISISMMD + row))
    assert (post.id, post.text, post.source) == ("9177", "Houses burn — 50 gone", "crisismmd")
    assert [image.data for image in post.images] == [PICTURE]


def test_verification_stream_becomes_posts(tmp_path: Path) -> None:
    (post,) = posts(table(tmp_path, STREAM + "1\ti_1\timages/a.jpg\ta flood\n", "boston.tsv"))
    assert (post.id, post.text, post.source, post.images) == ("1", "a flood", "boston", [])


def test_tweet_of_two_images_becomes_two_posts_named_by_image(tmp_path: Path) -> None:
    rows = "e\t7\t7_0\ta\tx.png\tl\ne\t7\t7_1\ta\ty.png\tl\ne\t8\t8_0\tb\tz.png\tl\n"
    assert [post.id for post in posts(table(tmp_path, CRISISMMD + rows))] == ["7_0", "7_1", "8_0"]


def test_rows_that_share_every_id_are_numbered(tmp_path: Path) -> None:
    rows = "1\ti\tx.png\ta\n2\ti\tx.png\tb\n1\ti\tx.png\tc\n1\tj\ty.png\td\n"
    assert [post.id for post in posts(table(tmp_path, STREAM + rows))] == ["1", "2", "1#2", "1#3"]


def test_missing_image_leaves_the_text_and_is_counted(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(bytes(2_000_000))
    rows = "1\ta\tnone.png\tone\n2\tb\t../../x.png\ttwo\n3\tc\t\tthree\n4\td\tnone.png\t\n5\te\tlarge.png\tfive\n"
    counts = FeedCounts()
    read = posts(table(tmp_path, STREAM + rows), counts)
    assert [(post.text, post.images) for post in read] == [("one", []), ("two", []), ("three", []), ("five", [])]
    assert counts.images_left_out == {"not_found": 1, "not_allowed": 1, "too_many_bytes": 1}
    assert (counts.n_posts, counts.n_empty) == (4, 1)


@pytest.mark.parametrize("path", ["a.png", "elsewhere/a.png"])
def test_images_are_looked_for_in_the_given_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_bytes(PICTURE)
    file = table(tmp_path, f"image_id\timage\na\t{path}\n")
    (post,) = posts(file, images_dir=tmp_path / "elsewhere")
    assert (post.id, post.text, post.images[0].data) == ("a", "", PICTURE)


@pytest.mark.parametrize(
    "text",
    [
        '"Flood" is the biggest',
        'say "this"',
        '"unclosed',
        'he said ""WALL" #Harvey',
        '"',
        "a\\nb",
        "a\u2028b\x0bc\x85d",
    ],
)
def test_quotes_are_the_texts_own_where_the_file_is_not_quoted(tmp_path: Path, text: str) -> None:
    rows = f'1\ti\tx.png\t"a" b\n2\tj\ty.png\t{text}\n3\tk\tz.png\tend"\n'
    assert [post.text for post in posts(table(tmp_path, STREAM + rows))] == ['"a" b', text, 'end"']


def test_quotes_of_a_file_quoted_as_csv_are_taken_off(tmp_path: Path) -> None:
    rows = '1\ti\tx.png\t"a ""flood"" here"\n2\tj\ty.png\tplain\n3\tk\tz.png\t"two\nlines"\n'
    assert [post.text for post in posts(table(tmp_path, STREAM + rows))] == ['a "flood" here', "plain", "two\nlines"]


def test_stray_quotes_do_not_swallow_the_rows_between(tmp_path: Path) -> None:
    rows = '1\ti\tx.png\t"a\n2\tj\ty.png\tb\n3\tk\tz.png\tc"\n'
    assert [post.text for post in posts(table(tmp_path, STREAM + rows))] == ['"a', "b", 'c"']


def test_windows_line_ends_and_byte_order_mark_are_no_text(tmp_path: Path) -> None:
    (post,) = posts(table(tmp_path, b"\xef\xbb\xbfPost_ID\tText\r\n1\ta\r\n\r\n"))
    assert (post.id, post.text) == ("1", "a")


def test_header_alone_is_a_feed_without_posts(tmp_path: Path) -> None:
    assert posts(table(tmp_path, STREAM)) == []


@pytest.mark.parametrize(
    ("content", "where"),
    [
        pytest.param(b"", "line 1: no column post_id or tweet_id or image_id", id="empty"),
        pytest.param(b"a,b\n1,2\n", "line 1: no column post_id", id="comma-separated"),
        pytest.param(b"post_id\tlabel\n1\tx\n", "line 1: no column text or tweet_text or image", id="no content"),
        pytest.param(b"post_id\ttext\n1\ta\n2\tb\tc\n", "line 3: 3 columns where the header has 2", id="tab in text"),
        pytest.param(b"post_id\ttext\n1\ta\nb\n", "line 3: 1 columns where the header has 2", id="line break in text"),
        pytest.param(b"post_id\ttext\n1\ta\n\xff\tb\n", "line 3: .*not UTF-8", id="not UTF-8"),
        pytest.param(b"post_id\ttext\n1\ta\n \tb\n", "line 3: column post_id is empty", id="no id"),
    ],
)
def test_broken_table_is_refused_where_it_breaks(tmp_path: Path, content: bytes, where: str) -> None:
    with pytest.raises(FeedError, match=where) as error:
        list(read_feed(table(tmp_path, content)))
    assert "feed.tsv" in str(error.value)


@pytest.mark.parametrize("name", ["feed.csv", "feed", "missing.tsv"])
def test_file_that_is_no_feed_is_refused(tmp_path: Path, name: str) -> None:
    if name != "missing.tsv":
        table(tmp_path, STREAM, name)
    with pytest.raises(FeedError, match=name):
        read_feed(tmp_path / name)


def test_folder_of_images_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="nowhere"):
        read_feed(table(tmp_path, STREAM), images_dir=tmp_path / "nowhere")


def test_row_that_is_left_out_counts_once(tmp_path: Path) -> None:
    counts = FeedCounts()
    rows = b"post_id\ttext\timage\n1\ta\tmissing.jpg\n2\t \tmissing.jpg\n"
    assert len(list(read_feed(table(tmp_path, rows), counts=counts))) == 1
    assert (counts.n_posts, counts.n_empty, counts.images_left_out.total()) == (1, 1, 1)


# -- replay


class Broker:
    """A producer that confirms after `delay_s`, and fails for the values it is told."""

    def __init__(self, *, delay_s: float = 0.0, failures: dict[bytes, Exception] | None = None) -> None:
        self.delay_s = delay_s
        self.failures = failures or {}
        self.sent: list[tuple[float, bytes | None, bytes | None]] = []
        self.most_in_flight = 0
        self.n_in_flight = 0

    async def send(
        self, topic: str, value: bytes | None = None, key: bytes | None = None, *, headers: Headers
    ) -> asyncio.Future[object]:
        assert topic == "posts" and value is not None
        if isinstance(self.failures.get(value), MessageSizeTooLargeError):
            raise self.failures[value]
        loop = asyncio.get_running_loop()
        self.sent.append((loop.time(), key, value))
        self.n_in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.n_in_flight)
        delivery: asyncio.Future[object] = loop.create_future()
        loop.call_later(self.delay_s, self._deliver, delivery, self.failures.get(value))
        return delivery

    def _deliver(self, delivery: asyncio.Future[object], failure: Exception | None) -> None:
        self.n_in_flight -= 1
        if failure is None:
            delivery.set_result(None)
        else:
            delivery.set_exception(failure)


def records(n: int) -> list[Outgoing]:
    return [Outgoing(key=b"k%d" % number, value=b"%d" % number) for number in range(n)]


async def test_replay_sends_in_order_and_waits_for_every_delivery() -> None:
    broker, confirmed = Broker(delay_s=0.05), list[Outgoing]()
    counts = await replay(broker, "posts", records(50), on_sent=confirmed.append)
    assert [(key, value) for _, key, value in broker.sent] == [(one.key, one.value) for one in records(50)]
    assert confirmed == records(50)
    assert (counts.n_sent, counts.n_too_large, broker.n_in_flight) == (50, 0, 0)


async def test_replay_keeps_its_rate_whatever_the_broker_does() -> None:
    broker = Broker(delay_s=0.2)
    counts = await replay(broker, "posts", records(41), rate_per_s=200)
    sent_s = broker.sent[-1][0] - broker.sent[0][0]
    assert 0.19 <= sent_s < 0.6
    assert counts.elapsed_s >= sent_s + 0.19
    assert counts.late_s < 0.4


async def test_replay_bounds_the_deliveries_in_flight() -> None:
    broker = Broker(delay_s=0.01)
    counts = await replay(broker, "posts", records(40), max_in_flight=4)
    assert (counts.n_sent, broker.most_in_flight) == (40, 4)


async def test_replay_tells_how_late_it_was() -> None:
    broker = Broker(delay_s=0.1)
    counts = await replay(broker, "posts", records(5), rate_per_s=1_000, max_in_flight=1)
    assert 0.3 <= counts.late_s < 1


async def test_record_that_is_too_large_is_counted_and_the_rest_sent() -> None:
    broker = Broker(failures={b"1": MessageSizeTooLargeError("too large")})
    counts = await replay(broker, "posts", records(3), max_in_flight=1)
    assert (counts.n_sent, counts.n_too_large) == (2, 1)


@pytest.mark.parametrize("n", [3, 200])
async def test_failed_delivery_ends_the_replay(n: int) -> None:
    broker = Broker(failures={b"2": KafkaTimeoutError()})
    with pytest.raises(BrokerUnavailable, match="posts"):
        await replay(broker, "posts", records(n), max_in_flight=2)
    assert len(broker.sent) < 10


@pytest.mark.parametrize("max_in_flight", [2, 100])
async def test_broker_that_confirms_nothing_more_ends_the_replay(max_in_flight: int) -> None:
    """In mid-feed, where there is no room for more in flight, and at its end."""
    with pytest.raises(BrokerUnavailable, match=r"posts confirmed nothing for 0\.05 s; 0 were confirmed before"):
        await replay(Broker(delay_s=60.0), "posts", records(4), max_in_flight=max_in_flight, stall_s=0.05)


async def test_empty_replay_sends_nothing() -> None:
    counts = await replay(Broker(), "posts", [], rate_per_s=1.0)
    assert (counts.n_sent, counts.late_s) == (0, 0)
