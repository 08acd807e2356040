"""Faults of connections: answers that are lost, connections that are cut, and those that go silent.

The workers here reach the database through a proxy; those who enqueue, unless a test says otherwise, do not.
"""

import asyncio
from functools import partial

import asyncpg
import pytest

from litestar_jobs import enqueue
from litestar_jobs.errors import EnqueueUncertain
from litestar_jobs.testing import until

from .app import Work, failing, plain, transacted
from .conftest import World
from .load import loading
from .oracle import settled
from .proxy import CLAIM, COMMIT, COMPLETE, ENQUEUE, HAND_BACK, PROMOTE, RENEW, SETTLE, Wire

WORKERS = (CLAIM, SETTLE, PROMOTE, RENEW)
"""The connections of a worker, each by a statement that goes over no other: jobs are completed by sessions as well."""


@pytest.mark.parametrize("then", ["cut", "silent"])
async def test_what_was_committed_and_never_acknowledged_is_neither_lost_nor_repeated(world: World, then: str) -> None:
    """The answer to a claim, to a finish, to a session's commit and to a settlement is lost, while the worker and its
    lease live on: jobs claimed without an answer go back uncounted, and an end that was written is not refused."""
    worker = await world.fleet.start()
    await world.load.put(plain(Work()))
    await settled(world.dsn)  # the first claims of a worker find nothing
    for words in (CLAIM, COMPLETE, COMMIT, SETTLE):
        trap = world.proxy.swallow(words, cut=then == "cut")
        for _ in range(5):
            await world.load.put(plain(Work()))
            await world.load.put(transacted(Work()))
            await world.load.put(failing())
        async with asyncio.timeout(10):
            await trap.sprung.wait()
        await settled(world.dsn, 20)
    assert worker.code is None
    found = await world.judged()
    assert world.events.of("OutcomeRefused", "LeaseEnded", "JobRescued") == []
    assert found.counts["jobs completed"] == 41
    assert found.counts["failures"] == found.counts["failure ConnectionError"] == 20
    assert found.counts["handed_back"] >= 1


async def test_a_claim_that_the_server_ends_long_after_its_connection_broke_is_handed_back_too(world: World) -> None:
    """The claim waits for a lock when its connection breaks, so the first look finds nothing to hand back."""
    await world.fleet.start()
    await world.load.put(plain(Work()))
    await settled(world.dsn)
    blocker = await asyncpg.connect(world.dsn)
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE claimed")  # which a trigger writes on every claim
        await world.load.put(plain(Work()))

        async def waits() -> bool:
            waiting = "SELECT FROM pg_stat_activity WHERE query LIKE $1 || '%' AND wait_event_type = 'Lock'"
            return bool(await blocker.fetch(waiting, CLAIM))

        await until(waits, 10, "no claim waits for the lock")
        world.proxy.cut(CLAIM)
        await until(lambda: asyncio.sleep(0, world.proxy.carrying(HAND_BACK)), 10, "nobody looks for what was claimed")
    await blocker.close()
    await settled(world.dsn, 20)
    found = await world.judged()
    assert (found.counts["jobs completed"], found.counts["handed_back"], found.counts["failures"]) == (2, 1, 0)


async def test_each_connection_that_is_cut_or_terminated_is_replaced(world: World) -> None:
    """Again and again, under load: each kind by the network, then by ``pg_terminate_backend``."""
    await world.fleet.start_all(2)
    world.load.begin(4, lambda n: (plain, transacted)[n % 2](Work(0.01)))
    admin = await asyncpg.connect(world.server.dsn())
    for _ in range(2):
        for words in (*WORKERS, COMPLETE, COMMIT, ENQUEUE):
            await world.busy(20)
            world.proxy.cut(words)
            await world.busy(20)
            await admin.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND query LIKE $2 || '%'",
                world.dsn.rpartition("/")[2],
                words,
            )
    await admin.close()
    await world.judged()
    assert world.events.of("LeaseEnded", "JobRescued") == []


async def replaced(world: World, wire: Wire, words: str) -> bool:
    return wire not in world.proxy.wires and bool(world.proxy.carrying(words))


async def test_a_connection_gone_silent_is_noticed_within_a_lease_and_replaced(world: World) -> None:
    """Half-open: nothing is refused, nothing is answered. The connection that listens carries the chores' statements too,
    which is how it checks itself; the heartbeat's is replaced before the lease is lost."""
    await world.fleet.start()
    await world.load.put(failing())  # so that every connection has been used
    await settled(world.dsn)
    for words in WORKERS:
        silent = world.proxy.silence(words)
        assert len(silent) == 1
        await world.events.wait_for_end(await world.load.put(failing()))
        await until(partial(replaced, world, silent[0], words), 15, f"{words} is not replaced")
    await settled(world.dsn)
    await world.judged()
    assert world.events.of("LeaseEnded", "JobRescued", "OutcomeRefused") == []


@pytest.mark.parametrize("then", ["cut", "silent"])
async def test_an_enqueue_whose_answer_is_lost_says_so_and_can_be_asked_again_by_id(
    world: World, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enqueue, "WRITE_TIMEOUT", 2.0)
    async with loading(world.proxy.dsn, world.dsn) as callers:
        trap = world.proxy.swallow(ENQUEUE, cut=then == "cut")
        with pytest.raises(EnqueueUncertain) as raised:
            await callers.put(plain(Work()))
        assert trap.sprung.is_set()
        assert await callers.client.get(raised.value.job_id) is not None
        world.load.committed.add(raised.value.job_id)
        world.load.committed.add(await callers.put(plain(Work())))
    await world.fleet.start()
    found = await world.judged()
    assert found.counts["jobs completed"] == 2
