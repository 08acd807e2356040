"""Results, progress and watching: what a job gives back, and how others hear of it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from advanced_alchemy.extensions.litestar import SQLAlchemyAsyncConfig, SQLAlchemyPlugin
from litestar import Litestar
from litestar.di import NamedDependency
from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from litestar_jobs import (
    Fixed,
    Job,
    JobContext,
    JobRow,
    JobsConfig,
    JobsPlugin,
    JobStatus,
    Never,
    WorkerConfig,
    job,
    watch,
)
from litestar_jobs.errors import DefinitionError, JobCancelled, JobFailed, NotRunning, ResultError
from litestar_jobs.payload import MAX_RESULT
from litestar_jobs.store import Store
from litestar_jobs.testing import ended, running, until

NO_POLLING = 3600.0


class Sum(Struct):
    total: int
    at: datetime | None = None


@asynccontextmanager
async def worker(dsn: str, jobs: Sequence[Job[Any, Any]], *plugins: Any) -> AsyncIterator[JobsPlugin]:
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=jobs, worker=WorkerConfig(poll_interval=NO_POLLING)))
    async with running(Litestar(plugins=[plugin, *plugins], logging_config=None)):
        yield plugin


@asynccontextmanager
async def elsewhere(dsn: str) -> AsyncIterator[JobsPlugin]:
    """An application that runs no jobs."""
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[], worker=None))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        yield plugin


@job
async def add(payload: list[int]) -> Sum:
    return Sum(sum(payload))


@job
def add_in_thread(payload: list[int]) -> int:
    return sum(payload)


@job(max_retries=5, retry=Fixed(0))
async def lie(payload: Any) -> int:
    return payload  # type: ignore[no-any-return]


@job(retry=Never())
async def fail() -> int:
    raise LookupError("no such order")


# Results


async def test_a_result_comes_back_in_its_type_in_another_process_of_the_application(dsn: str) -> None:
    async with worker(dsn, [add, add_in_thread]), elsewhere(dsn) as plugin:
        jobs = plugin.client
        one, other = await jobs.enqueue(add([1, 2])), await jobs.enqueue(add_in_thread([3, 4]))
        assert await jobs.result(one, of=add, timeout=10) == Sum(3)
        assert await jobs.result(one) == {"total": 3, "at": None}
        assert await jobs.result(other, of=add_in_thread, timeout=10) == 7
        row = await jobs.get(one)
        assert row is not None
        assert (row.status, row.result) == (JobStatus.COMPLETED, {"total": 3, "at": None})


@pytest.mark.parametrize(
    ("returned", "reason"),
    [("seven", "Expected `int`, got `str`"), (None, "Expected `int`, got `null`")],
)
async def test_a_job_whose_result_does_not_fit_fails_for_good_and_is_not_run_again(
    dsn: str, returned: object, reason: str
) -> None:
    async with worker(dsn, [lie]) as plugin:
        job_id = await plugin.client.enqueue(lie(returned))
        with pytest.raises(JobFailed, match="so it is not run again") as failed:
            await plugin.client.result(job_id, of=lie, timeout=10)
    assert (failed.value.error_type, failed.value.attempts) == ("ResultError", 1)
    assert reason in failed.value.message


async def test_a_result_is_limited_in_size(dsn: str) -> None:
    @job(retry=Fixed(0))
    async def much() -> str:
        return "x" * MAX_RESULT

    async with worker(dsn, [much]) as plugin:
        job_id = await plugin.client.enqueue(much())
        with pytest.raises(JobFailed, match="at most 1000000 are allowed"):
            await plugin.client.result(job_id, timeout=10)


async def test_what_a_job_returns_is_kept_only_if_its_annotation_says_so_and_the_option_does_not_say_no(
    dsn: str,
) -> None:
    @job
    async def silent():  # type: ignore[no-untyped-def]
        return 1

    @job
    async def nothing() -> None:
        return None

    @job(result=False)
    async def not_wanted() -> object:
        return 1

    async with worker(dsn, [silent, nothing, not_wanted]) as plugin:
        for each in (silent, nothing, not_wanted):
            job_id = await plugin.client.enqueue(each())
            assert await plugin.client.result(job_id, of=each, timeout=10) is None


def test_a_type_that_cannot_be_stored_is_refused_at_the_definition_with_the_remedy() -> None:
    async def one() -> threading.Lock:
        return threading.Lock()

    async def two() -> "NotThere":  # type: ignore[name-defined]  # noqa: F821
        return 1

    functions: list[Any] = [one, two]
    for fn in functions:
        with pytest.raises(DefinitionError, match=r"@job\(result=False\)"):
            job(fn)
        job(result=False)(fn)


async def test_a_result_is_committed_with_the_session_of_the_job_and_one_that_does_not_fit_rolls_it_back(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    @job(retry=Fixed(0))
    async def write(payload: Any, db_session: NamedDependency[AsyncSession]) -> int:
        await db_session.execute(text("INSERT INTO written VALUES (1)"))
        return payload  # type: ignore[no-any-return]

    await connection.execute("CREATE TABLE written (n int)")
    engine = SQLAlchemyAsyncConfig(connection_string=dsn.replace("postgresql://", "postgresql+asyncpg://"))
    async with worker(dsn, [write], SQLAlchemyPlugin(config=engine)) as plugin:
        good, bad = await plugin.client.enqueue(write(7)), await plugin.client.enqueue(write("seven"))
        assert await plugin.client.result(good, of=write, timeout=10) == 7
        with pytest.raises(JobFailed, match="so it is not run again"):
            await plugin.client.result(bad, timeout=10)
    assert await connection.fetchval("SELECT count(*) FROM written") == 1


async def test_who_waits_hears_why_there_is_no_result(dsn: str) -> None:
    async with worker(dsn, [fail, add]) as plugin:
        jobs = plugin.client
        failed, late = await jobs.enqueue(fail()), await jobs.enqueue(add([1], delay=3600))
        with pytest.raises(JobFailed, match="failed in attempt 1: LookupError: no such order") as raised:
            await jobs.result(failed, of=fail, timeout=10)
        assert (raised.value.error_type, raised.value.message, raised.value.job_id) == (
            "LookupError",
            "no such order",
            failed,
        )
        with pytest.raises(TimeoutError, match="has not ended within"):
            await jobs.result(late, timeout=0.05)
        with pytest.raises(LookupError, match="there is no job"):
            await jobs.result(uuid7(), timeout=10)
        waiting = asyncio.create_task(jobs.result(late, of=add, timeout=10))
        assert await jobs.cancel(late)
        with pytest.raises(JobCancelled):
            await waiting
        with pytest.raises(ResultError, match="so it has no result of fail"):
            await jobs.result(await jobs.enqueue(add([1])), of=fail, timeout=10)


def watcher_of(plugin: JobsPlugin) -> Any:
    return vars(plugin.client)["_watcher"]


def reporter_of(plugin: JobsPlugin) -> Any:
    return vars(plugin.worker)["_reporter"]


async def test_a_thousand_who_wait_share_one_connection_and_leave_nothing_behind(
    dsn: str, direct_dsn: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with elsewhere(dsn) as plugin:
        ids = await plugin.client.enqueue_many(add([n]) for n in range(1000))
        waiting = [asyncio.create_task(plugin.client.result(job_id, of=add, timeout=60)) for job_id in ids]
        watched = watcher_of(plugin)._watched
        await until(lambda: true(len(watched) == 1000 and all(one.mark for one in watched.values())))

        async def one_more() -> bool:
            """Beside the test's own the one that listens; that of enqueue_many soon ends."""
            count = (
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND backend_type = 'client backend'"
            )
            return bool(await connection.fetchval(count) == 2)

        if dsn == direct_dsn:  # a pooler keeps its own
            await until(one_more)
        for task in waiting[:500]:
            task.cancel()
        await asyncio.wait(waiting[:500])
        assert len(watched) == 500
        async with worker(dsn, [add]):
            results = await asyncio.gather(*waiting[500:])
        assert [result.total for result in results] == list(range(500, 1000))
        assert not watched


