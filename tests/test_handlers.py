"""Whatever a handler does, or a dependency, a policy or a hook: its job has one outcome, its slot comes back, and the
jobs beside it do not notice. Those that end their process are in ``tests/faults/``.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, NoReturn, TypeVar
from uuid import UUID

import pytest
from advanced_alchemy.extensions.litestar import EngineConfig, SQLAlchemyAsyncConfig, SQLAlchemyPlugin
from litestar import Litestar
from litestar.di import NamedDependency, Provide
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from litestar_jobs import (
    Fixed,
    Job,
    JobContext,
    JobFilter,
    JobRequest,
    JobRow,
    JobsConfig,
    JobsPlugin,
    JobStatus,
    WorkerConfig,
    job,
)
from litestar_jobs.context import current_job
from litestar_jobs.errors import EnqueueUncertain, LeaseLost
from litestar_jobs.telemetry import AttemptEnded, AttemptStarted, ChoreFailed, Event, HandlerStuck, OutcomeRefused
from litestar_jobs.testing import drained, ended, running, until
from litestar_jobs.trace import current_trace_id
from litestar_jobs.worker import attend

EventT = TypeVar("EventT")
CONCURRENCY = 2


class Watched:
    """A worker, what it says, and the other jobs that it must go on running."""

    def __init__(self, plugin: JobsPlugin) -> None:
        self.plugin = plugin
        self.events: list[Event] = []

    def of(self, kind: type[EventT]) -> list[EventT]:
        return [event for event in self.events if isinstance(event, kind)]

    async def ran(self, request: JobRequest) -> JobRow:
        try:
            job_id: UUID = await self.plugin.client.enqueue(request)
        except EnqueueUncertain as unheard:  # it ran before its enqueue returned, and cancelled what wrote it
            job_id = unheard.job_id
        return await ended(self.plugin.client, job_id)

    async def still_works(self) -> None:
        """All slots are there, and nothing is left running."""
        barrier = asyncio.Barrier(CONCURRENCY)
        beside.barrier = barrier  # type: ignore[attr-defined]
        ids = await self.plugin.client.enqueue_many(beside() for _ in range(CONCURRENCY))
        for job_id in ids:
            assert (await ended(self.plugin.client, job_id)).status is JobStatus.COMPLETED
        await drained(self.plugin.client)


@job
async def beside() -> None:
    """Ends when as many run as there are slots."""
    async with asyncio.timeout(5):
        await beside.barrier.wait()  # type: ignore[attr-defined]


@asynccontextmanager
async def working(dsn: str, jobs: Sequence[Job[Any, Any]], **settings: Any) -> AsyncIterator[Watched]:
    dependencies = settings.pop("dependencies", {})
    hooks = settings.pop("hooks", [])
    plugins = settings.pop("plugins", [])
    config = WorkerConfig(**{"concurrency": CONCURRENCY, "shutdown_timeout": 5} | settings)
    heard: list[Event] = []
    plugin = JobsPlugin(
        JobsConfig(
            dsn=dsn, jobs=[beside, *jobs], worker=config, hooks=[heard.append, *hooks], dependencies=dependencies
        )
    )
    watched = Watched(plugin)
    watched.events = heard
    async with running(Litestar(plugins=[plugin, *plugins], logging_config=None)):
        yield watched


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not end when it is cancelled is given up after a moment."""
    monkeypatch.setattr(attend, "AFTER_CANCEL", 0.2)
    monkeypatch.setattr(attend, "WATCH_PAUSE", 0.05)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise SystemExit("not even its text")


def deeper() -> NoReturn:
    deeper()


RAISED: dict[str, Callable[[], BaseException]] = {
    "BaseException": lambda: BaseException("base"),
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "LeaseLost": lambda: LeaseLost(current_job.get().id),  # type: ignore[union-attr]
    "StopAsyncIteration": StopAsyncIteration,
    "BaseExceptionGroup": lambda: BaseExceptionGroup("two", [SystemExit(1), ValueError("x")]),
    "Unprintable": Unprintable,
}


