"""Faults of connections: answers that are lost, connections that are cut, and those that go silent.

The workers here reach the database through a proxy; those who enqueue, unless a test says otherwise, do not.
"""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from litestar_jobs.errors import EnqueueError, EnqueueUncertain
from litestar_jobs.testing import until

from .app import Work, failing, plain, transacted
from .conftest import World
from .load import Load, loading
from .oracle import judge, nobody_left, settled
from .proxy import CLAIM, COMMIT, COMPLETE, ENQUEUE, PROMOTE, RENEW, SETTLE, Proxy

KINDS = {"claim": CLAIM, "finish": COMPLETE, "settle": SETTLE, "chores and listening": PROMOTE, "heartbeat": RENEW}


@pytest.mark.parametrize("cut", [True, False], ids=["cut", "silent"])
async def test_what_was_committed_and_never_acknowledged_is_neither_lost_nor_repeated(world: World, cut: bool) -> None:
    """The answer to a claim, to a finish, to a settlement and to a session's commit is lost, while the worker and its
    lease live on: jobs claimed without an answer go back uncounted, and an end that was written is not refused."""
    worker = await world.fleet.start()
    for words in (CLAIM, COMPLETE, COMMIT, SETTLE):
        trap = world.proxy.swallow(words, cut=cut)
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
    assert found.counts["jobs completed"] == 40
    assert found.counts["failures"] == found.counts["failure ConnectionError"] == 20
    assert found.counts["handed_back"] >= 1
