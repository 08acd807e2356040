"""Cancelling jobs that run, from any process: the job ends at once, in the database, and its handler is told."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from advanced_alchemy.extensions.litestar import EngineConfig, SQLAlchemyAsyncConfig, SQLAlchemyPlugin
from litestar import Litestar
from litestar.di import NamedDependency, Provide
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from cli_app import hold, mark_and_hold
from litestar_jobs import (
    Job,
    JobContext,
    JobFilter,
    JobRow,
    JobsClient,
    JobsConfig,
    JobsPlugin,
    JobStatus,
    WorkerConfig,
    job,
)
from litestar_jobs.outcome import Cancelled, Lost
from litestar_jobs.store import Store
from litestar_jobs.telemetry import AttemptEnded, AttemptStarted, Event, HandlerStuck, OutcomeRefused
from litestar_jobs.testing import drained, ended, running, until
from litestar_jobs.worker import attend
from litestar_jobs.worker.listen import Ear
from test_cli_worker import Start, in_state, start

Connection = Any
workers = start
"""The fixture: worker processes."""


class Watched:
    """An application with a worker, and what its hooks heard."""

    def __init__(self, plugin: JobsPlugin, events: list[Event]) -> None:
        self.plugin = plugin
        self.client = plugin.client
        self._events = events

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self._events if isinstance(event, kind)]

    async def outcomes(self, count: int = 1) -> list[Any]:
        """How that many attempts ended."""

        async def look() -> bool:
            return len(self.of(AttemptEnded)) >= count

        await until(look, 10, "the attempt has not ended")
        return [event.outcome for event in self.of(AttemptEnded)]


@asynccontextmanager
async def working(
    dsn: str, jobs: list[Job[Any, Any]], *plugins: Any, dependencies: Any = None, **settings: Any
) -> AsyncIterator[Watched]:
    events: list[Event] = []
    config = WorkerConfig(**{"concurrency": 2, "shutdown_timeout": 0} | settings)
    plugin = JobsPlugin(
        JobsConfig(dsn=dsn, jobs=jobs, worker=config, hooks=[events.append], dependencies=dependencies or {})
    )
    async with running(Litestar(plugins=[plugin, *plugins], logging_config=None)):
        yield Watched(plugin, events)


@asynccontextmanager
async def elsewhere(dsn: str) -> AsyncIterator[JobsClient]:
    """The client of another application, which has no worker: it tells through the database alone."""
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[], worker=None))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        yield plugin.client


async def begun(watched: Watched, job_id: UUID) -> None:
    async def look() -> bool:
        return any(event.job.id == job_id for event in watched.of(AttemptStarted))

    await until(look, 10, "it has not begun")


async def row_of(client: JobsClient, job_id: UUID) -> JobRow:
    row = await client.get(job_id)
    assert row is not None
    return row


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not end when it is cancelled is given up after a moment."""
    monkeypatch.setattr(attend, "AFTER_CANCEL", 0.2)
    monkeypatch.setattr(attend, "WATCH_PAUSE", 0.05)


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """No notification reaches a worker, as behind a pooler in transaction mode."""
    monkeypatch.setattr(Ear, "_hear", lambda *_: None)


# Async handlers.


@pytest.mark.parametrize("by", ["the same process", "another client", "a filter"])
async def test_a_running_job_gets_a_cancelled_error_within_a_second(dsn: str, by: str) -> None:
    told: list[float] = []

    @job
    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.append(time.monotonic())
            raise

    async with working(dsn, [forever], poll_interval=3600, lease=60) as watched, elsewhere(dsn) as other:
        job_id = await watched.client.enqueue(forever())
        await begun(watched, job_id)
        asked = time.monotonic()
        if by == "a filter":
            assert await other.cancel_all(JobFilter(job_type="forever"), dry_run=True) == 1
            assert await other.cancel_all(JobFilter(job_type="forever")) == 1
        else:
            assert await (watched.client if by == "the same process" else other).cancel(job_id)
        row = await row_of(watched.client, job_id)
        assert await watched.outcomes() == [Cancelled(is_written=True)]
        assert not await other.cancel(job_id), "it has ended"
    assert told[0] - asked < 1
    assert (row.status, row.attempts, row.last_error) == (JobStatus.CANCELLED, 1, None)
    assert row.started_at is not None
    assert row.finished_at is not None
    assert watched.of(OutcomeRefused) == []
    assert watched.of(HandlerStuck) == []