@pytest.mark.parametrize("where", ["handler", "thread", "loop", "dependency", "clean-up", "policy"])
async def test_whatever_is_raised_the_job_fails_as_that(dsn: str, where: str) -> None:  # noqa: C901 - one place each
    name = ""

    def at(place: str) -> None:
        if where == place:
            error = RAISED[name]()
            raise error

    async def provided() -> AsyncIterator[int]:
        at("dependency")
        yield 1
        at("clean-up")

    def policy(attempt: int, error: BaseException) -> timedelta:
        at("policy")
        return timedelta(0)

    @job(max_retries=1, retry=policy)
    async def in_task(*, number: NamedDependency[int]) -> None:
        at("handler")
        if where == "policy":
            raise ValueError

    @job(max_retries=1, retry=policy)
    def in_thread() -> None:
        at("thread")

    @job(max_retries=1, retry=policy, sync_to_thread=False)
    def in_loop() -> None:
        at("loop")

    raises = {"thread": in_thread, "loop": in_loop}.get(where, in_task)
    async with working(dsn, [raises], dependencies={"number": Provide(provided)}) as watched:
        for name in RAISED:
            row = await watched.ran(raises())
            assert (row.status, row.attempts) == (JobStatus.FAILED, 1 if where == "policy" else 2), name
            if name == "GeneratorExit" and where == "clean-up":
                continue  # a generator may end like this
            assert name in (row.last_error or "")
            await watched.still_works()


@pytest.mark.usefixtures("short_grace")
async def test_an_error_that_closes_whoever_awaits_it_fails_the_job(dsn: str) -> None:
    """Python delivers a ``GeneratorExit`` out of a task by closing the coroutines that wait for it."""

    async def leave() -> None:
        raise GeneratorExit

    @job(max_retries=0)
    async def wait() -> None:
        await asyncio.create_task(leave())

    async with working(dsn, [wait]) as watched:
        row = await watched.ran(wait())
        await watched.still_works()
    assert (row.status, row.last_error) == (JobStatus.FAILED, "GeneratorExit")


async def test_a_handler_that_recurses_to_the_limit_fails_as_that(dsn: str) -> None:
    @job(max_retries=0)
    async def recurse() -> None:
        deeper()

    async with working(dsn, [recurse]) as watched:
        row = await watched.ran(recurse())
        await watched.still_works()
    assert row.last_error is not None
    assert row.last_error.startswith("RecursionError")


async def test_what_a_handler_returns_may_be_anything_if_it_is_not_kept(dsn: str) -> None:
    @job(result=False)
    async def give() -> object:
        return object()

    async with working(dsn, [give]) as watched:
        assert (await watched.ran(give())).status is JobStatus.COMPLETED
        await watched.still_works()


async def test_a_handler_that_logs_and_raises_megabytes_fails_with_a_short_message(dsn: str) -> None:
    @job(max_retries=0)
    async def talk() -> None:
        logging.getLogger("app").warning("x" * 5_000_000)
        raise ValueError("y" * 5_000_000)

    async with working(dsn, [talk]) as watched:
        row = await watched.ran(talk())
        (failure,) = await watched.plugin.client.store.failures(row.id)
        await watched.still_works()
    assert len(failure.message) == 2_000
    assert len(failure.traceback or "") <= 20_000


# Cancellation.


@pytest.mark.parametrize("timeout", [None, 30])
async def test_a_handler_that_cancels_itself_and_returns_has_completed(dsn: str, timeout: float | None) -> None:
    @job(timeout=timeout, max_retries=0)
    async def cancel() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async with working(dsn, [cancel]) as watched:
        assert (await watched.ran(cancel())).status is JobStatus.COMPLETED
        await watched.still_works()


async def test_a_handler_that_cancels_itself_and_waits_fails(dsn: str) -> None:
    @job(max_retries=0)
    async def cancel() -> None:
        task = asyncio.current_task()
        assert task is not None
        for _ in range(3):
            task.cancel()
        await asyncio.sleep(10)

    async with working(dsn, [cancel]) as watched:
        row = await watched.ran(cancel())
        await watched.still_works()
    assert (row.status, row.last_error) == (JobStatus.FAILED, "CancelledError")


