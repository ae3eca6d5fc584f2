"""Workers that crash, come and go, or stand still past their session."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Any

from tests.chaos.arena import Arena, Row, check, make_row
from tests.chaos.brokers import Emulator
from tests.chaos.field import numbered


async def workers_killed(arena: Arena) -> Row:
    """One of the workers is killed with SIGKILL every few seconds and started again, in mid-flow."""
    return await _workers_killed(arena, exactly_once=False)


async def workers_killed_exactly_once(arena: Arena) -> Row:
    """The same with transactions: whoever reads committed records sees no finding twice."""
    return await _workers_killed(arena, exactly_once=True)


async def workers_come_and_go(arena: Arena) -> Row:
    """Workers join and leave, each a rebalance, while posts flow; one leaves by a crash now and then."""
    n_rebalances, seconds = arena.pick(50, 5), arena.pick(300.0, 10.0)
    per_s = 60.0
    chance = arena.chance("rebalances")
    async with arena.field("rebalances", partitions=arena.pick(12, 4), max_batch=16) as field:
        workers = [field.worker()]
        async with field.flow(int(per_s * seconds), per_s=per_s) as feeding:
            for _ in range(n_rebalances):
                start = time.monotonic()
                if len(workers) > 1 and (len(workers) == 3 or chance.random() < 0.5):
                    leaving = workers.pop(chance.randrange(len(workers)))
                    if chance.random() < 0.2:
                        leaving.kill()
                    else:
                        leaving.terminate()
                        code = await asyncio.to_thread(leaving.wait, 30)
                        unborn = code == -signal.SIGTERM and not leaving.log()  # it had not come to handle signals
                        assert code == 0 or unborn, f"exit code {code}\n{leaving.log()}"
                else:
                    workers.append(field.worker(ready=False))
                await asyncio.sleep(max(0.0, seconds / n_rebalances - (time.monotonic() - start)))
            recovery_s = await field.recovery_s()
            n_posts = await feeding
        await field.settled(120)
        assert await field.committed_without_outcome() == 0
        n_assigned = sum(worker.log_file.read_text("utf-8").count("partitions assigned") for worker in field.workers)
        assert n_assigned >= n_rebalances, f"only {n_assigned} assignments"
        ledger = await field.ledger()
    check(ledger, posts=n_posts)
    return make_row(f"{n_rebalances} rebalances", arena.broker.name, ledger, recovery_s=recovery_s, runs=n_rebalances)


async def worker_paused(arena: Arena) -> Row:
    """A worker stands still (SIGSTOP) past its session; another takes over; it wakes and must not commit."""
    n_posts, n_runs = arena.pick(3_000, 500), arena.pick(5, 1)
    recovery_s = 0.0
    async with arena.field("paused", max_in_flight=200, max_batch=16) as field:
        slow = field.worker(classifier="sleep:0.01")
        n_fed = 0
        for run in range(n_runs):
            n_fed += await field.feed(numbered(n_posts, start=run * n_posts))
            await asyncio.sleep(1.0)
            slow.pause()
            before = await field.committed()
            other = field.worker(ready=False, classifier="sleep:0.002")
            await field.settled(90)  # past the session the other has them all
            done = await field.committed()
            assert sum(done.values()) > sum(before.values()), "nothing was in flight when the worker was paused"
            start = time.monotonic()
            slow.resume()
            await asyncio.sleep(arena.pick(5.0, 2.5))
            assert await field.committed() == done, "the woken worker changed what was committed"
            n_fed += await field.feed(numbered(100, start=1_000_000 + run * 100))
            await field.settled(60)
            recovery_s = max(recovery_s, time.monotonic() - start)
            assert slow.is_alive, slow.log()
            other.terminate()
            assert await asyncio.to_thread(other.wait, 30) == 0
        assert await field.committed_without_outcome() == 0
        ledger = await field.ledger()
    check(ledger, posts=n_fed)
    return make_row("worker paused past its session", arena.broker.name, ledger, recovery_s=recovery_s, runs=n_runs)


async def _workers_killed(arena: Arena, *, exactly_once: bool) -> Row:
    n_posts = arena.pick(10_000, 600)
    # the emulator lets a leader that comes back assign anew without telling the others
    n_workers = 1 if isinstance(arena.broker, Emulator) else arena.pick(4, 2)
    n_kills = arena.pick(12, 2)
    chance = arena.chance("killed")
    flags: dict[str, Any] = {"partitions": arena.pick(12, 4), "max_in_flight": 200, "max_batch": 16}
    if exactly_once:
        flags["exactly_once"] = "true"
    async with arena.field("killed", **flags) as field:
        slow = "sleep:0.012"
        workers = [field.worker(classifier=slow, ready=False) for _ in range(n_workers)]
        for worker in workers:
            worker.wait_ready()
        await field.feed(numbered(n_posts))
        recovery_s, n_in_flow = 0.0, 0
        for number in range(n_kills):
            await asyncio.sleep(chance.uniform(1.0, arena.pick(4.0, 1.5)))
            n_in_flow += await field.lag() > 0
            victim = chance.randrange(n_workers)
            workers[victim].kill()
            assert await field.committed_without_outcome() == 0
            workers[victim] = field.worker(classifier=slow, ready=False)  # it takes the name of the one that is gone
            if number == n_kills - 1:
                recovery_s = await field.recovery_s()
        await field.settled(180)
        ledger = await field.ledger()
    check(ledger, posts=n_posts)
    assert ledger.findings == n_posts
    assert n_in_flow >= 1, "no worker was killed in mid-flow"
    assert not exactly_once or not ledger.repeated, f"delivered twice: {ledger.repeated[:5]}"
    fault = f"1 of {n_workers} workers killed, {n_kills} times" if n_workers > 1 else f"worker killed, {n_kills} times"
    fault += ", exactly-once" if exactly_once else ""
    return make_row(fault, arena.broker.name, ledger, recovery_s=recovery_s, runs=n_kills)
