"""Jobs that must be begun, or done, within some time."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from litestar import Litestar
from msgspec import Struct
from uuid_utils.compat import uuid7

from litestar_jobs import (
    Every,
    FailedJob,
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
    RetryAfter,
    Snooze,
    Unique,
    WorkerConfig,
    job,
)
from litestar_jobs.errors import DefinitionError
from litestar_jobs.outcome import Settlement
from litestar_jobs.records import Walk
from litestar_jobs.request import NewJob
from litestar_jobs.select import follow_ups
from litestar_jobs.special import write_special
from litestar_jobs.store import Statements, Store
from litestar_jobs.telemetry import AttemptStarted, Event, JobLapsed, OutcomeRefused
from litestar_jobs.testing import drained, ended, running, until

Connection = Any
HOUR = 3600.0
SQL = Statements("litestar_jobs")


class Work(Struct):
    number: int = 0


@job
async def work(payload: Work) -> None: ...


class Watched:
    def __init__(self, plugin: JobsPlugin, events: list[Event]) -> None:
        self.client = plugin.client
        self._events = events

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self._events if isinstance(event, kind)]


@asynccontextmanager
async def working(dsn: str, jobs: Sequence[Job[Any, Any]] = (), **settings: Any) -> AsyncIterator[Watched]:
    events: list[Event] = []
    config = WorkerConfig(**{"lease": 1, "shutdown_timeout": 1} | settings)
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[work, *jobs], worker=config, hooks=[events.append]))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        yield Watched(plugin, events)


@asynccontextmanager
async def enqueuing(dsn: str) -> AsyncIterator[JobsClient]:
    """A client without a worker beside it."""
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[work], worker=None))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        yield plugin.client


async def pass_time(connection: Connection, hours: float = 1) -> None:
    """The times of all jobs are that much earlier."""
    await connection.execute(
        "UPDATE litestar_jobs.job SET expires_at = expires_at - $1::interval, deadline_at = deadline_at - $1::interval",
        timedelta(hours=hours),
    )


async def row_of(client: JobsClient, job_id: UUID) -> JobRow:
    row = await client.get(job_id)
    assert row is not None
    return row


# What is stored.


@pytest.mark.parametrize("how", ["one", "many", "with a connection"])
async def test_times_are_counted_by_the_database_whatever_way_a_job_is_enqueued(
    dsn: str, connection: Connection, how: str
) -> None:
    requests = [
        work(Work(), expires_in=60),
        work(Work(), expires_in=timedelta(minutes=1), delay=600),
        work(Work(), deadline=60),
        work(Work(), expires_in=60, run_at=datetime(2000, 1, 1, tzinfo=UTC)),
        work(Work()),
    ]
    async with enqueuing(dsn) as client:
        if how == "many":
            ids = await client.enqueue_many(requests)
        elif how == "one":
            ids = [await client.enqueue(request) for request in requests]
        else:
            async with connection.transaction():
                ids = [await client.enqueue_with(connection, request) for request in requests]
    rows = {
        row["id"]: (row["expires"], row["deadline"])
        for row in await connection.fetch(
            "SELECT id, round(extract(epoch FROM expires_at - created_at))::int AS expires,"
            " round(extract(epoch FROM deadline_at - created_at))::int AS deadline FROM litestar_jobs.job"
        )
    }
    assert [rows[job_id] for job_id in ids] == [(60, None), (660, None), (None, 60), (60, None), (None, None)]


async def test_a_job_has_the_limits_of_its_definition_unless_its_call_says_others(
    dsn: str, connection: Connection
) -> None:
    @job(expires_in=60, deadline=timedelta(minutes=5), schedules=[Every(1)])
    async def limited() -> None: ...

    assert limited().limits == (60, 300)
    assert limited(expires_in=5).limits == (5, 300)
    assert not limited().is_plain
    assert work(Work()).is_plain
    async with working(dsn, [limited], queues=["other"]) as watched:

        async def fired() -> bool:
            return bool(await watched.client.find(JobFilter(job_type="limited")))

        await connection.execute("UPDATE litestar_jobs.schedule SET decided_until = now() - interval '2 h'")
        await until(fired, 30)
        limits = await connection.fetchrow(
            "SELECT extract(epoch FROM expires_at - created_at)::int, extract(epoch FROM deadline_at - created_at)::int"
            " FROM litestar_jobs.job LIMIT 1"
        )
    assert tuple(limits) == (60, 300)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"expires_in": 0}, "expires_in must lie between"),
        ({"expires_in": "soon"}, "expires_in must be a number of seconds"),
        ({"deadline": -1}, "deadline must lie between"),
        ({"deadline": True}, "deadline must be a number"),
    ],
)
def test_limits_that_make_no_sense_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        job(**options)
    with pytest.raises(DefinitionError, match=told):
        work(Work(), **options)
    with pytest.raises(DefinitionError, match=told):
        JobRequest(job_type="work", **options)


def test_a_delay_behind_the_deadline_is_refused() -> None:
    with pytest.raises(DefinitionError, match="a job that waits 60 cannot keep a deadline of 60"):
        work(Work(), delay=60, deadline=60)


# Expiry.


async def test_a_job_that_was_not_begun_in_time_is_never_started(dsn: str, connection: Connection) -> None:
    async with enqueuing(dsn) as client:
        ids = await client.enqueue_many(work(Work(n), expires_in=HOUR if n % 2 else 2 * HOUR) for n in range(40))
    await pass_time(connection)
    async with working(dsn) as watched:
        rows = [await ended(watched.client, job_id) for job_id in ids]
        failures = [await watched.client.store.failures(row.id) for row in rows]
        await drained(watched.client)
    for row, kept in zip(rows, failures, strict=True):
        if row.payload["number"] % 2:
            assert (row.status, row.attempts, row.started_at) == (JobStatus.CANCELLED, 0, None)
            assert row.last_error == "JobExpired: no attempt was begun in time"
            assert [failure.attempt for failure in kept] == [0]
        else:
            assert (row.status, kept) == (JobStatus.COMPLETED, [])
    assert {event.job.id for event in watched.of(AttemptStarted)} == {row.id for row in rows if row.last_error is None}
    assert len(watched.of(JobLapsed)) == 20
    assert all(event.is_expired for event in watched.of(JobLapsed))
    assert watched.of(OutcomeRefused) == []


@pytest.mark.parametrize("where", ["ready", "scheduled", "held"])
async def test_a_job_that_nobody_takes_expires_all_the_same(dsn: str, connection: Connection, where: str) -> None:
    async with enqueuing(dsn) as client:
        delay = HOUR / 2 if where == "scheduled" else 0
        job_id = await client.enqueue(work(Work(), queue="nobody's", expires_in=HOUR, delay=delay))
    if where == "held":
        await connection.execute(
            "WITH gone AS (DELETE FROM litestar_jobs.ready RETURNING id, run_at, priority, attempts, queue) "
            "INSERT INTO litestar_jobs.held SELECT *, 'suspect' FROM gone"
        )
    async with working(dsn) as watched:
        await asyncio.sleep(0)
        assert (await row_of(watched.client, job_id)).status is JobStatus.PENDING
        await pass_time(connection, hours=2)
        row = await ended(watched.client, job_id)
        assert (row.status, row.attempts, row.last_error) == (
            JobStatus.CANCELLED,
            0,
            "JobExpired: no attempt was begun in time",
        )
        assert [event.job_id for event in watched.of(JobLapsed)] == [job_id]


@pytest.mark.parametrize(
    ("before", "expires"), [("retry", False), ("snooze", False), ("release", True), ("rescue", False)]
)
async def test_an_attempt_that_counts_is_a_beginning_and_one_that_was_interrupted_is_none(
    store: Store, connection: Connection, before: Any, *, expires: bool
) -> None:
    worker_id = uuid7()
    await store.register(worker_id, "host", 1, ["default"], HOUR)
    asked = NewJob(uuid7(), work(Work(), expires_in=HOUR))
    await write_special(connection.fetch, SQL, [asked], None)
    (claimed,) = await store.claim({"default": 1}, {}, worker_id, "{}")
    assert not claimed.expired
    if before == "rescue":
        await store.renew(worker_id, 0)
        await store.rescue(HOUR)
        worker_id = uuid7()
        await store.register(worker_id, "host", 1, ["default"], HOUR)
    else:
        await store.settle([(claimed, Settlement(before))])
    await pass_time(connection)
    (claimed,) = await store.claim({"default": 1}, {}, worker_id, "{}")
    assert claimed.expired is expires
    await store.settle([(claimed, Settlement("release"))])
    lapsed, walked, _ = await store.lapse(Walk(), 10)
    assert (bool(lapsed), walked) == (expires, 1)


async def test_a_retry_by_hand_has_no_limits_any_more(dsn: str, connection: Connection) -> None:
    async with enqueuing(dsn) as client:
        expired = await client.enqueue(work(Work(), expires_in=HOUR))
        overdue = await client.enqueue(work(Work(), deadline=HOUR))
    await pass_time(connection)
    async with working(dsn) as watched:
        assert (await ended(watched.client, expired)).status is JobStatus.CANCELLED
        assert (await ended(watched.client, overdue)).status is JobStatus.FAILED
        assert await watched.client.retry(expired)
        assert await watched.client.retry_all(JobFilter(ids=[overdue])) == 1
        for job_id in (expired, overdue):
            assert (await ended(watched.client, job_id)).status is JobStatus.COMPLETED


# Deadlines.


async def test_a_running_attempt_is_cut_off_at_the_deadline_and_there_is_no_other(dsn: str) -> None:
    told: list[type[BaseException]] = []

    @job(max_retries=5, retry=Fixed(0), timeout=60, deadline=0.2)
    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            told.append(type(error))
            raise

    async with working(dsn, [forever]) as watched:
        row = await ended(watched.client, await watched.client.enqueue(forever()))
    assert (row.status, row.attempts) == (JobStatus.FAILED, 1)
    assert row.last_error == "JobDeadline: the deadline of the job was over while it ran"
    assert told == [asyncio.CancelledError]


async def test_the_timeout_of_an_attempt_counts_if_it_is_sooner(dsn: str) -> None:
    @job(max_retries=1, retry=Fixed(0), timeout=0.05, deadline=60)
    async def forever() -> None:
        await asyncio.Event().wait()

    async with working(dsn, [forever]) as watched:
        row = await ended(watched.client, await watched.client.enqueue(forever()))
    assert (row.status, row.attempts) == (JobStatus.FAILED, 2)
    assert row.last_error == "JobTimeout: the attempt ran longer than its timeout of 0.05 s"


async def test_a_thread_is_told_of_the_deadline_by_its_flag(dsn: str) -> None:
    seen = threading.Event()

    @job(deadline=0.2)
    def loop(*, job: JobContext) -> None:
        while not job.is_cancelled:
            seen.wait(0.005)
        seen.set()

    async with working(dsn, [loop]) as watched:
        row = await ended(watched.client, await watched.client.enqueue(loop()))
        assert await asyncio.to_thread(seen.wait, 10)
    assert row.status is JobStatus.FAILED


@pytest.mark.parametrize("asked", ["policy", "RetryAfter", "Snooze"])
async def test_what_would_go_on_after_the_deadline_fails_at_once(dsn: str, asked: str) -> None:
    @job(max_retries=5, retry=Fixed(HOUR), deadline=60)
    async def fail() -> None:
        match asked:
            case "RetryAfter":
                raise RetryAfter(HOUR, "busy")
            case "Snooze":
                raise Snooze(HOUR, "busy")
            case _:
                raise ConnectionError("busy")

    async with working(dsn, [fail]) as watched:
        row = await ended(watched.client, await watched.client.enqueue(fail()))
        (failure,) = await watched.client.store.failures(row.id)
    assert (row.status, row.attempts) == (JobStatus.FAILED, 1)
    assert row.last_error == "JobDeadline: the deadline of the job comes before its next attempt could"
    assert "busy" in (failure.traceback or ""), "what it was that failed is kept"


@pytest.mark.parametrize("where", ["claimed", "nobody's"])
async def test_a_job_that_waits_beyond_its_deadline_fails_and_is_told_of(
    dsn: str, connection: Connection, where: str
) -> None:
    told: list[FailedJob] = []

    @job
    async def tell(payload: FailedJob) -> None:
        told.append(payload)

    @job(on_failure=tell, deadline=HOUR)
    async def slow(payload: Work) -> None:
        raise AssertionError

    async with enqueuing(dsn) as client:
        queue = "default" if where == "claimed" else "nobody's"
        job_id = await client.enqueue(slow(Work(7), queue=queue))
    await pass_time(connection)
    async with working(dsn, [slow, tell]) as watched:
        row = await ended(watched.client, job_id)

        async def heard() -> bool:
            return bool(told)

        await until(heard)
        await drained(watched.client)
    assert (row.status, row.attempts) == (JobStatus.FAILED, 0)
    text = "the deadline of the job was over before an attempt could begin"
    assert row.last_error == f"JobDeadline: {text}"
    assert [(each.id, each.attempts, each.error_type, each.message, each.payload) for each in told] == [
        (job_id, 0, "JobDeadline", text, {"number": 7})
    ]
    assert [event.is_expired for event in watched.of(JobLapsed)] == [False]


# Sweeping.


async def test_a_sweep_ends_every_one_of_many_that_lapse_at_the_same_moment(
    dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are walked over in slices."""
    monkeypatch.setattr("litestar_jobs.worker.lapse.SLICE", 7)
    count = 100
    async with enqueuing(dsn) as client:
        await client.enqueue_many(
            work(Work(), queue="nobody's", expires_in=HOUR if n % 2 else None, deadline=None if n % 2 else HOUR)
            for n in range(count)
        )
    assert (
        await connection.fetchval("SELECT count(DISTINCT COALESCE(expires_at, deadline_at)) FROM litestar_jobs.job")
        == 1
    )
    await pass_time(connection)
    async with working(dsn) as watched:

        async def all_over() -> bool:
            return len(watched.of(JobLapsed)) == count

        await until(all_over)
        statuses = [row.status for row in await watched.client.find(JobFilter.everything())]
    assert statuses.count(JobStatus.CANCELLED) == statuses.count(JobStatus.FAILED) == count / 2