async def test_a_handler_that_cancels_every_task_of_the_worker_does_not_stop_it(dsn: str) -> None:
    innocent = asyncio.all_tasks()

    @job(max_retries=0)
    async def cancel() -> None:
        for task in asyncio.all_tasks() - innocent:
            if "litestar-jobs" in task.get_name():
                task.cancel()

    async with working(dsn, [cancel], poll_interval=0.2) as watched:
        for _ in range(5):
            assert (await watched.ran(cancel())).status is JobStatus.COMPLETED
            await watched.still_works()
    assert {"claim", "promote", "rescue"} <= {event.chore for event in watched.of(ChoreFailed)}


async def test_what_was_claimed_when_the_claim_was_cancelled_is_not_forgotten(dsn: str) -> None:
    """The worker has a lease, so nobody would rescue it."""

    @job(max_retries=0)
    async def note() -> None: ...

    async with working(dsn, [note]) as watched:
        worker = watched.plugin.worker
        assert worker is not None
        claim = worker._claimer.claim

        async def cancelled_too_late(worker_id: UUID, at_most: int) -> NoReturn:
            if await claim(worker_id, at_most):
                worker._claimer.claim = claim  # type: ignore[method-assign]
            raise asyncio.CancelledError

        worker._claimer.claim = cancelled_too_late  # type: ignore[method-assign]
        row = await watched.ran(note())
        await watched.still_works()
    assert (row.status, row.attempts) == (JobStatus.COMPLETED, 1)


async def test_tasks_that_a_handler_leaves_behind_see_its_context_and_harm_nobody(dsn: str) -> None:
    left: list[asyncio.Task[None]] = []
    seen: list[object] = []
    go_on = asyncio.Event()

    async def linger() -> None:
        await go_on.wait()
        seen.append(current_job.get())
        raise ValueError("nobody listens")

    @job
    async def leave() -> None:
        left.append(asyncio.create_task(linger()))

    async with working(dsn, [leave]) as watched:
        row = await watched.ran(leave())
        await watched.still_works()
        go_on.set()
        await asyncio.wait(left)
    (context,) = seen
    assert isinstance(context, JobContext)
    assert (row.status, context.id) == (JobStatus.COMPLETED, row.id)
    assert isinstance(left[0].exception(), ValueError)


async def test_a_handler_that_swallows_the_cancellation_of_its_timeout_fails_as_that(dsn: str) -> None:
    @job(timeout=0.05, max_retries=0)
    async def swallow() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            return

    async with working(dsn, [swallow]) as watched:
        row = await watched.ran(swallow())
        await watched.still_works()
    assert row.last_error == "JobTimeout: the attempt ran longer than its timeout of 0.05 s"


# What never ends.


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize("where", ["handler", "dependency", "clean-up"])
async def test_an_attempt_that_does_not_end_after_its_timeout_is_given_up_and_its_late_end_changes_nothing(
    dsn: str, where: str
) -> None:
    at_last, over = asyncio.Event(), asyncio.Event()

    async def never() -> None:
        while not at_last.is_set():
            try:
                await at_last.wait()
            except asyncio.CancelledError:
                continue
        over.set()

    async def provided() -> AsyncIterator[int]:
        if where == "dependency":
            await never()
        yield 1
        if where == "clean-up":
            await never()

    @job(timeout=0.05, max_retries=0)
    async def hang(*, number: NamedDependency[int]) -> None:
        if where == "handler":
            await never()

    async with working(dsn, [hang], dependencies={"number": Provide(provided)}) as watched:
        row = await watched.ran(hang())
        await watched.still_works()
        (stuck,) = watched.of(HandlerStuck)
        at_last.set()
        await over.wait()
        await watched.still_works()
        assert await watched.plugin.client.get(row.id) == row
    assert (row.status, row.last_error) == (
        JobStatus.FAILED,
        "JobTimeout: the attempt ran longer than its timeout of 0.05 s",
    )
    assert (stuck.job_id, stuck.attempt, stuck.count) == (row.id, 1, 1)
    assert [type(event.outcome).__name__ for event in watched.of(AttemptEnded) if event.job.id == row.id] == ["Failed"]
    assert watched.of(OutcomeRefused) == []


