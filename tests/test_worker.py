"""What the worker promises, on a real database, one promise a test."""

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from litestar import Litestar
from msgspec import Struct
from uuid_utils.compat import uuid7

from litestar_jobs import (
    Fixed,
    Job,
    JobContext,
    JobFilter,
    JobRequest,
    JobRow,
    JobsClient,
    JobsConfig,
    JobsPlugin,
    JobStatus,
    WorkerConfig,
    job,
)
from litestar_jobs.context import current_job
from litestar_jobs.errors import EnqueueError, EnqueueUncertain
from litestar_jobs.request import NewJob
from litestar_jobs.store import Store
from litestar_jobs.testing import drained, ended, running, until
from litestar_jobs.worker import execute
from litestar_jobs.worker.attempt import Attempt

NO_POLLING = 3600.0


@asynccontextmanager
async def worker(dsn: str, jobs: Sequence[Job[Any, Any]], **settings: Any) -> AsyncIterator[JobsPlugin]:
    """An application with a worker that finds jobs only by being told of them, unless it may poll."""
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=jobs, worker=WorkerConfig(**{"poll_interval": NO_POLLING} | settings)))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        yield plugin


async def ran(client: JobsClient, request: JobRequest) -> JobRow:
    return await ended(client, await client.enqueue(request))


class Order(Struct):
    number: int


class Gate:
    """Holds handlers until it is opened, and tells when they are there."""

    def __init__(self) -> None:
        self.entered = asyncio.Semaphore(0)
        self.inside = 0
        self.most_inside = 0
        self._open = asyncio.Event()

    def open(self) -> None:
        self._open.set()

    async def pass_through(self) -> None:
        self.inside += 1
        self.most_inside = max(self.inside, self.most_inside)
        self.entered.release()
        try:
            await self._open.wait()
        finally:
            self.inside -= 1


# Retries


async def test_a_failing_job_runs_max_retries_times_more_and_keeps_each_failure(dsn: str) -> None:
    attempts: list[tuple[int, bool]] = []

    @job(max_retries=2, retry=Fixed(0))
    async def fail(payload: Order, job: JobContext) -> None:
        attempts.append((job.attempt, job.is_last_attempt))
        raise LookupError(f"no order {payload.number}, attempt {job.attempt}")

    async with worker(dsn, [fail]) as plugin:
        row = await ran(plugin.client, fail(Order(7)))
        failures = await plugin.client.store.failures(row.id)

    assert attempts == [(1, False), (2, False), (3, True)]
    assert (row.status, row.attempts, row.last_error) == (JobStatus.FAILED, 3, "LookupError: no order 7, attempt 3")
    assert [(failure.attempt, failure.error_type) for failure in failures] == [(n, "LookupError") for n in (1, 2, 3)]
    assert all("raise LookupError" in (failure.traceback or "") for failure in failures)


async def test_a_retry_waits_as_its_policy_says_and_runs_at_its_time_not_at_the_next_poll(dsn: str) -> None:
    times: list[float] = []

    @job(max_retries=1, retry=Fixed(timedelta(seconds=0.3)))
    async def fail_once() -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            raise RuntimeError

    async with worker(dsn, [fail_once]) as plugin:
        row = await ran(plugin.client, fail_once())

    assert (row.status, row.attempts) == (JobStatus.COMPLETED, 2)
    assert 0.3 <= times[1] - times[0] < 1.5


async def test_a_policy_decides_by_the_exception(dsn: str) -> None:
    calls = 0

    @job(name="picky", max_retries=5, retry=lambda _, error: None if isinstance(error, KeyError) else timedelta(0))
    async def picky() -> None:
        nonlocal calls
        calls += 1
        raise KeyError("final") if calls == 2 else ValueError("again")

    async with worker(dsn, [picky]) as plugin:
        row = await ran(plugin.client, picky())
    assert (row.status, row.attempts, calls) == (JobStatus.FAILED, 2, 2)


