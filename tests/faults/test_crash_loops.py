"""Jobs that end their process, and what becomes of those beside them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from uuid import UUID

import asyncpg
import msgspec
import pytest

from litestar_jobs import JobStatus
from litestar_jobs.testing import ended, until

from .app import Work, die, end_process_once, transacted
from .conftest import World
from .fleet import WorkerProcess


@asynccontextmanager
async def always(world: World, count: int) -> AsyncIterator[None]:
    """So many workers; whichever dies has a successor."""
    over = asyncio.Event()

    async def is_over(worker: WorkerProcess) -> bool:
        return over.is_set() or worker.code is not None

    async def keep() -> None:
        while not over.is_set():
            await until(partial(is_over, await world.fleet.start()), 120)

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(keep())
        yield
        over.set()


@pytest.mark.parametrize("how", ["os._exit", "SystemExit in a task"])
async def test_a_job_that_ends_its_process_runs_again_elsewhere(world: World, how: str) -> None:
    """``asyncio`` ends its loop when a task raises ``SystemExit``, whatever the worker does."""
    world.fleet.settings = msgspec.structs.replace(world.fleet.settings, lease=1.0, poll=0.2)
    first = await world.fleet.start()
    job_id = await world.load.put(end_process_once(how))
    assert await first.ended() == 7
    await world.fleet.start()
    row = await ended(world.load.client, job_id, timeout=30)
    assert (row.status, row.attempts) == (JobStatus.COMPLETED, 2)


async def losses(dsn: str) -> dict[UUID, int]:
    """How often each job was lost with its process."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "SELECT id, count(*) FROM litestar_jobs.failure WHERE error_type = 'WorkerLost' GROUP BY id"
        )
        return {row["id"]: row["count"] for row in rows}
    finally:
        await connection.close()


async def test_a_job_that_ends_its_process_each_time_fails_and_costs_each_other_job_two_attempts_at_most(
    world: World,
) -> None:
    """The others are long enough to be there whenever it ends its process."""
    world.fleet.settings = msgspec.structs.replace(world.fleet.settings, lease=1.0, poll=0.2, concurrency=20)
    innocent = [await world.load.put(transacted(Work(0.5), max_retries=2)) for _ in range(8)]
    culprit = await world.load.put(die())
    async with always(world, 2):
        row = await ended(world.load.client, culprit, timeout=60)
        ends = [await ended(world.load.client, job_id, timeout=60) for job_id in innocent]
    assert (row.status, row.attempts) == (JobStatus.FAILED, 4)
    assert row.last_error == "WorkerLost: its process ended while it ran, 4 times now: the job may be what ends it"
    assert {end.status for end in ends} == {JobStatus.COMPLETED}
    lost = await losses(world.dsn)
    assert lost.pop(culprit) == 4
    assert max(lost.values()) <= 2
    found = await world.judged()
    assert found.counts["jobs completed"] == len(innocent)