@pytest.mark.usefixtures("deaf")
@pytest.mark.parametrize("client", ["the same process", "elsewhere"])
async def test_a_worker_that_hears_nothing_finds_out_by_itself(dsn: str, client: str) -> None:
    @job
    async def forever() -> None:
        await asyncio.Event().wait()

    async with working(dsn, [forever], lease=60) as watched, elsewhere(dsn) as other:
        job_id = await watched.client.enqueue(forever())
        await begun(watched, job_id)
        asked = time.monotonic()
        assert await (other if client == "elsewhere" else watched.client).cancel(job_id)
        assert await watched.outcomes() == [Cancelled(is_written=True)]
        assert time.monotonic() - asked < 2


@pytest.mark.parametrize("how", ["returns", "raises", "asks for something else"])
async def test_a_handler_that_swallows_the_cancellation_is_cancelled_all_the_same(dsn: str, how: str) -> None:
    @job(max_retries=3)
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if how == "raises":
                raise LookupError("no") from None
            return "done"
        raise AssertionError

    async with working(dsn, [stubborn]) as watched:
        job_id = await watched.client.enqueue(stubborn())
        await begun(watched, job_id)
        assert await watched.client.cancel(job_id)
        assert await watched.outcomes() == [Cancelled(is_written=True)]
        await drained(watched.client)
        row = await row_of(watched.client, job_id)
    assert (row.status, row.result, row.last_error) == (JobStatus.CANCELLED, None, None)
    assert watched.of(OutcomeRefused) == []


@pytest.mark.usefixtures("short_grace")
async def test_a_handler_that_goes_on_is_given_up(dsn: str) -> None:
    at_last = asyncio.Event()

    @job
    async def stubborn() -> None:
        while not at_last.is_set():
            try:
                await at_last.wait()
            except asyncio.CancelledError:
                continue

    async with working(dsn, [stubborn], concurrency=1) as watched:
        first = await watched.client.enqueue(stubborn())
        await begun(watched, first)
        assert await watched.client.cancel(first)
        second = await watched.client.enqueue(stubborn())
        await begun(watched, second)
        assert [event.job_id for event in watched.of(HandlerStuck)] == [first]
        at_last.set()
        assert (await ended(watched.client, second)).status is JobStatus.COMPLETED
    assert await watched.outcomes(2) == [Cancelled(is_written=True), watched.of(AttemptEnded)[1].outcome]
    assert watched.of(OutcomeRefused) == []


async def test_a_job_that_was_claimed_and_has_not_begun_never_does(dsn: str) -> None:
    @job
    async def forever(payload: int) -> None:
        await asyncio.Event().wait()

    async with working(dsn, [forever], concurrency=1) as watched:
        first = await watched.client.enqueue(forever(1))
        await begun(watched, first)
        worker = watched.plugin.worker
        assert worker is not None
        assert worker.worker_id is not None
        (claimed,) = worker._slots.open
        second = await watched.client.enqueue(forever(2))
        worker._slots.add(await watched.client.store.claim({"default": 1}, {}, worker.worker_id, "{}"))
        assert [job.id for job in worker._slots.open] == [first, second]
        assert await watched.client.cancel(second)
        await until(lambda: only(worker, claimed), 5, "it is still at hand")
        assert await watched.client.cancel(first)
        assert len(await watched.outcomes()) == 1
    assert [event.job.id for event in watched.of(AttemptStarted)] == [first]


async def only(worker: Any, claimed: Any) -> bool:
    return bool(worker._slots.open == [claimed])


