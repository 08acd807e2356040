"""Limits and rates, with workers: no more at once, no more in a time, in order, each key in its turn.

What the statements promise, whatever moves, is in ``tests/test_limit_moves.py``.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

from msgspec import Struct

from limited import INSTRUMENT, Connection, most_at_once, starts, too_close
from litestar_jobs import (
    Fixed,
    Job,
    JobContext,
    JobsClient,
    JobStatus,
    Limit,
    Rate,
    job,
)
from litestar_jobs.testing import drained, ended, until
from test_worker import Gate, worker


class Order(Struct):
    customer: str
    number: int = 0


@asynccontextmanager
async def workers(count: int, dsn: str, jobs: Sequence[Job[Any, Any]], **settings: Any) -> AsyncIterator[JobsClient]:
    """So many workers, each with connections of its own; they find jobs only by being told of them."""
    async with AsyncExitStack() as stack:
        plugins = [await stack.enter_async_context(worker(dsn, jobs, **settings)) for _ in range(count)]
        yield plugins[0].client


# At once.


async def test_no_more_run_at_once_than_the_limit_says_over_all_workers(dsn: str, connection: Connection) -> None:
    await connection.execute(INSTRUMENT)
    gate = Gate()

    @job(limit=Limit(3))
    async def pull(payload: int) -> None:
        await gate.pass_through()

    async with workers(3, dsn, [pull]) as client:
        await client.enqueue_many([pull(number) for number in range(12)])
        for _ in range(3):
            await gate.entered.acquire()
        gate.open()
        await drained(client)
    assert gate.most_inside == 3
    assert await most_at_once(connection) == {"pull": 3}


async def test_jobs_of_a_key_run_in_order(dsn: str) -> None:
    """Of their priority, then of their time."""
    ran: dict[str, list[int]] = defaultdict(list)

    @job(limit=Limit(1, by="customer"))
    async def bill(payload: Order) -> None:
        ran[payload.customer].append(payload.number)

    async with workers(2, dsn, [bill]) as client:
        late = [bill(Order(customer, 100 + n), priority=5) for n in range(5) for customer in "ab"]
        await client.enqueue_many([*late, *(bill(Order(customer, n)) for n in range(20) for customer in "abc")])
        await drained(client)
    numbers = list(range(20))
    rest = [100, 101, 102, 103, 104]
    first_of_a = ran["a"].index(0)  # whoever came first may have begun before the others were there
    assert first_of_a <= 1
    assert [n for n in ran["a"] if n < 100] == [n for n in ran["b"] if n < 100] == ran["c"] == numbers
    assert [n for n in ran["a"] if n >= 100] == [n for n in ran["b"] if n >= 100] == rest
    assert ran["a"][-4:] == rest[-4:]


async def test_a_key_with_many_jobs_keeps_no_other_waiting(dsn: str) -> None:
    gate = Gate()
    done: list[Order] = []

    @job(limit=Limit(1, by="customer"))
    async def bill(payload: Order) -> None:
        if payload.customer == "big":
            await gate.pass_through()
        done.append(payload)

    async with workers(1, dsn, [bill]) as client:
        await client.enqueue_many([bill(Order("big", n)) for n in range(500)])
        await gate.entered.acquire()
        small = await client.enqueue_many([bill(Order("small", n)) for n in range(20)])
        for job_id in small:
            await ended(client, job_id)
        assert done == [Order("small", n) for n in range(20)]
        gate.open()


async def test_jobs_that_name_a_key_share_it_whatever_their_queue(dsn: str, connection: Connection) -> None:
    await connection.execute(INSTRUMENT)

    @job(queue="emails", limit=Limit(2, key="smtp"))
    async def send(payload: int) -> None:
        await asyncio.sleep(0.01)

    @job(queue="newsletters", limit=Limit(2, key="smtp"))
    async def send_many(payload: int) -> None:
        await asyncio.sleep(0.01)

    async with workers(2, dsn, [send, send_many]) as client:
        await client.enqueue_many([one for n in range(10) for one in (send(n), send_many(n))])
        await drained(client)
    assert await most_at_once(connection) == {"smtp": 2}


async def test_a_job_that_waits_for_its_retry_has_no_slot_and_comes_back_through_the_gate(
    dsn: str, connection: Connection
) -> None:
    await connection.execute(INSTRUMENT)
    order: list[tuple[int, int]] = []

    @job(limit=Limit(1), max_retries=1, retry=Fixed(0.2))
    async def pull(payload: int, job: JobContext) -> None:
        order.append((payload, job.attempt))
        if job.attempt == 1 and payload == 0:
            raise ValueError(payload)

    async with workers(1, dsn, [pull]) as client:
        ids = await client.enqueue_many([pull(number) for number in range(3)])
        for job_id in ids:
            assert (await ended(client, job_id)).status is JobStatus.COMPLETED
    assert order == [(0, 1), (1, 1), (2, 1), (0, 2)]
    assert await most_at_once(connection) == {"pull": 1}


async def test_a_cancelled_job_gives_its_slot_back_without_anybody_telling(dsn: str) -> None:
    ran: list[int] = []

    @job(limit=Limit(1))
    async def pull(payload: int) -> None:
        ran.append(payload)

    @job
    async def block() -> None:
        await gate.pass_through()

    gate = Gate()
    async with workers(1, dsn, [pull, block], concurrency=1) as client:
        await client.enqueue(block())
        await gate.entered.acquire()
        first, second = await client.enqueue_many([pull(1), pull(2)])
        await until(lambda: _is_ready(client, first))
        assert await client.store.held(second) == "limit:pull"
        assert await client.cancel(first)
        await until(lambda: _is_ready(client, second))
        gate.open()
        await ended(client, second)
    assert ran == [2]


async def _is_ready(client: JobsClient, job_id: UUID) -> bool:
    return await client.store.held(job_id) is None


async def test_an_interrupted_job_is_the_first_of_its_key_again(dsn: str) -> None:
    order: list[int] = []

    @job(limit=Limit(1))
    async def pull(payload: int) -> None:
        order.append(payload)
        if order == [0]:
            await asyncio.Event().wait()

    async with worker(dsn, [pull], shutdown_timeout=0) as plugin:
        await plugin.client.enqueue_many([pull(number) for number in range(3)])
        await until(lambda: _begun(order))
    async with workers(1, dsn, [pull]) as client:
        await drained(client)
    assert order == [0, 0, 1, 2]


async def _begun(order: list[int]) -> bool:
    return bool(order)


# In a time.


async def test_no_more_start_in_any_stretch_of_time_than_the_rate_says(dsn: str, connection: Connection) -> None:
    await connection.execute(INSTRUMENT)
    per = timedelta(seconds=0.3)

    @job(rate=Rate(5, per=per))
    async def call(payload: int) -> None: ...

    async with workers(2, dsn, [call]) as client:
        begun = time.monotonic()
        await client.enqueue_many([call(number) for number in range(23)])
        await drained(client)
        took = time.monotonic() - begun
    seen = await starts(connection, "call")
    assert len(seen) == 23
    assert too_close(seen, 5, per) == []
    assert took < 4 * 0.3 + 3, "and they do start when they may"


async def test_each_attempt_is_a_start(dsn: str, connection: Connection) -> None:
    await connection.execute(INSTRUMENT)
    per = timedelta(seconds=0.2)

    @job(rate=Rate(1, per=per), max_retries=3, retry=Fixed(0))
    async def call() -> None:
        raise ValueError

    async with workers(1, dsn, [call]) as client:
        row = await ended(client, await client.enqueue(call()))
    assert row.attempts == 4
    assert too_close(await starts(connection, "call"), 1, per) == []


async def test_a_limit_and_a_rate_hold_both(dsn: str, connection: Connection) -> None:
    await connection.execute(INSTRUMENT)
    per = timedelta(seconds=0.1)

    @job(limit=Limit(2, by="customer"), rate=Rate(3, per=per))
    async def call(payload: Order) -> None:
        await asyncio.sleep(0.02)

    async with workers(2, dsn, [call]) as client:
        await client.enqueue_many([call(Order(customer, n)) for n in range(8) for customer in "ab"])
        await drained(client)
    assert set((await most_at_once(connection)).values()) <= {1, 2}
    assert too_close(await starts(connection, "call"), 3, per) == []