async def test_a_job_of_an_unknown_type_waits_and_is_not_counted(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    @job
    async def known() -> None: ...

    async with worker(dsn, [known]) as plugin:
        job_id = await plugin.client.enqueue(JobRequest(job_type="from_the_future", payload=b'{"n": 1}'))
        await until(lambda: _logged(caplog, "from_the_future"))
        row = await until(lambda: _pending_later(plugin.client, job_id))
    assert (row.status, row.attempts, row.payload) == (JobStatus.PENDING, 0, {"n": 1})


async def test_a_job_that_an_old_worker_does_not_know_is_run_by_a_new_one(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "UNKNOWN_FIRST", 0.05)

    @job(name="old")
    async def old() -> None: ...

    @job(name="from_tomorrow", max_retries=0)
    async def new() -> None: ...

    async with worker(dsn, [old]) as plugin:
        job_id = await plugin.client.enqueue(new())
        await until(lambda: _pending_later(plugin.client, job_id))
        async with worker(dsn, [old, new]):
            row = await ended(plugin.client, job_id)
    assert (row.status, row.attempts) == (JobStatus.COMPLETED, 1)


async def test_a_worker_that_does_not_know_a_job_lets_one_that_does_go_first(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Not by chance: a deploy costs a job one delay and not several, which double."""

    @job(name="old")
    async def old() -> None: ...

    @job(name="from_tomorrow")
    async def new() -> None: ...

    async with worker(dsn, [old]) as plugin:
        for rounds in range(1, 6):
            assert plugin.worker is not None
            plugin.worker._executor._unknown["from_tomorrow"] = 1.0
            job_id = await plugin.client.enqueue(new())
            await until(partial(_pending_later, plugin.client, job_id))
            async with worker(dsn, [old, new]):
                await ended(plugin.client, job_id)
            assert caplog.text.count("no job of this name is known here") == rounds


async def _logged(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return text in caplog.text


async def _pending_later(client: JobsClient, job_id: UUID) -> JobRow | None:
    row = await client.get(job_id)
    return row if row and row.run_at > row.created_at and row.status is JobStatus.PENDING else None


async def test_a_payload_that_no_longer_decodes_ends_as_failed_says_where_and_can_be_retried_after_a_fix(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    seen: list[Order] = []

    @job(max_retries=5)
    async def ship(payload: Order) -> None:
        seen.append(payload)

    async with worker(dsn, [ship]) as plugin:
        row = await ran(plugin.client, JobRequest(job_type="ship", payload=b'{"number": "seven"}', max_retries=5))
        (failure,) = await plugin.client.store.failures(row.id)
        assert (row.status, row.attempts, row.payload) == (JobStatus.FAILED, 1, {"number": "seven"})
        assert failure.error_type == "PayloadError"
        assert "Expected `int`, got `str` - at `$.number`" in failure.message

        await connection.execute("""UPDATE litestar_jobs.job SET payload = '{"number": 7}'""")
        assert await plugin.client.retry(row.id)
        assert (await ended(plugin.client, row.id)).status is JobStatus.COMPLETED
    assert seen == [Order(7)]


# Timeouts


async def test_an_attempt_that_exceeds_its_timeout_is_cancelled_and_fails_as_that(dsn: str) -> None:
    cancelled = asyncio.Event()

    @job(timeout=0.05, max_retries=0)
    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with worker(dsn, [hang]) as plugin:
        row = await ran(plugin.client, hang())
    assert cancelled.is_set()
    assert row.status is JobStatus.FAILED
    assert row.last_error == "JobTimeout: the attempt ran longer than its timeout of 0.05 s"


async def test_a_timeout_error_of_the_handlers_own_is_kept_as_it_is(dsn: str) -> None:
    @job(timeout=30, max_retries=0)
    async def impatient() -> None:
        raise TimeoutError("upstream took too long")

    async with worker(dsn, [impatient]) as plugin:
        row = await ran(plugin.client, impatient())
        (failure,) = await plugin.client.store.failures(row.id)
    assert (failure.error_type, failure.message) == ("TimeoutError", "upstream took too long")


async def test_a_handler_that_cancels_itself_fails_like_any_other(dsn: str) -> None:
    @job(max_retries=0)
    async def give_up() -> None:
        raise asyncio.CancelledError

    @job(max_retries=0)
    async def leave() -> None:
        raise SystemExit(3)

    async with worker(dsn, [give_up, leave]) as plugin:
        assert (await ran(plugin.client, give_up())).status is JobStatus.FAILED
        assert (await ran(plugin.client, leave())).status is JobStatus.FAILED


# Order, queues, concurrency


async def test_lower_priority_numbers_run_first_and_equals_in_the_order_of_their_coming(dsn: str) -> None:
    order: list[int] = []

    @job
    async def note(payload: int) -> None:
        order.append(payload)

    enqueuer = JobsPlugin(JobsConfig(dsn=dsn, jobs=[note], worker=None))
    async with running(Litestar(plugins=[enqueuer], logging_config=None)):
        for number, priority in enumerate([5, 0, -3, 0, 5, 9]):
            await enqueuer.client.enqueue(note(number, priority=priority))
    async with worker(dsn, [note], concurrency=1) as plugin:
        await drained(plugin.client)
    assert order == [2, 1, 3, 0, 4, 5]


async def test_a_job_that_comes_before_those_already_claimed_is_found_without_polling(
    dsn: str,
) -> None:
    """Claims begin where the last one ended; higher priorities and late commits lie before that."""

    @job
    async def note() -> None: ...

    late = await asyncpg.connect(dsn)
    try:
        async with worker(dsn, [note]) as plugin:
            async with late.transaction():
                held_back = await plugin.client.enqueue_with(late, note())
                for priority in (0, -1, 0, -2, -2, -3, 0):
                    await ran(plugin.client, note(priority=priority))
            assert (await ended(plugin.client, held_back)).status is JobStatus.COMPLETED
    finally:
        await late.close()


async def test_never_more_jobs_run_at_once_than_the_concurrency(dsn: str) -> None:
    gate = Gate()

    @job
    async def wait(payload: int) -> None:
        await gate.pass_through()

    async with worker(dsn, [wait], concurrency=3) as plugin:
        await plugin.client.enqueue_many(wait(number) for number in range(8))
        for _ in range(3):
            await gate.entered.acquire()
        counts = {count.status: count.jobs for count in await plugin.client.store.count()}
        assert counts == {"running": 3, "pending": 5}  # a slow job keeps nobody else's jobs waiting
        gate.open()
        await drained(plugin.client)
    assert gate.most_inside == 3


async def test_a_worker_takes_jobs_of_all_queues_that_its_jobs_name_and_of_no_other(dsn: str) -> None:
    done: list[str] = []

    @job(queue="emails \"'; --")
    async def mail_out() -> None:
        done.append("mail")

    @job(queue="reports")
    async def report() -> None:
        done.append("report")

    async with worker(dsn, [mail_out, report]) as plugin:
        elsewhere = await plugin.client.enqueue(report(queue="nobody's"))
        await ran(plugin.client, mail_out())
        await ran(plugin.client, report())
        row = await plugin.client.get(elsewhere)
    assert sorted(done) == ["mail", "report"]
    assert row is not None
    assert row.status is JobStatus.PENDING


async def test_a_full_queue_does_not_starve_another(dsn: str) -> None:
    finished: list[str] = []

    @job(queue="full")
    async def many() -> None:
        finished.append("full")

    @job(queue="small")
    async def few() -> None:
        finished.append("small")

    enqueuer = JobsPlugin(JobsConfig(dsn=dsn, jobs=[many, few], worker=None))
    async with running(Litestar(plugins=[enqueuer], logging_config=None)):
        await enqueuer.client.enqueue_many(many() for _ in range(500))
        await enqueuer.client.enqueue_many(few() for _ in range(5))
    async with worker(dsn, [many, few], concurrency=2) as plugin:
        await drained(plugin.client)
    assert "small" not in finished[60:]
    assert len(finished) == 505


async def test_two_workers_share_the_jobs_and_none_runs_twice(dsn: str) -> None:
    seen: list[tuple[str, int]] = []

    def note_in(name: str) -> Job[int, None]:
        @job(name="note")
        async def note(payload: int) -> None:
            seen.append((name, payload))
            await asyncio.sleep(0)

        return note

    async with worker(dsn, [note_in("a")], concurrency=5) as a, worker(dsn, [note_in("b")], concurrency=5):
        await a.client.enqueue_many(JobRequest(job_type="note", payload=str(n).encode()) for n in range(400))
        await drained(a.client)
    assert sorted(number for _, number in seen) == list(range(400))


async def test_claims_are_planned_once(dsn: str) -> None:
    """Left to itself, the server plans each claim anew, which takes as long as to claim one job."""

    @job
    async def nothing() -> None: ...

    async with worker(dsn, [nothing]) as plugin:
        for _ in range(10):
            await ran(plugin.client, nothing())
        assert plugin.worker is not None
        used = await plugin.worker._claims_store._fetch(
            "SELECT custom_plans FROM pg_prepared_statements WHERE statement LIKE '-- Claim%'"
        )
    assert [row["custom_plans"] for row in used] in ([0], [])  # behind a pooler nothing is prepared


async def test_synchronous_jobs_run_in_threads_with_their_context(dsn: str) -> None:
    threads: list[tuple[bool, str]] = []

    def look(job: JobContext) -> None:
        seen = current_job.get()
        threads.append((threading.current_thread() is threading.main_thread(), str(seen and seen.id == job.id)))

    @job
    def threaded(*, job: JobContext) -> None:
        look(job)

    @job(sync_to_thread=False)
    def in_loop(*, job: JobContext) -> None:
        look(job)

    async with worker(dsn, [threaded, in_loop]) as plugin:
        await ran(plugin.client, threaded())
        await ran(plugin.client, in_loop())
    assert threads == [(False, "True"), (True, "True")]


# Waking


async def test_a_scheduled_job_runs_at_its_time(dsn: str) -> None:
    times: list[float] = []

    @job
    async def note() -> None:
        times.append(time.monotonic())

    async with worker(dsn, [note]) as plugin:
        begun = time.monotonic()
        await ran(plugin.client, note(delay=0.4))
    assert 0.4 <= times[0] - begun < 1.5


async def test_a_worker_hears_of_jobs_of_other_processes_now_and_later(dsn: str) -> None:
    @job
    async def note() -> None: ...

    other = JobsPlugin(JobsConfig(dsn=dsn, jobs=[note], worker=None))
    async with worker(dsn, [note]) as plugin, running(Litestar(plugins=[other], logging_config=None)):
        for request in (note(), note(delay=0.2)):
            job_id = await other.client.enqueue(request)
            assert (await ended(plugin.client, job_id, timeout=5)).status is JobStatus.COMPLETED


async def test_polling_finds_what_no_notification_told(dsn: str, store: Store) -> None:
    @job
    async def note() -> None: ...

    async with worker(dsn, [note], poll_interval=0.1) as plugin:
        deaf = store
        deaf._channel = "nobody_listens"
        job_id = uuid7()
        await deaf.enqueue([NewJob(job_id, note())])
        assert (await ended(plugin.client, job_id)).status is JobStatus.COMPLETED


async def test_a_listener_whose_connection_broke_hears_again(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    @job
    async def note() -> None: ...

    async with worker(dsn, [note], poll_interval=0.2) as plugin:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await until(lambda: _enqueued_and_done(plugin.client, note()))


async def _enqueued_and_done(client: JobsClient, request: JobRequest) -> bool:
    try:
        return (await ran(client, request)).status is JobStatus.COMPLETED
    except (EnqueueError, EnqueueUncertain, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False


# Leases


async def dead_workers_job(store: Store, request: JobRequest, lease: float) -> UUID:
    """A job that a worker has claimed which will never be heard of again."""
    job_id, worker_id = uuid7(), uuid7()
    await store.register(worker_id, "gone", 1, ["default"], lease)
    await store.enqueue([NewJob(job_id, request)])
    (claimed,) = await store.claim({request.queue: 1}, {}, worker_id, "{}")
    assert claimed.id == job_id
    return job_id


async def test_a_dead_process_loses_its_jobs_when_its_lease_ends_and_the_attempt_counts(
    dsn: str, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    @job(max_retries=1)
    async def note() -> None: ...

    lost = await dead_workers_job(store, note(), lease=0.2)
    async with worker(dsn, [note], lease=1) as plugin:
        row = await ended(plugin.client, lost)
        failures = await plugin.client.store.failures(lost)
    assert (row.status, row.attempts) == (JobStatus.COMPLETED, 2)
    assert [failure.error_type for failure in failures] == ["WorkerLost"]
    assert str(lost) in caplog.text


async def test_a_job_whose_last_attempt_was_lost_ends_as_failed(dsn: str, store: Store) -> None:
    @job(max_retries=0)
    async def note() -> None: ...

    lost = await dead_workers_job(store, note(), lease=0.2)
    async with worker(dsn, [note], lease=1) as plugin:
        row = await ended(plugin.client, lost)
    assert (row.status, row.attempts) == (JobStatus.FAILED, 1)
    assert row.last_error == "WorkerLost: the process that ran it stopped renewing its lease"


async def test_an_attempt_that_has_ended_is_gone_without_the_garbage_collector(dsn: str) -> None:
    """Circles would be found by it alone, which takes a third of the time of short jobs."""

    @job(name="leaves nothing")
    async def nothing() -> None: ...

    async def all_gone() -> bool:
        """Those of other tests may be held by what these keep."""
        attempts = [each for each in gc.get_objects() if isinstance(each, Attempt)]
        return not any(each.claimed.job_type == nothing.name for each in attempts)

    gc.collect()
    gc.disable()
    try:
        async with worker(dsn, [nothing]) as plugin:
            await plugin.client.enqueue_many(nothing() for _ in range(50))
            await drained(plugin.client)
            await until(all_gone)
    finally:
        gc.enable()


async def test_a_handler_that_blocks_the_event_loop_beyond_the_lease_is_not_rescued(dsn: str) -> None:
    calls = 0

    @job(name="block", sync_to_thread=False)
    def block() -> None:
        nonlocal calls
        calls += 1
        time.sleep(2.2)

    async with worker(dsn, [block], lease=1) as plugin:
        row = await ran(plugin.client, block())
    assert (row.status, row.attempts, calls) == (JobStatus.COMPLETED, 1, 1)


async def test_a_worker_that_lost_its_lease_stops_its_jobs_and_takes_a_new_one(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]", caplog: pytest.LogCaptureFixture
) -> None:
    attempts: list[int] = []
    first = asyncio.Event()

    @job(retry=Fixed(0))
    async def wait(*, job: JobContext) -> None:
        attempts.append(job.attempt)
        if job.attempt == 1:
            first.set()
            await asyncio.Event().wait()

    async with worker(dsn, [wait], lease=1) as plugin:
        assert plugin.worker is not None
        before = plugin.worker.worker_id
        job_id = await plugin.client.enqueue(wait())
        await first.wait()
        await connection.execute("DELETE FROM litestar_jobs.worker")
        row = await ended(plugin.client, job_id)
        after = plugin.worker.worker_id
    assert attempts == [1, 2]
    assert (row.status, row.attempts) == (JobStatus.COMPLETED, 2)
    assert before != after
    assert "lost its lease and stopped 1 jobs" in caplog.text


async def test_a_worker_whose_lease_cannot_be_renewed_for_any_reason_says_so_and_recovers(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]", caplog: pytest.LogCaptureFixture
) -> None:
    @job
    async def note() -> None: ...

    async with worker(dsn, [note], lease=1, poll_interval=0.1) as plugin:
        running_worker = plugin.worker
        assert running_worker is not None
        await connection.execute("ALTER TABLE litestar_jobs.worker RENAME TO hidden")

        async def lost() -> bool:
            return running_worker.worker_id is None

        await until(lost)
        await connection.execute("ALTER TABLE litestar_jobs.hidden RENAME TO worker")
        assert (await ran(plugin.client, note())).status is JobStatus.COMPLETED
    assert "lost its lease" in caplog.text


async def test_an_attempt_far_past_its_timeout_is_taken_from_a_process_that_still_lives(
    dsn: str, store: Store, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    @job(max_retries=1)
    async def note() -> None: ...

    stuck = await dead_workers_job(store, note(), lease=3600)
    await connection.execute("UPDATE litestar_jobs.running SET deadline = now() - interval '2 s'")
    async with worker(dsn, [note], lease=1) as plugin:
        row = await ended(plugin.client, stuck)
        (failure,) = await plugin.client.store.failures(stuck)
    assert (row.status, row.attempts, failure.error_type) == (JobStatus.COMPLETED, 2, "JobTimeout")


async def test_a_running_job_shows_its_deadline_and_lease(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    gate = Gate()

    @job(timeout=500)
    async def wait() -> None:
        await gate.pass_through()

    async with worker(dsn, [wait], lease=15) as plugin:
        job_id = await plugin.client.enqueue(wait())
        await gate.entered.acquire()
        row = await plugin.client.get(job_id)
        limit = await connection.fetchval("SELECT deadline - started_at FROM litestar_jobs.running")
        gate.open()
        await ended(plugin.client, job_id)
    assert row is not None
    assert row.started_at is not None
    assert row.locked_until is not None
    assert (row.status, row.attempts) == (JobStatus.RUNNING, 1)
    assert timedelta(seconds=10) < row.locked_until - row.started_at < timedelta(seconds=16)
    assert limit == timedelta(seconds=500)


# Stopping


async def test_stopping_waits_for_running_jobs(dsn: str, store: Store) -> None:
    gate = Gate()

    @job
    async def wait() -> None:
        await gate.pass_through()

    async with worker(dsn, [wait]) as plugin:
        job_id = await plugin.client.enqueue(wait())
        await gate.entered.acquire()
        asyncio.get_running_loop().call_later(0.1, gate.open)
    row = await store.get(job_id)
    assert row is not None
    assert row.status is JobStatus.COMPLETED


async def test_a_job_that_outlasts_the_stop_is_cancelled_and_handed_back_uncounted(dsn: str, store: Store) -> None:
    gate = Gate()

    @job(max_retries=0)
    async def wait() -> None:
        await gate.pass_through()

    async with worker(dsn, [wait], shutdown_timeout=0.05) as plugin:
        job_id = await plugin.client.enqueue(wait())
        await gate.entered.acquire()
    row = await store.get(job_id)
    assert row is not None
    assert (row.status, row.attempts, row.last_error) == (JobStatus.PENDING, 0, None)

    gate.open()
    async with worker(dsn, [wait]) as plugin:
        row = await ended(plugin.client, job_id)
    assert (row.status, row.attempts) == (JobStatus.COMPLETED, 1)


async def test_a_stopped_worker_leaves_no_row_connection_task_or_thread(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    @job
    async def note() -> None: ...

    tasks, threads = asyncio.all_tasks(), threading.active_count()
    async with worker(dsn, [note]) as plugin:
        await ran(plugin.client, note())
    assert asyncio.all_tasks() == tasks
    assert await connection.fetchval("SELECT count(*) FROM litestar_jobs.worker") == 0

    async def nothing_left() -> bool:
        others = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        return others == 0 and threading.active_count() == threads

    await until(nothing_left)


async def test_no_shutdown_strands_a_job_between_claim_and_start(dsn: str, store: Store) -> None:
    """Twenty stops in the midst of claiming: every job is either finished or pending afterwards, uncounted."""

    @job(max_retries=0)
    async def note(payload: int) -> None:
        await asyncio.sleep(0)

    for turn in range(20):
        async with worker(dsn, [note], shutdown_timeout=0) as plugin:
            await plugin.client.enqueue_many(note(number) for number in range(50 + turn))
    counts = {count.status for count in await store.count()}
    assert counts <= {"completed", "pending"}
    rows = await store.find(JobFilter(status="pending"), 10_000)
    assert all(row.attempts == 0 for row in rows)