async def test_a_walk_does_not_go_over_what_ended_before(store: Store, connection: Connection) -> None:
    jobs = [NewJob(uuid7(), work(Work(), expires_in=HOUR)) for _ in range(50)]
    await write_special(connection.fetch, SQL, jobs, None)
    await pass_time(connection)
    lapsed, walked, since = await store.lapse(Walk(), 100)
    assert (len(lapsed), walked) == (50, 50)
    assert await store.lapse(since, 100) == ([], 0, since)
    lapsed, walked, _ = await store.lapse(Walk(), 100)
    assert (lapsed, walked) == ([], 50)


async def test_many_that_sweep_at_once_end_each_job_once_and_tell_once(store: Store, connection: Connection) -> None:
    @job(name="work")
    async def tell(payload: FailedJob) -> None: ...

    followed: Any = job(name="followed", on_failure=tell)(work.fn)
    jobs = [NewJob(uuid7(), followed(Work(), deadline=HOUR)) for _ in range(50)]
    await write_special(connection.fetch, SQL, jobs, None)
    await pass_time(connection)
    follow = follow_ups({"followed": followed})
    sweeps = await asyncio.gather(*(store.lapse(Walk(), 100, follow) for _ in range(5)))
    assert sum(len(lapsed) for lapsed, _, _ in sweeps) == 50
    assert len(await store.find(JobFilter(job_type="work"), 100)) == 50


@pytest.mark.parametrize("on_conflict", ["replace", "reschedule"])
async def test_a_unique_job_that_is_asked_for_anew_has_its_time_anew(
    dsn: str, connection: Connection, on_conflict: Any
) -> None:
    @job(unique=Unique(on_conflict=on_conflict), expires_in=HOUR, deadline=3 * HOUR)
    async def refresh() -> None: ...

    async with enqueuing(dsn) as client:
        first = await client.enqueue(refresh())
        await pass_time(connection)
        again = await client.enqueue(refresh(delay=HOUR / 2))
    assert again == first
    (row,) = await connection.fetch(
        "SELECT round(extract(epoch FROM expires_at - now()) / 60)::int,"
        " round(extract(epoch FROM deadline_at - now()) / 60)::int FROM litestar_jobs.job"
    )
    assert tuple(row) == (90, 180)
