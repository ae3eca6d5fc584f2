"""A run that leaves too little in Redis is found out."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from redis.asyncio import Redis

from deploy.embedded import EmbeddedServices
from stream.cache import ALL, connect_cache
from tests.bench.stored import NotStored, check_stored
from tests.bench.work import LABEL, TTL_MS
from tests.stream.findings import entries, finding

pytestmark = pytest.mark.integration

N = 5


@pytest.mark.parametrize(
    ("lost", "complaint"),
    [
        ((), None),
        (("finding:p3",), "4 findings"),
        ((f"latest:{LABEL}",), "names 0 findings"),
        ((f"latest:{ALL}",), "names 0 findings"),
    ],
    ids=["all there", "a finding", "the index of the class", "the index of all"],
)
async def test_what_is_missing_is_named(
    services: EmbeddedServices, lost: tuple[str, ...], complaint: str | None
) -> None:
    prefix = f"test-{secrets.token_hex(4)}."
    cache = connect_cache(services.redis, prefix=prefix, ttl_s=TTL_MS / 1000, latest_per_class=1_000)
    await cache.store(entries(*[finding(number, label=LABEL) for number in range(N)]))
    redis: Any = Redis.from_url(services.redis)
    for name in lost:
        await redis.delete(prefix + name)
    if complaint is None:
        await check_stored(services.redis, prefix, N)
    else:
        with pytest.raises(NotStored, match=complaint):
            await check_stored(services.redis, prefix, N)
    await redis.aclose()
    await cache.close()