async def true(value: bool) -> bool:  # noqa: FBT001 - for until()
    return value


async def test_who_waits_is_told_at_once_and_need_not_look(
    dsn: str, direct_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking is so rare here that only a notification can be in time."""
    if dsn != direct_dsn:
        pytest.skip("a pooler passes no notifications on: who waits behind one has to look")
    monkeypatch.setattr(watch, "FIRST_PAUSE", NO_POLLING)
    monkeypatch.setattr(watch, "LONGEST_PAUSE", NO_POLLING)
    gate = asyncio.Event()

    @job
    async def wait() -> int:
        await gate.wait()
        return 7

    async with worker(dsn, [wait]) as plugin, elsewhere(dsn) as other:
        job_id = await plugin.client.enqueue(wait())
        waiting = asyncio.create_task(other.client.result(job_id, timeout=10))
        reporter = reporter_of(plugin)
        await until(lambda: true(job_id in reporter._watched))
        gate.set()
        assert await waiting == 7


async def test_waiting_survives_that_its_connection_is_ended(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with elsewhere(dsn) as plugin:
        job_id = await plugin.client.enqueue(add([1, 2]))
        waiting = asyncio.create_task(plugin.client.result(job_id, of=add, timeout=30))
        link = watcher_of(plugin)._link
        await until(lambda: true(link._connection is not None))
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        async with worker(dsn, [add]):
            assert await waiting == Sum(3)


async def test_who_still_waits_when_the_application_stops_is_told(dsn: str) -> None:
    async with elsewhere(dsn) as plugin:
        job_id = await plugin.client.enqueue(add([1]))
        waiting = asyncio.create_task(plugin.client.result(job_id))
        await asyncio.sleep(0)
    with pytest.raises(NotRunning):
        await waiting


# Progress


async def test_progress_is_seen_while_the_attempt_runs_and_gone_afterwards(
    dsn: str, store: Store, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    gate, entered = threading.Event(), threading.Event()

    @job
    async def in_loop(*, job: JobContext) -> None:
        for step in range(1000):
            await job.progress(step / 2000, f"step {step}")
        await asyncio.to_thread(gate.wait, 10)

    @job
    def in_thread(*, job: JobContext) -> None:
        job.progress(1)
        entered.set()
        gate.wait(10)

    writes: list[Any] = []

    async with worker(dsn, [in_loop, in_thread]) as plugin:
        jobs = plugin.client
        reporter = reporter_of(plugin)
        write = reporter._store.progress

        async def counted(news: Any) -> Any:
            writes.append(news)
            return await write(news)

        reporter._store.progress = counted
        ids = await jobs.enqueue(in_loop()), await jobs.enqueue(in_thread())

        async def seen() -> bool:
            rows = [await jobs.get(job_id) for job_id in ids]
            return [(row.progress, row.progress_message) for row in rows if row] == [(0.4995, "step 999"), (1.0, None)]

        await until(seen)
        assert len(writes) <= 3
        gate.set()
        for job_id in ids:
            row = await ended(jobs, job_id)
            assert (row.status, row.progress, row.progress_message) == (JobStatus.COMPLETED, None, None)
        reporter._forget_at = 0.0
        reporter._chore.wake()

        async def forgotten() -> bool:
            return bool(await connection.fetchval("SELECT count(*) = 0 FROM litestar_jobs.progress"))

        await until(forgotten)


async def test_an_attempt_that_lost_its_lease_writes_no_progress(
    dsn: str, store: Store, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    gate = asyncio.Event()

    @job
    async def wait() -> None:
        await gate.wait()

    async with worker(dsn, [wait]) as plugin:
        job_id = await plugin.client.enqueue(wait())

        async def token() -> int | None:
            found: int | None = await connection.fetchval("SELECT token FROM litestar_jobs.running")
            return found

        own = await until(token)
        assert await store.progress({own - 1: (job_id, 0.9, "stale"), own: (job_id, 0.1, None)}) == {job_id}
        assert await store.progress({own + 1: (job_id, 0.9, "stale")}) == set()
        row = await plugin.client.get(job_id)
        assert row is not None
        assert (row.progress, row.progress_message) == (0.1, None)
        gate.set()
        await ended(plugin.client, job_id)


@pytest.mark.parametrize("part", [-0.1, 1.1, float("nan")])
def test_progress_goes_from_0_to_1(part: float) -> None:
    with pytest.raises(ValueError, match="progress goes from 0 to 1"):
        context().progress(part)


async def test_outside_of_a_worker_progress_does_nothing() -> None:
    await context().progress(0.5, "a unit test")


def context() -> JobContext:
    return JobContext(
        id=uuid7(), job_type="t", queue="q", attempt=1, max_retries=0, trace_id=None, enqueued_at=datetime.now(UTC)
    )


# Watching


async def test_watching_gives_the_job_now_and_after_each_change_until_it_has_ended(dsn: str) -> None:
    gates = [asyncio.Event() for _ in range(3)]

    @job(max_retries=1, retry=Fixed(0))
    async def work(*, job: JobContext) -> str:
        await gates[0].wait()
        if job.attempt == 1:
            raise RuntimeError
        await gates[1].wait()
        await job.progress(0.4, "nearly half")
        await gates[2].wait()
        return "done"

    async with elsewhere(dsn) as plugin:
        job_id = await plugin.client.enqueue(work())
        async with aclosing(plugin.client.watch(job_id)) as rows:
            first = await anext(rows)
            assert (first.status, first.attempts) == (JobStatus.PENDING, 0)
            async with worker(dsn, [work]):

                async def next_is(wanted: Callable[[JobRow], bool]) -> JobRow:
                    async with asyncio.timeout(10):
                        return await anext(row async for row in rows if wanted(row))

                await next_is(lambda row: (row.status, row.attempts) == (JobStatus.RUNNING, 1))
                gates[0].set()
                await next_is(lambda row: (row.status, row.attempts) == (JobStatus.RUNNING, 2))
                gates[1].set()
                half = await next_is(lambda row: row.progress == 0.4)
                assert half.progress_message == "nearly half"
                gates[2].set()
                last = await next_is(lambda row: row.has_ended)
                assert (last.status, last.result) == (JobStatus.COMPLETED, "done")
            assert [row async for row in rows] == []


async def test_watching_a_job_that_is_deleted_ends_with_an_error(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with elsewhere(dsn) as plugin:
        job_id: UUID = await plugin.client.enqueue(add([1]))
        rows = plugin.client.watch(job_id)
        await anext(rows)
        await connection.execute("WITH gone AS (DELETE FROM litestar_jobs.ready) DELETE FROM litestar_jobs.job")
        with pytest.raises(LookupError, match="there is no job"):
            await anext(rows)
