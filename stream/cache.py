"""Findings and alerts in Redis; every key is built here, every write is idempotent."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from msgspec import Struct
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from stream.errors import InvalidAddress, InvalidRecord
from stream.records import Alert, Finding, decode, encode

ALL: Final = "all"
MAX_WRITE: Final = 2_048  # entries for one call: Redis answers long before the time-out, and Lua's stack holds them

_AHEAD_S: Final = 3_600.0  # more than the clocks of two workers differ: what an index has further ahead is wrong

# One call for many, and few words for each: a command of its own, or three words more, for each costs the client more
# than all else that is done for a post. KEYS are the indexes, then where the entries go; their sizes and ranks are one
# word, their values another. With `aged_at`, a time in seconds, each entry is kept for what is then left of `ttl`.
_STORE: Final = """
local ttl, n_indexes, n_before_id, n_kept, ahead, aged_at, ranks, values = unpack(ARGV)
local ranked, at, i, left = {}, 1, tonumber(n_indexes), ttl
for size, rank in string.gmatch(ranks, '(%d+) (%S+)') do
  i = i + 1
  if aged_at ~= '' then
    left = math.max(1, math.floor(ttl - (aged_at - rank) * 1000))
  end
  redis.call('SET', KEYS[i], string.sub(values, at, at + size - 1), 'PX', left)
  at = at + size
  ranked[#ranked + 1] = rank
  ranked[#ranked + 1] = string.sub(KEYS[i], n_before_id + 1)
end
for index = 1, tonumber(n_indexes) do
  redis.call('ZADD', KEYS[index], unpack(ranked))
  redis.call('ZREMRANGEBYSCORE', KEYS[index], ahead, '+inf')
  redis.call('ZREMRANGEBYRANK', KEYS[index], 0, -n_kept - 1)
  redis.call('PEXPIRE', KEYS[index], ttl)
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The keys under one prefix."""

    prefix: str

    def finding(self, post_id: str) -> str:
        """The finding of a post, as JSON."""
        return f"{self.prefix}finding:{post_id}"

    def latest(self, label: str) -> str:
        """Post ids of one class (or `all`), a sorted set by the time of acceptance, at most of storing, in seconds."""
        return f"{self.prefix}latest:{label}"

    def alert(self, alert_id: str) -> str:
        """An alert, as JSON."""
        return f"{self.prefix}alert:{alert_id}"

    def latest_alerts(self) -> str:
        """Alert ids, a sorted set by the time they were raised, at most stored, in seconds."""
        return f"{self.prefix}latest-alerts"

    def whole(self) -> str:
        """Set once the cache holds what the findings topic holds; gone when Redis lost its data."""
        return f"{self.prefix}cache-whole"


class Entry(Struct, frozen=True, kw_only=True, gc=False):
    """A finding or an alert as it is kept: its JSON, and what its indexes need."""

    id: bytes  # the finding's post, or the alert's own
    label: str | None  # the finding's class; None: an alert
    time_s: float  # when its post was accepted, or the alert raised
    value: bytes


def entry_of(record: Finding | Alert, value: bytes | None = None) -> Entry:
    """Return the record's entry; `value` is its JSON, for those who have it."""
    value = value or encode(record)
    if isinstance(record, Alert):
        return Entry(id=record.id.encode(), label=None, time_s=record.raised_at.timestamp(), value=value)
    return Entry(id=record.post_id.encode(), label=record.label, time_s=record.accepted_at.timestamp(), value=value)


class FindingCache:
    """Reads and writes of findings; raises redis' own errors, callers decide what an outage means."""

    def __init__(self, redis: Redis, *, prefix: str, ttl_s: float, latest_per_class: int) -> None:
        self._redis: Any = redis  # its types cover text and bytes answers alike; ours are bytes
        self._keys = Keys(prefix=prefix)
        self._to_finding, self._to_alert = self._keys.finding("").encode(), self._keys.alert("").encode()
        self._ttl_ms = int(ttl_s * 1000)
        self._latest_per_class = latest_per_class

    async def store(self, entries: Sequence[Entry]) -> None:
        """Write the entries and their indexes in one pipeline; the same one twice changes nothing."""
        await self._store(entries)

    async def restore(self, entries: Sequence[Entry]) -> list[Entry]:
        """Write those again that would not be forgotten by now, each for what is left of its time; return them."""
        lasting = self._lasting(entries)
        await self._store(lasting, aged=True)
        return lasting

    async def lacking(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return those that are not here, nor would be forgotten by now, nor are older than what is here."""
        wanted = self._lasting(entries)
        if not wanted:
            return []
        here = await self._redis.mget([self._key(one) for one in wanted])
        return [one for one, value in zip(wanted, here, strict=True) if value is None or _is_newer(one, value)]

    async def get(self, post_id: str) -> Finding | None:
        """Return the finding of a post, or None."""
        value = await self._redis.get(self._keys.finding(post_id))
        return None if value is None else decode(value, Finding)

    async def get_raw(self, post_ids: Sequence[str]) -> list[bytes | None]:
        """Return the findings of the posts as they are stored, None where there is none."""
        values: list[Any] = await self._redis.mget([self._to_finding + post_id.encode() for post_id in post_ids])
        return values

    async def latest(self, label: str | None = None, n: int = 20) -> list[Finding]:
        """Return the newest findings of a class (None: of all), newest first.

        A post that got another class since, from another model or mode, may still be in the index of its first.
        """
        found: list[Finding] = []
        start = 0
        while len(found) < n:
            post_ids = await self._redis.zrevrange(self._keys.latest(label or ALL), start, start + n - 1)
            if not post_ids:
                break
            start += len(post_ids)
            values = await self.get_raw([post_id.decode() for post_id in post_ids])
            findings = [decode(value, Finding) for value in values if value is not None]
            found += [one for one in findings if label in (None, one.label)]
        return found[:n]

    async def latest_alerts(self, n: int = 20) -> list[Alert]:
        """Return the newest alerts, newest first."""
        alert_ids = await self._redis.zrevrange(self._keys.latest_alerts(), 0, n - 1)
        if not alert_ids:
            return []
        values = await self._redis.mget([self._keys.alert(alert_id.decode()) for alert_id in alert_ids])
        return [decode(value, Alert) for value in values if value is not None]

    async def is_whole(self) -> bool:
        """Whether the mark is there that the cache was filled from the findings topic."""
        return bool(await self._redis.exists(self._keys.whole()))

    async def mark_whole(self) -> None:
        """Leave the mark that the cache is whole."""
        await self._redis.set(self._keys.whole(), b"1")

    async def mark_incomplete(self) -> None:
        """Take the mark away: whoever sees that first fills the cache."""
        await self._redis.delete(self._keys.whole())

    async def ping(self) -> None:
        """Raise redis' error when the server does not answer."""
        await self._redis.ping()

    async def reconnect(self) -> None:
        """Ping over a new connection: one that is kept may lead to a server that is a replica by now."""
        await self._redis.connection_pool.disconnect(inuse_connections=False)
        await self.ping()

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _store(self, entries: Sequence[Entry], *, aged: bool = False) -> None:
        if not entries:
            return
        by_key = {self._key(one): one for one in entries}  # of two for one key the later
        by_label: defaultdict[str | None, dict[bytes, Entry]] = defaultdict(dict)
        for key, one in by_key.items():
            by_label[one.label][key] = one
        async with self._redis.pipeline(transaction=False) as pipe:
            for label, some in by_label.items():
                self._store_some(pipe, label, some, aged=aged)
            await pipe.execute()

    def _lasting(self, entries: Sequence[Entry]) -> list[Entry]:
        oldest_s = time.time() - self._ttl_ms / 1000
        return [one for one in entries if one.time_s > oldest_s]

    def _store_some(self, pipe: Any, label: str | None, some: dict[bytes, Entry], *, aged: bool) -> None:
        """Add the writing of entries of one label, by their keys, to the pipeline."""
        before_id, indexes = self._to_finding, [self._keys.latest(str(label)), self._keys.latest(ALL)]
        if label is None:
            before_id, indexes = self._to_alert, [self._keys.latest_alerts()]
        now_s = time.time()  # no entry ranks after it: one from a clock that is ahead would hide all that come later
        sizes_and_times = chain.from_iterable([(len(one.value), min(one.time_s, now_s)) for one in some.values()])
        ranks = (b"%d %.3f " * len(some)) % tuple(sizes_and_times)  # to the digit that Kafka's times have
        limits = self._ttl_ms, len(indexes), len(before_id), self._latest_per_class
        times = now_s + _AHEAD_S, now_s if aged else b""
        values = b"".join([one.value for one in some.values()])
        pipe.eval(_STORE, len(indexes) + len(some), *indexes, *some, *limits, *times, ranks, values)

    def _key(self, entry: Entry) -> bytes:
        return (self._to_alert if entry.label is None else self._to_finding) + entry.id


def _is_newer(entry: Entry, value: bytes) -> bool:
    """Whether a finding was made after the one that is kept of its post, or that one cannot be read."""
    if entry.label is None or value == entry.value:
        return False
    try:
        return decode(value, Finding).classified_at < decode(entry.value, Finding).classified_at
    except InvalidRecord:
        return True


class _QuickPacking:
    """Packs thousands of words in a fraction of the time that redis-py takes, and hiredis where they are long."""

    def pack_command(self, *args: Any) -> list[bytes]:
        words = [*str(args[0]).split(), *args[1:]]
        data = [word if type(word) is bytes else str(word).encode() for word in words]
        parts = chain.from_iterable(zip(map(len, data), data, strict=True))
        return [(b"*%d\r\n" + b"$%d\r\n%b\r\n" * len(data)) % (len(data), *parts)]


def connect_cache(
    url: str, *, prefix: str, ttl_s: float, latest_per_class: int, timeout_s: float = 2.0
) -> FindingCache:
    """Return a cache on the Redis at `url`; connects at the first call.

    A call fails after one attempt: whether and when to try again is its caller's to say.

    Raises:
        InvalidAddress: the URL has an option that the client does not know.
    """
    once = Retry(NoBackoff(), 0)
    try:
        pool: Any = ConnectionPool.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=once)
        pool.make_connection()  # else told by the first call
    except (TypeError, ValueError) as error:
        raise InvalidAddress(f"{url!r} is no Redis URL that can be used: {error}: leave that option out") from error
    pool.connection_class = type("Connection", (_QuickPacking, pool.connection_class), {})
    redis = Redis.from_pool(pool)
    return FindingCache(redis, prefix=prefix, ttl_s=ttl_s, latest_per_class=latest_per_class)