@pytest.mark.usefixtures("short_grace")
async def test_a_commit_that_takes_longer_than_the_timeout_is_waited_for(
    dsn: str, alchemy: SQLAlchemyAsyncConfig, connection: Any
) -> None:
    """The handler has returned in time. What ends its job is locked by its own transaction, so nobody else may try."""
    await connection.execute(
        "CREATE TABLE written (n int UNIQUE DEFERRABLE INITIALLY DEFERRED);"
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NEW; END';"
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON written DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION wait()"
    )

    @job(timeout=0.3, max_retries=0)
    async def write(*, db_session: NamedDependency[AsyncSession]) -> None:
        await db_session.execute(INSERT)

    async with working(dsn, [write], plugins=[SQLAlchemyPlugin(config=alchemy)]) as watched:
        row = await watched.ran(write())
        await watched.still_works()
        assert watched.of(HandlerStuck) == []
    assert (row.status, await connection.fetchval("SELECT count(*) FROM written")) == (JobStatus.COMPLETED, 1)


async def test_threads_that_never_return_are_reported_and_do_not_use_up_the_threads(dsn: str) -> None:
    """More of them than a pool of the usual size has threads."""
    at_last = threading.Event()

    @job(timeout=0.02, max_retries=0)
    def hang(payload: int) -> None:
        at_last.wait()

    @job
    def quick() -> None: ...

    many = 40
    async with working(dsn, [hang, quick]) as watched:
        ids = await watched.plugin.client.enqueue_many(hang(number) for number in range(many))
        rows = [await ended(watched.plugin.client, job_id) for job_id in ids]
        assert (await watched.ran(quick())).status is JobStatus.COMPLETED
        await watched.still_works()
        stuck = watched.of(HandlerStuck)
        at_last.set()
    assert {row.last_error for row in rows} == {"JobTimeout: the attempt ran longer than its timeout of 0.02 s"}
    assert {event.job_id for event in stuck} == set(ids)
    assert max(event.count for event in stuck) == many


async def test_as_many_synchronous_jobs_run_at_once_as_the_concurrency_says(dsn: str) -> None:
    at_once = 50
    barrier = threading.Barrier(at_once)

    @job(max_retries=0)
    def meet(payload: int) -> None:
        barrier.wait(10)

    async with working(dsn, [meet], concurrency=at_once) as watched:
        ids = await watched.plugin.client.enqueue_many(meet(number) for number in range(at_once))
        rows = [await ended(watched.plugin.client, job_id, timeout=20) for job_id in ids]
    assert {row.status for row in rows} == {JobStatus.COMPLETED}


async def test_a_job_whose_task_was_cancelled_before_it_began_goes_back_uncounted(dsn: str) -> None:
    """Such a task never runs a line, so nothing of it can say that it has ended."""

    @job(max_retries=0)
    async def note(payload: int) -> None: ...

    @job(max_retries=0, sync_to_thread=False)
    def cancel_new_ones() -> None:
        for task in asyncio.all_tasks():
            if task.get_name() == "note":
                task.cancel()

    async with working(dsn, [note, cancel_new_ones], concurrency=CONCURRENCY) as watched:
        worker = watched.plugin.worker
        assert worker is not None
        await watched.plugin.client.enqueue_many([cancel_new_ones(priority=-1), note(1)])
        await drained(watched.plugin.client)
        await watched.still_works()
        (row,) = await watched.plugin.client.store.find(JobFilter(job_type="note"), 10)
    assert (row.status, row.attempts) == (JobStatus.COMPLETED, 1)


# The surroundings.


async def test_a_hook_that_raises_anything_disturbs_nobody(dsn: str) -> None:
    def raising(event: Event) -> None:
        if isinstance(event, AttemptStarted | AttemptEnded):
            raise SystemExit

    @job(max_retries=0)
    async def note() -> None: ...

    async with working(dsn, [note], hooks=[raising]) as watched:
        assert (await watched.ran(note())).status is JobStatus.COMPLETED
        await watched.still_works()


async def test_a_handler_that_changes_its_context_changes_nobody_elses(dsn: str) -> None:
    @job(max_retries=0)
    async def change() -> None:
        current_job.set(None)
        current_trace_id.set("somebody else's")

    async with working(dsn, [change]) as watched:
        row = await watched.ran(change())
        await watched.still_works()
    assert row.status is JobStatus.COMPLETED
    (end,) = [event for event in watched.of(AttemptEnded) if event.job.job_type == "change"]
    assert end.job.id == row.id


# Sessions.


