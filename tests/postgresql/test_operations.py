"""Many jobs at once: filters mean what they say, and operations on them race with workers and with each other."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litestar import Litestar
from uuid_utils.compat import uuid7

from litestar_jobs import Job, JobFilter, JobRequest, JobsClient, JobsConfig, JobsPlugin, JobStatus, WorkerConfig, job
from litestar_jobs import operate as operating
from litestar_jobs.course import Course
from litestar_jobs.database import Database, Link
from litestar_jobs.errors import DefinitionError
from litestar_jobs.operate import Operator
from litestar_jobs.store import Statements, Store
from litestar_jobs.testing import drained, running, until

SQL = Statements("litestar_jobs")
EVERYTHING = JobFilter.everything()


@asynccontextmanager
async def client_on(
    dsn: str, worker: WorkerConfig | None = None, jobs: tuple[Job[Any, Any], ...] = ()
) -> AsyncIterator[JobsClient]:
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=jobs, worker=worker))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        yield plugin.client


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[JobsClient]:
    """A client without a worker beside it."""
    async with client_on(dsn) as opened:
        yield opened


def asked(count: int = 1, **options: Any) -> list[JobRequest]:
    return [JobRequest(job_type="note", **options) for _ in range(count)]


async def end(store: Store, ids: Sequence[UUID], status: str = "failed", error: str = "OSError: no route") -> None:
    """Let these jobs, which are ready, end like that."""
    where = "UPDATE litestar_jobs.finished SET status = $2 WHERE id = ANY ($1)"
    assert len(await store.cancel_many(ids)) == len(ids)
    await store._fetch(where, ids, status)  # pyright: ignore[reportPrivateUsage]
    kind, _, message = error.partition(": ")
    note = "INSERT INTO litestar_jobs.failure SELECT id, now(), 1, $2, $3 FROM unnest($1::uuid[]) AS id"
    await store._fetch(note, ids, kind, message)  # pyright: ignore[reportPrivateUsage]


# Filters.


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        ({}, "a filter needs a condition"),
        ({"all_jobs": True, "queue": "a"}, "has no conditions"),
        ({"status": "lost"}, "status must be one of pending, running"),
        ({"queue": ""}, "a queue's name must be text"),
        ({"job_type": "a\0"}, "job_type must not contain control characters"),
        ({"trace_id": "x" * 65}, "trace_id must be text of 1 to 64"),
        ({"older_than": -1}, "older_than must lie between"),
        ({"created_before": datetime(2030, 1, 1)}, "must be an aware datetime"),  # noqa: DTZ001 - that is the point
        ({"created_before": datetime.now(UTC), "older_than": 1}, "not both"),
        ({"error": ""}, "error must be text of 1 to"),
        ({"error": "\0"}, "without NUL"),
        ({"ids": ["a"]}, "ids must be a list of UUIDs"),
        ({"ids": uuid4()}, "ids must be a list of UUIDs"),
    ],
)
def test_a_filter_that_makes_no_sense_is_an_error_where_it_is_made(conditions: dict[str, Any], told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        JobFilter(**conditions)


@pytest.mark.parametrize(
    ("verb", "status", "told"),
    [
        ("retry_all", "completed", "only failed and cancelled jobs can be retried"),
        ("retry_all", "pending", "only failed and cancelled jobs can be retried"),
        ("cancel_all", "failed", "only pending and running jobs can be cancelled"),
        ("delete_all", "pending", "only completed and failed and cancelled jobs can be deleted"),
        ("delete_all", "running", "can be deleted"),
    ],
)
async def test_a_filter_for_jobs_that_cannot_move_is_an_error(
    client: JobsClient, verb: str, status: str, told: str
) -> None:
    with pytest.raises(DefinitionError, match=told):
        await getattr(client, verb)(JobFilter(status=status))


NOW = datetime.now(UTC)
AGES = (0, 3_600, 86_400)
ERRORS = (None, "ConnectionError: No route to HOST", "ValueError: 100% of _ \\ 'quoted'")
WORLD = """
INSERT INTO litestar_jobs.job (id, run_at, created_at, max_retries, priority, queue, job_type, payload, trace_id)
VALUES ($1, now(), now() - make_interval(secs => $2), 3, 0, $3, $4, 'null', $5)
"""
PLACES = {
    "ready": "INSERT INTO litestar_jobs.ready SELECT id, run_at, priority, 0, queue FROM litestar_jobs.job WHERE id = $1",
    "scheduled": (
        "INSERT INTO litestar_jobs.scheduled SELECT id, run_at + interval '1 hour', priority, 0, queue "
        "FROM litestar_jobs.job WHERE id = $1"
    ),
    "held": (
        "INSERT INTO litestar_jobs.held SELECT id, run_at, priority, 2, queue, 'suspect' "
        "FROM litestar_jobs.job WHERE id = $1"
    ),
    "running": (
        "INSERT INTO litestar_jobs.running (id, token, started_at, worker_id, attempt, queue) "
        "SELECT id, nextval('litestar_jobs.token'), now(), id, 1, queue FROM litestar_jobs.job WHERE id = $1"
    ),
    **{
        status: "INSERT INTO litestar_jobs.finished (id, finished_at, attempts, status) "
        f"SELECT id, now(), 1, '{status}' FROM litestar_jobs.job WHERE id = $1"
        for status in ("completed", "failed", "cancelled")
    },
}


class Known:
    """A job as the model knows it."""

    def __init__(self, place: str, queue: str, number: int) -> None:
        self.id = uuid7()
        self.status = "pending" if place in ("ready", "scheduled", "held") else place
        self.place = place
        self.queue = queue
        self.job_type = ("note", "other")[number % 2]
        self.age = AGES[number % 3]
        self.error = ERRORS[number // 2 % 3]
        self.trace_id = (None, "trace-1", "trace-2")[number // 3 % 3]

    def is_meant(self, which: JobFilter) -> bool:
        older = which.older_than
        return all(
            (
                which.status in (None, self.status),
                which.queue in (None, self.queue),
                which.job_type in (None, self.job_type),
                which.trace_id in (None, self.trace_id),
                older is None or self.age >= (older.total_seconds() if isinstance(older, timedelta) else older),
                which.created_before is None or NOW - timedelta(seconds=self.age) < which.created_before,
                which.error is None or (self.error is not None and which.error.lower() in self.error.lower()),
                which.ids is None or self.id in which.ids,
            )
        )


WORLD_JOBS = [
    Known(place, queue, number) for number, (place, queue) in enumerate(product(PLACES, ("default", "other", "a'b")))
] + [Known(place, "default", number + 5) for number, place in enumerate(PLACES)]


async def populate(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    for known in WORLD_JOBS:
        await connection.execute(WORLD, known.id, known.age, known.queue, known.job_type, known.trace_id)
        await connection.execute(PLACES[known.place], known.id)
        if known.error:
            kind, _, message = known.error.partition(": ")
            # An older failure, which is not the last error.
            for ago, type_, text in ((60, "KeyError", "older"), (0, kind, message)):
                await connection.execute(
                    "INSERT INTO litestar_jobs.failure VALUES ($1, now() - make_interval(secs => $2), 1, $3, $4)",
                    known.id,
                    ago,
                    type_,
                    text,
                )


def conditions() -> st.SearchStrategy[JobFilter]:
    """Filters of any conditions, most of which some job fulfils."""
    optional: dict[str, st.SearchStrategy[Any]] = {
        "status": st.sampled_from(list(JobStatus)),
        "queue": st.sampled_from(["default", "other", "a'b", "nobody's"]),
        "job_type": st.sampled_from(["note", "other"]),
        "trace_id": st.sampled_from(["trace-1", "trace-2", "'"]),
        "error": st.sampled_from(["route", "HOST", "connectionerror: no", "%", "_ \\ '", "older", "x"]),
        "ids": st.lists(st.sampled_from([known.id for known in WORLD_JOBS]), max_size=8),
    }
    ages: st.SearchStrategy[dict[str, Any]] = st.one_of(
        st.fixed_dictionaries({}),
        st.fixed_dictionaries({"older_than": st.sampled_from([0, 1800, timedelta(hours=12), timedelta(days=2)])}),
        st.fixed_dictionaries({"created_before": st.sampled_from([NOW - timedelta(seconds=s) for s in (1800, 43200)])}),
    )
    return (
        st.tuples(st.fixed_dictionaries({}, optional=optional), ages)
        .map(lambda both: both[0] | both[1])
        .map(lambda given: JobFilter(**given) if given else EVERYTHING)
    )


def test_a_filter_means_the_jobs_that_a_plain_model_means(own_loop_dsn: str) -> None:
    with asyncio.Runner() as runner:

        async def prepared() -> tuple[Link, Store]:
            connection = await asyncpg.connect(own_loop_dsn)
            await populate(connection)
            await connection.close()
            link = Link(Database(own_loop_dsn))
            return link, Store(link.fetch, SQL)

        link, store = runner.run(prepared())
        operator = Operator(Database(own_loop_dsn), SQL, store, lambda _: None, Course(link, SQL).follow)

        @settings(max_examples=150, deadline=None)
        @given(which=conditions())
        def agrees(which: JobFilter) -> None:
            meant = {known.id: known for known in WORLD_JOBS if known.is_meant(which)}
            found = runner.run(store.find(which, 1_000))
            assert [row.id for row in found] == sorted(meant, reverse=True)
            count = Counter(known.status for known in meant.values())
            verbs: dict[Callable[..., Any], tuple[str, ...]] = {
                operator.retry: ("failed", "cancelled"),
                operator.cancel: ("pending", "running"),
                operator.move: ("pending",),
                operator.delete: ("completed", "failed", "cancelled"),
            }
            for verb, statuses in verbs.items():
                if which.status is None or which.status in statuses:
                    expected = sum(count[status] for status in statuses)
                    assert runner.run(verb(which, dry_run=True)) == expected

        agrees()
        runner.run(link.close())


# Operations.


async def test_find_goes_from_page_to_page(client: JobsClient) -> None:
    ids = await client.enqueue_many(asked(25))
    seen: list[UUID] = []
    while page := await client.find(EVERYTHING, limit=10, before=seen[-1] if seen else None):
        seen += [row.id for row in page]
    assert seen == ids[::-1]


async def test_a_dry_run_counts_and_changes_nothing(client: JobsClient) -> None:
    ids = await client.enqueue_many([*asked(3), *asked(2, delay=3600)])
    await end(client.store, ids[:1])
    before = await client.find(EVERYTHING)
    assert await client.retry_all(EVERYTHING, dry_run=True) == 1
    assert await client.cancel_all(EVERYTHING, dry_run=True) == 4
    assert await client.delete_all(EVERYTHING, dry_run=True) == 1
    assert await client.move_all(EVERYTHING, queue="other", dry_run=True) == 4
    assert await client.reprioritise_all(EVERYTHING, priority=5, dry_run=True) == 4
    assert await client.find(EVERYTHING) == before


async def test_retry_all_runs_failed_jobs_again_with_all_their_attempts(client: JobsClient) -> None:
    ids = await client.enqueue_many(asked(5))
    await end(client.store, ids[:3])
    await end(client.store, ids[3:], error="ValueError: no")
    assert await client.retry_all(JobFilter(status="failed", error="no route")) == 3
    rows = {row.id: row for row in await client.find(EVERYTHING)}
    assert [rows[job_id].status for job_id in ids] == [JobStatus.PENDING] * 3 + [JobStatus.FAILED] * 2
    assert {rows[job_id].attempts for job_id in ids[:3]} == {0}


async def test_cancel_all_ends_what_waits_wherever_it_waits(
    client: JobsClient, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    ids = await client.enqueue_many([*asked(2), *asked(2, delay=3600), *asked(1, queue="other")])
    await connection.execute(
        "WITH gone AS (DELETE FROM litestar_jobs.ready WHERE id = $1 RETURNING id, run_at, priority, attempts, queue) "
        "INSERT INTO litestar_jobs.held SELECT *, 'suspect' FROM gone",
        ids[0],
    )
    assert await client.cancel_all(JobFilter(queue="default")) == 4
    assert [row.id for row in await client.find(JobFilter(status="pending"))] == ids[4:]


async def test_delete_all_leaves_nothing_of_a_job(
    client: JobsClient, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    ids = await client.enqueue_many(asked(6))
    await end(client.store, ids[:4])
    assert await client.delete_all(JobFilter(ids=ids[:2])) == 2
    assert await client.delete_all(JobFilter(queue="default")) == 2, "pending ones stay"
    for table, left in (("job", 2), ("failure", 0), ("finished", 0), ("ready", 2)):
        assert await connection.fetchval(f"SELECT count(*) FROM litestar_jobs.{table}") == left


async def test_a_move_holds_for_the_attempts_that_follow(
    client: JobsClient, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """Waiting, held, claimed, retried and ended, a moved job is one of its new queue and priority."""
    ready, later, held = await client.enqueue_many([*asked(1), *asked(1, delay=3600), *asked(1)])
    await connection.execute(
        "WITH gone AS (DELETE FROM litestar_jobs.ready WHERE id = $1 RETURNING id, run_at, priority, attempts, queue) "
        "INSERT INTO litestar_jobs.held SELECT *, 'suspect' FROM gone",
        held,
    )
    before = {row.id: row for row in await client.find(EVERYTHING)}
    assert await client.move_all(JobFilter(queue="default"), queue="other") == 3
    assert await client.reprioritise_all(JobFilter(queue="other"), priority=-7) == 3
    after = {row.id: row for row in await client.find(EVERYTHING)}
    assert {(row.queue, row.priority) for row in after.values()} == {("other", -7)}
    assert {row.id: row.run_at for row in after.values()} == {row.id: row.run_at for row in before.values()}
    assert await client.store.held(held) == "suspect"
    assert await connection.fetchval("SELECT id FROM litestar_jobs.scheduled") == later
    assert await client.cancel(ready)
    assert await client.retry(ready)
    row = await client.get(ready)
    assert row is not None
    assert (row.queue, row.priority) == ("other", -7)


@pytest.mark.parametrize("wrong", [{"queue": ""}, {"queue": 5}])
async def test_a_queue_that_is_none_is_refused(client: JobsClient, wrong: Any) -> None:
    with pytest.raises(DefinitionError, match="a queue's name"):
        await client.move_all(EVERYTHING, **wrong)


async def test_a_priority_out_of_bounds_is_refused(client: JobsClient) -> None:
    with pytest.raises(DefinitionError, match="priority must be a whole number"):
        await client.reprioritise_all(EVERYTHING, priority=40_000)


async def test_more_jobs_than_one_transaction_takes_are_done_in_several(client: JobsClient) -> None:
    count = 2 * operating.SLICE + 7
    await client.enqueue_many(asked(count))
    assert await client.move_all(EVERYTHING, queue="other") == count
    assert await client.cancel_all(JobFilter(queue="other")) == count
    assert await client.retry_all(EVERYTHING) == count
    assert await client.cancel_all(EVERYTHING) == count
    assert await client.delete_all(EVERYTHING) == count
    assert await client.find(EVERYTHING) == []


async def test_a_job_that_is_promoted_at_this_moment_is_cancelled_all_the_same(
    client: JobsClient, connection: "asyncpg.Connection[asyncpg.Record]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operating, "AGAIN", (0.0, *[0.01] * 500))
    tried = asyncio.Event()
    cancel_many = Store.cancel_many

    async def spied(self: Store, ids: list[UUID]) -> dict[UUID, str | None]:
        moved = await cancel_many(self, ids)
        tried.set()
        return moved

    monkeypatch.setattr(Store, "cancel_many", spied)
    await client.enqueue(asked(delay=3600)[0])
    await connection.execute("UPDATE litestar_jobs.scheduled SET run_at = now()")
    async with connection.transaction():
        await connection.fetch(SQL["promote"], 10, "nobody")
        cancelling = asyncio.create_task(client.cancel_all(EVERYTHING))
        await asyncio.wait_for(tried.wait(), 10)
    assert await cancelling == 1


# Races.


ran: Counter[int] = Counter()


@job(name="count_me", max_retries=0)
async def count_me(payload: int) -> None:
    ran[payload] += 1
    await asyncio.sleep(0)


@job(name="fail_me", max_retries=0)
async def fail_me(payload: int) -> None:
    ran[payload] += 1
    raise ConnectionError("no")


@pytest.fixture
async def busy(dsn: str) -> AsyncIterator[JobsClient]:
    """The client of one of two applications whose workers take two queues."""
    ran.clear()
    worker = WorkerConfig(queues=["default", "other"], concurrency=20, poll_interval=0.2)
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(client_on(dsn, worker, (count_me, fail_me))) for _ in range(2)]
        yield opened[0]


JOBS = 4_000


async def test_jobs_are_run_or_cancelled_and_counted_right(busy: JobsClient) -> None:
    await busy.enqueue_many(count_me(number, delay=None if number % 2 else 0.05) for number in range(JOBS))
    cancelled = await busy.cancel_all(JobFilter(job_type="count_me"))
    await drained(busy, 60)
    await until(lambda: nothing_pending(busy), 60)
    assert cancelled > 0
    assert cancelled == len(await busy.find(JobFilter(status="cancelled"), limit=JOBS))
    assert len(await busy.find(JobFilter(status="completed"), limit=JOBS)) == JOBS - cancelled
    assert sum(ran.values()) >= JOBS - cancelled, "some were cancelled while they ran"
    assert max(ran.values(), default=1) == 1


async def test_jobs_that_are_moved_under_the_hands_of_workers_run_once(busy: JobsClient) -> None:
    await busy.enqueue_many(count_me(number) for number in range(JOBS))
    moves = 0
    while await busy.find(JobFilter(status="pending"), limit=1):
        moves += await busy.move_all(JobFilter(queue="default"), queue="other")
        moves += await busy.reprioritise_all(JobFilter(queue="other"), priority=moves % 7)
        moves += await busy.move_all(JobFilter(queue="other"), queue="default")
    await drained(busy, 60)
    assert moves > 0
    assert ran == Counter(range(JOBS))
    assert len(await busy.find(JobFilter(status="completed"), limit=JOBS)) == JOBS


async def test_operators_that_retry_cancel_and_delete_at_once_do_not_wait_for_each_other_or_lose_a_job(
    busy: JobsClient,
) -> None:
    await busy.enqueue_many(fail_me(number) for number in range(JOBS))

    async def again(verb: Callable[[JobFilter], Any]) -> int:
        return sum([await verb(JobFilter(job_type="fail_me")) for _ in range(8)])

    retried, cancelled, *deleted = await asyncio.gather(
        again(busy.retry_all), again(busy.cancel_all), again(busy.delete_all), again(busy.delete_all)
    )
    await drained(busy, 60)
    left = len(await busy.find(EVERYTHING, limit=JOBS))
    assert sum(deleted) + left == JOBS
    assert JOBS + retried - cancelled <= sum(ran.values()) <= JOBS + retried, "some were cancelled while they ran"


async def nothing_pending(client: JobsClient) -> bool:
    return not await client.find(JobFilter(status="pending"), limit=1)


async def test_a_worker_is_woken_by_a_retry_and_by_a_move(dsn: str) -> None:
    ran.clear()
    worker = WorkerConfig(queues=["other"], poll_interval=3600)
    async with client_on(dsn, worker, (count_me,)) as client, client_on(dsn) as elsewhere:
        await until(lambda: _idle(client))
        job_id = await elsewhere.enqueue(count_me(1))
        assert await elsewhere.move_all(JobFilter(ids=[job_id]), queue="other") == 1
        await drained(client)
        assert ran == {1: 1}
        job_id = await elsewhere.enqueue(count_me(2, queue="other", delay=3600))
        assert await elsewhere.cancel_all(JobFilter(ids=[job_id])) == 1
        assert await elsewhere.retry_all(JobFilter(ids=[job_id])) == 1
        await drained(client)
        assert ran == {1: 1, 2: 1}


async def _idle(client: JobsClient) -> bool:
    return bool(await client.store.workers())


async def test_a_job_that_fails_again_at_once_is_retried_once(dsn: str) -> None:
    """The jobs that are meant are those of the beginning, each of which is tried once."""
    ran.clear()
    worker = WorkerConfig(concurrency=50)
    async with client_on(dsn, worker, (fail_me,)) as client:
        await client.enqueue_many(fail_me(number) for number in range(1_500))
        await drained(client, 60)
        assert await client.retry_all(JobFilter(status="failed")) == 1_500
        await drained(client, 60)
    assert set(ran.values()) == {2}


async def test_what_is_written_for_a_filter_is_not_sql(client: JobsClient) -> None:
    evil = "'; DROP TABLE litestar_jobs.job; --"
    await client.enqueue_many(asked(1, queue=evil))
    assert await client.move_all(JobFilter(queue=evil, job_type="note"), queue=evil + "2") == 1
    assert await client.cancel_all(JobFilter(queue=evil + "2")) == 1
    assert await client.delete_all(JobFilter(error=evil)) == 0
    assert await client.delete_all(JobFilter(queue=evil + "2")) == 1
