"""Enqueuing: alone, from many tasks, in bulk, and inside somebody's transaction."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from uuid_utils.compat import uuid7

from benchmarks.bench import PAYLOAD, SQL, TEXT, Bench, Hundred, Measured, compared, noop, timed
from litestar_jobs import JobsPlugin
from litestar_jobs.request import NewJob

TASKS = 20
SINGLE = 2_000
MANY = 20_000

INSERT = """
WITH written AS (
    INSERT INTO litestar_jobs.job (id, run_at, created_at, max_retries, priority, queue, job_type, payload)
    VALUES ($1::uuid, now(), now(), 3, 0, 'default', 'noop', $2::text::jsonb) RETURNING id
)
INSERT INTO litestar_jobs.ready (id, run_at, priority, attempts, queue) SELECT id, now(), 0, 0, 'default' FROM written
"""
"""The same rows, as plainly as can be."""


async def in_tasks(one: Callable[[], Coroutine[Any, Any, object]], tasks: int, calls: int) -> float:
    """Calls per second of so many tasks that each await one after the other."""

    async def several() -> None:
        for _ in range(calls // tasks):
            await one()

    return calls / await timed(lambda: asyncio.gather(*(several() for _ in range(tasks))))


async def single(bench: Bench) -> AsyncGenerator[Measured]:
    """Twenty tasks and one task that enqueue, against one statement each."""
    told, untold, alone = [], [], []
    async with bench.application() as plugin:
        for _ in range(bench.runs):
            await bench.fresh()
            ours = await enqueued(plugin, TASKS, SINGLE * 10)
            told.append((ours, await inserted(bench, TASKS, SINGLE, notify=True)))
            untold.append((ours, await inserted(bench, TASKS, SINGLE, notify=False)))
            alone.append((await enqueued(plugin, 1, SINGLE), await inserted(bench, 1, SINGLE, notify=False)))
    yield compared("enqueue, 20 tasks, against one statement each", "jobs/s", told, "4")
    yield compared("enqueue, 20 tasks, against one INSERT each that wakes nobody", "jobs/s", untold)
    yield compared("enqueue, one task, against one INSERT each that wakes nobody", "jobs/s", alone, "0.90")


async def enqueued(plugin: JobsPlugin, tasks: int, calls: int) -> float:
    return await in_tasks(lambda: plugin.client.enqueue(noop(Hundred(TEXT))), tasks, calls)


async def inserted(bench: Bench, tasks: int, calls: int, *, notify: bool) -> float:
    """Each task on a connection of its own."""
    connections = [await bench.connect() for _ in range(tasks)]
    free = [await connection.prepare(SQL["enqueue_one"] if notify else INSERT) for connection in connections]
    request = noop(Hundred(TEXT))

    async def one() -> None:
        statement = free.pop()
        if notify:
            await statement.fetch(*NewJob(uuid7(), request).row, SQL.channel)
        else:
            await statement.fetch(uuid7(), PAYLOAD)
        free.append(statement)

    rate = await in_tasks(one, tasks, calls)
    for connection in connections:
        await connection.close()
    return rate


async def bulk(bench: Bench) -> AsyncGenerator[Measured]:
    """``enqueue_many`` against COPY into the same tables."""
    pairs = []
    async with bench.application() as plugin:
        for _ in range(bench.runs):
            await bench.fresh()
            requests = [noop(Hundred(TEXT)) for _ in range(MANY)]
            seconds = await timed(lambda requests=requests: plugin.client.enqueue_many(requests))  # type: ignore[misc]
            await bench.fresh()
            pairs.append((MANY / seconds, MANY / await timed(lambda: bench.fill(MANY))))
    yield compared("enqueue_many of 20,000", "jobs/s", pairs, "0.60 of COPY")


def encoded() -> str:
    """Whoever writes a job encodes its payload."""
    return msgspec.json.encode(Hundred(TEXT)).decode()


async def in_session(bench: Bench) -> AsyncGenerator[Measured]:
    """``enqueue_with`` an open session, against ``exec_driver_sql`` of one INSERT in it."""
    engine = create_async_engine(bench.dsn.replace("postgresql://", "postgresql+asyncpg://"))
    pairs = []
    async with bench.application() as plugin:
        for _ in range(bench.runs):
            await bench.fresh()
            async with AsyncSession(engine) as session:
                ours = await in_tasks(lambda: plugin.client.enqueue_with(session, noop(Hundred(TEXT))), 1, SINGLE)
                await session.commit()
                connection = await session.connection()
                bare = await in_tasks(lambda: connection.exec_driver_sql(INSERT, (uuid7(), encoded())), 1, SINGLE)  # noqa: B023
                await session.commit()
            pairs.append((1e6 / ours, 1e6 / bare))
    await engine.dispose()
    yield compared("enqueue_with in an open session", "µs", pairs, "at most 1.3 times exec_driver_sql")