@pytest.fixture
def alchemy(dsn: str) -> SQLAlchemyAsyncConfig:
    return SQLAlchemyAsyncConfig(
        connection_string=dsn.replace("postgresql://", "postgresql+asyncpg://", 1),
        engine_config=EngineConfig(pool_size=2, max_overflow=0, pool_timeout=1),
    )


INSERT = text("INSERT INTO written VALUES (1)")


async def commit(session: AsyncSession) -> None:
    await session.commit()


async def commit_twice(session: AsyncSession) -> None:
    await session.commit()
    await session.execute(INSERT)
    await session.commit()


async def roll_back(session: AsyncSession) -> None:
    await session.rollback()


async def close(session: AsyncSession) -> None:
    await session.close()


async def close_and_write_again(session: AsyncSession) -> None:
    await session.close()
    await session.execute(INSERT)


async def swallow_an_error_of_the_database(session: AsyncSession) -> None:
    with suppress(DBAPIError):
        await session.execute(text("SELECT 1 / 0"))


async def end_its_backend(session: AsyncSession) -> None:
    with suppress(DBAPIError):
        await session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


async def leave_a_savepoint_open(session: AsyncSession) -> None:
    await session.begin_nested()


async def detach_the_connection(session: AsyncSession) -> None:
    await (await session.connection()).run_sync(lambda held: held.detach())


@pytest.mark.parametrize(
    ("hand", "left"),
    [
        (commit, (1, JobStatus.COMPLETED)),
        (commit_twice, (2, JobStatus.COMPLETED)),
        (roll_back, (0, JobStatus.COMPLETED)),
        (close, (0, JobStatus.COMPLETED)),
        (close_and_write_again, (1, JobStatus.COMPLETED)),
        (swallow_an_error_of_the_database, (0, JobStatus.FAILED)),
        (end_its_backend, (0, JobStatus.FAILED)),
        (leave_a_savepoint_open, (1, JobStatus.COMPLETED)),
        (detach_the_connection, (1, JobStatus.COMPLETED)),
    ],
)
async def test_what_a_handler_does_to_its_session_itself(
    dsn: str,
    alchemy: SQLAlchemyAsyncConfig,
    connection: Any,
    hand: Callable[[AsyncSession], Awaitable[None]],
    left: tuple[int, JobStatus],
) -> None:
    await connection.execute("CREATE TABLE written (n int)")

    @job(max_retries=0)
    async def write(*, db_session: NamedDependency[AsyncSession]) -> None:
        await db_session.execute(INSERT)
        await hand(db_session)

    async with working(dsn, [write], plugins=[SQLAlchemyPlugin(config=alchemy)]) as watched:
        row = await watched.ran(write())
        await watched.still_works()
    assert (await connection.fetchval("SELECT count(*) FROM written"), row.status) == left


async def test_a_handler_that_takes_all_connections_of_the_pool_lets_jobs_without_one_run(
    dsn: str, alchemy: SQLAlchemyAsyncConfig
) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def provide_engine() -> AsyncEngine:
        return alchemy.get_engine()

    @job(max_retries=0)
    async def hoard(*, engine: NamedDependency[AsyncEngine]) -> None:
        held = [await engine.connect() for _ in range(2)]
        entered.set()
        await go_on.wait()
        for each in held:
            await each.close()

    @job(max_retries=1, retry=Fixed(0.1))
    async def write(*, db_session: NamedDependency[AsyncSession]) -> None:
        await db_session.execute(text("SELECT 1"))

    @job
    async def note() -> None: ...

    async with working(
        dsn,
        [hoard, write, note],
        lease=1,
        plugins=[SQLAlchemyPlugin(config=alchemy)],
        dependencies={"engine": Provide(provide_engine)},
    ) as watched:
        hoarding = await watched.plugin.client.enqueue(hoard())
        await entered.wait()
        starved = await watched.plugin.client.enqueue(write())

        async def failed_once() -> bool:
            return bool(await watched.plugin.client.store.failures(starved))

        await until(failed_once)
        go_on.set()
        assert (await ended(watched.plugin.client, hoarding)).status is JobStatus.COMPLETED
        row = await ended(watched.plugin.client, starved)
        assert (row.status, row.attempts) == (JobStatus.COMPLETED, 2)
        await watched.still_works()
