"""The circuit breaker, on a clock of its own."""

from __future__ import annotations

import asyncio

import pytest

from stream.breaker import CircuitBreaker, CircuitOpen


class Service:
    """Fails while it is told to, and counts who asked."""

    def __init__(self) -> None:
        self.down = False
        self.n_calls = 0
        self.now_s = 100.0
        self.breaker = CircuitBreaker(failures=(OSError,), n_failures=2, pause_s=1.0, clock=lambda: self.now_s)

    async def ask(self) -> str:
        self.n_calls += 1
        if self.down:
            raise ConnectionError("down")
        return "answer"

    async def fail(self, n_times: int) -> None:
        self.down = True
        for _ in range(n_times):
            with pytest.raises(ConnectionError):
                await self.breaker.call(self.ask)


@pytest.fixture
async def service() -> Service:
    """A service whose breaker is closed."""
    service = Service()
    assert service.breaker.state == "half_open"
    assert await service.breaker.call(service.ask) == "answer"
    assert service.breaker.state == "closed"
    return service


async def test_failures_in_a_row_open_it_and_nobody_asks(service: Service) -> None:
    await service.fail(1)
    service.down = False
    await service.breaker.call(service.ask)
    await service.fail(1)
    assert service.breaker.state == "closed"  # not two in a row
    await service.fail(1)
    n_calls = service.n_calls
    with pytest.raises(CircuitOpen):
        await service.breaker.call(service.ask)
    assert (service.breaker.state, service.n_calls) == ("open", n_calls)


async def test_one_failing_probe_opens_it_again(service: Service) -> None:
    await service.fail(2)
    service.now_s += 1.0
    assert service.breaker.state == "half_open"
    await service.fail(1)
    assert service.breaker.state == "open"
    service.now_s += 0.9
    assert service.breaker.state == "open"


async def test_one_succeeding_probe_closes_it(service: Service) -> None:
    await service.fail(2)
    service.now_s += 1.0
    service.down = False
    await service.breaker.call(service.ask)
    assert service.breaker.state == "closed"
    await service.fail(1)
    assert service.breaker.state == "closed"  # failures before it opened are forgotten


async def test_only_one_call_probes(service: Service) -> None:
    await service.fail(2)
    service.now_s += 1.0
    release = asyncio.Event()
    probe = asyncio.create_task(service.breaker.call(release.wait))
    await asyncio.sleep(0)
    with pytest.raises(CircuitOpen):
        await service.breaker.call(service.ask)
    release.set()
    assert await probe
    assert service.breaker.state == "closed"


async def test_cancelled_probe_leaves_room_for_the_next(service: Service) -> None:
    await service.fail(2)
    service.now_s += 1.0
    probe = asyncio.create_task(service.breaker.call(asyncio.Event().wait))
    await asyncio.sleep(0)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    service.down = False
    assert await service.breaker.call(service.ask) == "answer"


async def test_success_of_a_call_from_before_it_opened_does_not_close_it(service: Service) -> None:
    release = asyncio.Event()
    slow = asyncio.create_task(service.breaker.call(release.wait))
    await asyncio.sleep(0)
    await service.fail(2)
    release.set()
    assert await slow
    assert service.breaker.state == "open"


async def test_other_errors_do_not_count(service: Service) -> None:
    async def defect() -> None:
        raise ValueError("ours")

    for _ in range(3):
        with pytest.raises(ValueError, match="ours"):
            await service.breaker.call(defect)
    assert service.breaker.state == "closed"
