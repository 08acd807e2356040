"""Steps of workflows that must be begun, or done, within some time: counted from when they wait for no other step."""

from datetime import datetime, timedelta
from typing import TypeAlias
from uuid import UUID

import asyncpg
import pytest

from litestar_jobs import Finished, JobsClient, Never, Workflow, chain, job
from litestar_jobs.row import JobRow, JobStatus
from litestar_jobs.testing import ended, until
from test_lapse import pass_time
from test_worker import Gate
from test_workflow import over, statuses, worker

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

HOUR = 3600.0
IN_ANOTHER = "nobody's"
"""A queue that no worker takes."""
PATIENCE = timedelta(seconds=20)


@job
async def begin() -> int:
    return 20


@job(expires_in=HOUR, deadline=timedelta(hours=2))
async def double(payload: int) -> int:
    return payload * 2


@job
async def how(payload: list[Finished]) -> list[str]:
    return [f"{each.name}: {each.status}, {each.error}" for each in payload]


def times(row: JobRow) -> tuple[datetime | None, datetime | None]:
    return row.expires_at, row.deadline_at


async def of(client: JobsClient, job_id: UUID) -> JobRow:
    row = await client.get(job_id)
    assert row is not None
    return row


def is_in(moment: datetime | None, since: datetime, seconds: float) -> bool:
    """So long after a moment between then and a while later."""
    return moment is not None and timedelta(0) <= moment - since - timedelta(seconds=seconds) <= PATIENCE


async def let_go(client: JobsClient, job_id: UUID) -> None:
    """Return when the times of this step count."""

    async def look() -> bool:
        return times(await of(client, job_id)) != (None, None)

    await until(look)


@pytest.mark.parametrize("is_mine", [False, True])
async def test_the_times_of_a_step_count_from_when_it_waits_no_more(
    dsn: str, connection: Connection, *, is_mine: bool
) -> None:
    gate = Gate()

    @job
    async def slow() -> int:
        await gate.pass_through()
        return 1

    asked = Workflow("times")
    asked.add("first", double(1, queue=IN_ANOTHER, delay=600))
    asked.add("slow", slow())
    asked.add("takes", double, after="slow")
    asked.add("then", double(3, queue=IN_ANOTHER, delay=600, expires_in=60), after="slow")
    since = await connection.fetchval("SELECT statement_timestamp()")
    async with worker(dsn, [double, slow]) as client:
        if is_mine:
            async with connection.transaction():
                started = await client.workflows.start_with(connection, asked)
        else:
            started = await client.workflows.start(asked)
        jobs = {name: await of(client, job_id) for name, job_id in started.steps.items()}
        assert is_in(jobs["first"].expires_at, since, 600 + HOUR)
        assert is_in(jobs["first"].deadline_at, since, 2 * HOUR)
        assert times(jobs["slow"]) == times(jobs["takes"]) == times(jobs["then"]) == (None, None)

        await gate.entered.acquire()
        since = await connection.fetchval("SELECT statement_timestamp()")
        gate.open()
        assert await client.result(started.steps["takes"], of=double, timeout=10) == 2
        takes, then = [await of(client, started.steps[name]) for name in ("takes", "then")]
        assert is_in(takes.expires_at, since, HOUR)
        assert is_in(takes.deadline_at, since, 2 * HOUR)
        assert is_in(then.expires_at, since, 600 + 60)
        assert is_in(then.deadline_at, since, 2 * HOUR)


async def test_what_nobody_begins_in_time_cancels_those_after_it_and_is_an_end(
    dsn: str, connection: Connection
) -> None:
    asked = Workflow("late")
    asked.add("begin", begin())
    asked.add("late", double(1, queue=IN_ANOTHER), after="begin")
    asked.add("after", begin(), after="late")
    asked.add("how", how, after=["begin", "late"], run_when="ended")
    async with worker(dsn, [begin, double, how], lease=1) as client:
        started = await client.workflows.start(asked)
        await let_go(client, started.steps["late"])
        await pass_time(connection, hours=1)
        row = await over(client, started.id)
        assert statuses(row) == {"begin": "completed", "late": "cancelled", "after": "cancelled", "how": "completed"}
        assert (await of(client, started.steps["after"])).last_error == "StepCancelled: step 'late' was cancelled"
        why = "JobExpired: no attempt was begun in time"
        assert await client.result(started.last) == ["begin: completed, None", f"late: cancelled, {why}"]


async def test_a_step_beyond_its_deadline_fails_whether_it_waits_or_runs(dsn: str, connection: Connection) -> None:
    @job(deadline=0.2)
    async def slow(payload: int) -> None:
        await Gate().pass_through()

    async with worker(dsn, [begin, double, slow], lease=1) as client:
        runs = await client.workflows.start(chain(begin(), slow, begin()))
        row = await over(client, runs.id)
        assert statuses(row) == {"begin": "completed", "slow": "failed", "begin 2": "cancelled"}
        cut_off = await of(client, runs.steps["slow"])
        assert cut_off.last_error == "JobDeadline: the deadline of the job was over while it ran"

        asked = double(1, queue=IN_ANOTHER, expires_in=9 * HOUR)
        waits = await client.workflows.start(chain(begin(), asked, begin()))
        await let_go(client, waits.steps["double"])
        await pass_time(connection, hours=2)
        row = await over(client, waits.id)
        assert statuses(row) == {"begin": "completed", "double": "failed", "begin 2": "cancelled"}


async def test_times_count_anew_when_a_step_before_it_completes_after_all_but_not_after_a_retry_by_hand(
    dsn: str, connection: Connection
) -> None:
    is_broken = True

    @job(retry=Never())
    async def charge() -> int:
        if is_broken:
            raise OSError
        return 1

    async with worker(dsn, [charge, double], lease=1) as client:
        started = await client.workflows.start(chain(charge(), double(1, queue=IN_ANOTHER)))
        assert statuses(await over(client, started.id)) == {"charge": "failed", "double": "cancelled"}
        await pass_time(connection, hours=9)
        is_broken = False
        assert await client.retry(started.steps["charge"])
        await let_go(client, started.last)
        row = await of(client, started.last)
        assert row.status is JobStatus.PENDING
        await pass_time(connection, hours=1)
        row = await ended(client, started.last)
        assert row.status is JobStatus.CANCELLED
        assert await client.retry(started.last)
        assert times(await of(client, started.last)) == (None, None)