async def test_a_job_that_is_cancelled_and_retried_runs_anew_while_its_first_attempt_is_stopped(dsn: str) -> None:
    """The worker is told of a token, not of a job: it never stops the second attempt instead."""
    ends: list[int] = []

    @job
    async def twice(*, job: JobContext) -> None:
        ends.append(job.token)
        if len(ends) == 1:
            await asyncio.Event().wait()

    async with working(dsn, [twice]) as watched, elsewhere(dsn) as other:
        job_id = await watched.client.enqueue(twice())
        await begun(watched, job_id)
        assert await other.cancel(job_id)
        assert await other.retry(job_id)
        row = await ended(watched.client, job_id)
        outcomes = await watched.outcomes(2)
    assert (row.status, row.attempts, len(set(ends))) == (JobStatus.COMPLETED, 1, 2)
    assert any(isinstance(outcome, Cancelled | Lost) for outcome in outcomes)
    assert watched.of(OutcomeRefused) == []


async def test_whoever_may_notify_can_stop_nothing(
    dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes on the channel is a hint; the database is asked."""
    go = asyncio.Event()
    looks: list[int] = []
    void = Store.void

    async def spied(self: Store, jobs: Any) -> dict[int, bool]:
        looks.append(len(jobs))
        return await void(self, jobs)

    monkeypatch.setattr(Store, "void", spied)

    @job
    async def wait() -> None:
        await go.wait()

    async with working(dsn, [wait]) as watched:
        job_id = await watched.client.enqueue(wait())
        await begun(watched, job_id)
        assert watched.plugin.worker is not None
        (running_one,) = watched.plugin.worker._slots.open
        looks.clear()
        for told in (str(running_one.token), "", "x", "9" * 5000, f"{job_id}"):
            await connection.execute("SELECT pg_notify('litestar_jobs', $1)", f"cancel:{told}")

        async def looked() -> bool:
            return len(looks) >= 2

        await until(looked, 10, "the worker has not asked twice")
        go.set()
        assert (await ended(watched.client, job_id)).status is JobStatus.COMPLETED


# Synchronous handlers.


async def test_a_synchronous_handler_sees_a_flag(dsn: str) -> None:
    seen = threading.Event()

    @job
    def loop(*, job: JobContext) -> None:
        while not job.is_cancelled:
            time.sleep(0.005)
        seen.set()

    async with working(dsn, [loop]) as watched:
        job_id = await watched.client.enqueue(loop())
        await begun(watched, job_id)
        assert await watched.client.cancel(job_id)
        assert await watched.outcomes() == [Cancelled(is_written=True)]
        assert seen.is_set(), "the attempt ends when the thread does"
        assert (await row_of(watched.client, job_id)).status is JobStatus.CANCELLED
    assert watched.of(HandlerStuck) == []
    assert watched.of(OutcomeRefused) == []


@pytest.mark.usefixtures("short_grace")
async def test_a_thread_that_does_not_look_is_given_up(dsn: str) -> None:
    at_last = threading.Event()

    @job
    def loop() -> None:
        at_last.wait(30)

    async with working(dsn, [loop]) as watched:
        job_id = await watched.client.enqueue(loop())
        await begun(watched, job_id)
        assert await watched.client.cancel(job_id)
        assert await watched.outcomes() == [Cancelled(is_written=True)]
        assert [event.job_id for event in watched.of(HandlerStuck)] == [job_id]
        at_last.set()


@pytest.mark.parametrize("why", ["timeout", "stop"])
async def test_the_flag_is_up_whenever_nobody_waits_for_the_handler(dsn: str, why: str) -> None:
    seen = threading.Event()

    @job(timeout=0.1 if why == "timeout" else None, max_retries=0)
    def loop(*, job: JobContext) -> None:
        while not job.is_cancelled:
            time.sleep(0.005)
        seen.set()

    async with working(dsn, [loop]) as watched:
        job_id = await watched.client.enqueue(loop())
        await begun(watched, job_id)
        if why == "timeout":
            assert (await ended(watched.client, job_id)).last_error is not None
    assert await asyncio.to_thread(seen.wait, 10)


async def test_the_flag_is_up_in_an_async_handler_that_swallows_its_timeout(dsn: str) -> None:
    seen: list[bool] = []

    @job(timeout=0.05, max_retries=0)
    async def stubborn(*, job: JobContext) -> None:
        seen.append(job.is_cancelled)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append(job.is_cancelled)

    async with working(dsn, [stubborn]) as watched:
        await ended(watched.client, await watched.client.enqueue(stubborn()))
    assert seen == [False, True]


def test_outside_of_a_worker_no_job_is_cancelled() -> None:
    context = JobContext(
        id=UUID(int=1),
        job_type="x",
        queue="q",
        attempt=1,
        max_retries=0,
        trace_id=None,
        enqueued_at=None,  # type: ignore[arg-type]
    )
    assert not context.is_cancelled


# In the job's own transaction.


@asynccontextmanager
async def writing(dsn: str, connection: Connection, jobs: list[Job[Any, Any]], **more: Any) -> AsyncIterator[Watched]:
    """With a session of the jobs' database, and a table to write into."""
    await connection.execute("CREATE TABLE written (n int)")
    config = SQLAlchemyAsyncConfig(
        connection_string=dsn.replace("postgresql://", "postgresql+asyncpg://", 1), engine_config=EngineConfig()
    )
    try:
        async with working(dsn, jobs, SQLAlchemyPlugin(config=config), **more) as watched:
            yield watched
    finally:
        engine = config.get_engine()
        assert isinstance(engine, AsyncEngine)
        await engine.dispose()


@pytest.mark.parametrize("hears", [True, False])
async def test_a_cancelled_job_commits_nothing_whether_it_was_told_or_not(
    dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch, *, hears: bool
) -> None:
    written, go = asyncio.Event(), asyncio.Event()
    if not hears:  # nor asks
        monkeypatch.setattr(attend.Attendant, "_stop_void", lambda _: asyncio.sleep(0))

    @job(max_retries=3)
    async def write(*, db_session: NamedDependency[AsyncSession]) -> None:
        await db_session.execute(text("INSERT INTO written VALUES (1)"))
        written.set()
        try:
            await go.wait()
        except asyncio.CancelledError:
            assert hears

    async with writing(dsn, connection, [write]) as watched:
        job_id = await watched.client.enqueue(write())
        await written.wait()
        assert await watched.client.cancel(job_id)
        if not hears:
            go.set()
        assert await watched.outcomes() == [Cancelled(is_written=True)]
        row = await row_of(watched.client, job_id)
    assert (row.status, row.last_error) == (JobStatus.CANCELLED, None)
    assert await connection.fetchval("SELECT count(*) FROM written") == 0
    assert watched.of(OutcomeRefused) == []


async def test_a_job_that_is_about_to_commit_is_one_or_the_other(dsn: str, connection: Connection) -> None:
    """Its handler has returned: it is too late to be told. Whoever comes first decides, and the other one knows."""
    leaving, go = asyncio.Event(), asyncio.Event()

    async def last() -> AsyncIterator[int]:
        yield 1
        leaving.set()
        await go.wait()

    @job
    async def write(*, db_session: NamedDependency[AsyncSession], last: NamedDependency[int]) -> None:
        await db_session.execute(text("INSERT INTO written VALUES (1)"))

    async with writing(dsn, connection, [write], dependencies={"last": Provide(last)}) as watched:
        job_id = await watched.client.enqueue(write())
        await leaving.wait()
        assert await watched.client.cancel(job_id)
        go.set()
        assert await watched.outcomes() == [Cancelled(is_written=True)]
    assert await connection.fetchval("SELECT count(*) FROM written") == 0


async def test_a_cancel_waits_for_a_commit_that_is_under_way_and_says_false(dsn: str, connection: Connection) -> None:
    await connection.execute(
        "CREATE TABLE slow (n int UNIQUE DEFERRABLE INITIALLY DEFERRED);"
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NEW; END';"
        "CREATE CONSTRAINT TRIGGER slowly AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION wait()"
    )

    @job
    async def write(*, db_session: NamedDependency[AsyncSession]) -> None:
        await db_session.execute(text("INSERT INTO slow VALUES (1)"))

    async with writing(dsn, connection, [write]) as watched:
        job_id = await watched.client.enqueue(write())

        async def committing() -> bool:
            return bool(
                await connection.fetchval(
                    "SELECT 1 FROM pg_stat_activity WHERE query ILIKE 'COMMIT%' AND state = 'active'"
                )
            )

        await until(committing, 10, "it does not commit")
        assert await watched.client.cancel_all(JobFilter(ids=[job_id])) == 0, "what is being finished is skipped"
        assert not await watched.client.cancel(job_id)
        assert (await row_of(watched.client, job_id)).status is JobStatus.COMPLETED
    assert await connection.fetchval("SELECT count(*) FROM slow") == 1


# Other processes.


async def test_a_job_of_another_process_is_cancelled_and_that_process_goes_on(
    dsn: str,
    workers: Start,
    store: Store,
    tmp_path: Any,
) -> None:
    await workers("--queue", "held", "--concurrency", "1")
    async with elsewhere(dsn) as client:
        first = await client.enqueue(hold(str(tmp_path / "never")))
        await in_state(store, first, JobStatus.RUNNING)
        second = await client.enqueue(hold(str(tmp_path)))
        asked = time.monotonic()
        assert await client.cancel(first)
        row = await ended(client, second)
    assert time.monotonic() - asked < 3
    assert row.status is JobStatus.COMPLETED, "the slot is free"
    await in_state(store, first, JobStatus.CANCELLED)


async def test_a_job_of_a_suspended_process_is_cancelled_and_can_write_nothing_once_that_wakes(
    dsn: str,
    workers: Start,
    store: Store,
    tmp_path: Any,
) -> None:
    process = await workers("--queue", "held", "--concurrency", "1")
    async with elsewhere(dsn) as client:
        job_id = await client.enqueue(mark_and_hold(str(tmp_path)))
        await in_state(store, job_id, JobStatus.RUNNING)

        async def marked() -> bool:
            return any(tmp_path.iterdir())

        await until(marked, 10)
        os.kill(process.pid, signal.SIGSTOP)
        try:
            assert await client.cancel(job_id), "at once, whoever runs it"
            assert (await row_of(client, job_id)).status is JobStatus.CANCELLED
            (tmp_path / "go").touch()
        finally:
            os.kill(process.pid, signal.SIGCONT)
        next_one = await client.enqueue(hold(str(tmp_path)))
        assert (await ended(client, next_one)).status is JobStatus.COMPLETED
        assert (await row_of(client, job_id)).status is JobStatus.CANCELLED
        assert await store.failures(job_id) == []


# Many.


async def test_a_thousand_running_jobs_are_cancelled_with_a_few_notifications(dsn: str, connection: Connection) -> None:
    count = 1_000
    heard: list[str] = []

    @job
    async def forever() -> None:
        await asyncio.Event().wait()

    await connection.add_listener("litestar_jobs", lambda *words: heard.append(words[-1]))
    async with working(dsn, [forever], concurrency=count) as watched, elsewhere(dsn) as other:
        await watched.client.enqueue_many(forever() for _ in range(count))

        async def all_run() -> bool:
            return len(watched.of(AttemptStarted)) == count

        await until(all_run, 20)
        assert await other.cancel_all(JobFilter(status="running")) == count
        outcomes = await watched.outcomes(count)
        await drained(watched.client)
    assert outcomes == [Cancelled(is_written=True)] * count
    told = [message for message in heard if message.startswith("cancel:")]
    assert len(told) == 4
    assert max(map(len, told)) < 8_000
    assert watched.of(OutcomeRefused) == []
