"""Step 2, enqueue: what is returned is committed, what is written together answers each caller for itself."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient
from msgspec import Struct

from litestar_jobs import JobFilter, JobId, JobRequest, JobsClient, JobsConfig, JobsPlugin, JobStatus, WorkerConfig, job
from litestar_jobs.bulk import CHUNK, WORTH_COPY
from litestar_jobs.database import Database
from litestar_jobs.errors import (
    DatabaseUnreachable,
    DefinitionError,
    EnqueueError,
    EnqueueUncertain,
    NotRunning,
    PayloadRefused,
    WrongEventLoop,
)
from litestar_jobs.gather import BATCH, BATCH_BYTES, MOST_ACCEPTED
from litestar_jobs.request import NewJob
from litestar_jobs.store import Statements
from litestar_jobs.telemetry import NoTracing
from litestar_jobs.testing import drained, running, until
from litestar_jobs.trace import current_trace_id


class Number(Struct):
    value: int


@job
async def count(payload: Number) -> None: ...


def a_client(**options: Any) -> JobsClient:
    return JobsClient(Statements("litestar_jobs"), NoTracing(lambda: None), **options)


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[JobsClient]:
    client = a_client()
    await client.start(Database(dsn))
    yield client
    await client.stop()


@pytest.fixture
def batches(client: JobsClient, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each statement of single enqueues had."""
    sizes: list[int] = []
    write = client._gatherer._write

    async def counted(jobs: Sequence[NewJob]) -> None:
        sizes.append(len(jobs))
        await write(jobs)

    monkeypatch.setattr(client._gatherer, "_write", counted)
    return sizes


async def stored(connection: "asyncpg.Connection[Any]") -> list[UUID]:
    return [row["id"] for row in await connection.fetch("SELECT id FROM litestar_jobs.job ORDER BY id")]


async def writer_pid(client: JobsClient) -> int:
    rows = await client._writes.fetch("SELECT pg_backend_pid() AS pid")
    pid: int = rows[0]["pid"]
    return pid


# One job.


async def test_an_id_is_a_uuid_of_version_7_and_its_row_is_committed(
    client: JobsClient, connection: "asyncpg.Connection[Any]"
) -> None:
    job_id = await client.enqueue(count(Number(1)))

    assert job_id.version == 7
    assert type(job_id) is JobId
    assert job_id.is_new
    assert await stored(connection) == [job_id]


async def test_get_answers_the_job_as_it_was_asked_for(client: JobsClient) -> None:
    job_id = await client.enqueue(count(Number(1), queue="quoted \"'$1", priority=-5, max_retries=7))
    row = await client.get(job_id)

    assert row is not None
    assert row.status is JobStatus.PENDING
    assert (row.queue, row.job_type, row.payload) == ("quoted \"'$1", "count", {"value": 1})
    assert (row.priority, row.max_retries, row.attempts) == (-5, 7, 0)
    assert await client.get(UUID(int=1)) is None


async def test_a_delay_counts_from_the_write_and_a_run_at_is_kept(client: JobsClient) -> None:
    at = datetime.now(UTC) + timedelta(hours=3)
    delayed = await client.get(await client.enqueue(count(Number(1), delay=60)))
    timed = await client.get(await client.enqueue(count(Number(1), run_at=at)))

    assert delayed is not None
    assert timed is not None
    assert delayed.run_at - delayed.created_at == timedelta(seconds=60)
    assert timed.run_at == at


async def test_a_run_at_in_the_past_means_now(client: JobsClient) -> None:
    long_ago = datetime(1999, 12, 31, tzinfo=UTC)
    await client.enqueue(count(Number(1), run_at=long_ago))

    (counted,) = await client.store.count()
    assert counted.due == 1


def test_a_naive_run_at_is_refused_with_the_remedy() -> None:
    with pytest.raises(DefinitionError, match=r"aware datetime, such as datetime\.now\(UTC\)"):
        count(Number(1), run_at=datetime(2030, 1, 1))  # noqa: DTZ001 - that is the point


async def test_the_job_itself_is_not_a_request_and_the_error_says_what_is(client: JobsClient) -> None:
    with pytest.raises(EnqueueError, match=r"Call the job with its payload: jobs\.enqueue\(my_job\(payload\)\)"):
        await client.enqueue(count)  # type: ignore[arg-type]
    with pytest.raises(EnqueueError, match="Call the job"):
        await client.enqueue_many([count])  # type: ignore[list-item]


async def test_a_payload_over_the_limit_is_refused_and_nothing_written(
    dsn: str, connection: "asyncpg.Connection[Any]"
) -> None:
    client = a_client(max_payload=20)
    await client.start(Database(dsn))
    await client.enqueue(count(Number(1)))
    with pytest.raises(PayloadRefused, match=r"'count' refused.* at most 20 .*JobsConfig\.max_payload") as caught:
        await client.enqueue(count(Number(10**18)))
    assert caught.value.job_type == "count"
    with pytest.raises(PayloadRefused):
        await client.enqueue_many([count(Number(1)), count(Number(10**18))])
    await client.stop()

    assert len(await stored(connection)) == 1


# Many at once.


async def test_many_enqueues_at_once_are_few_statements_and_each_caller_gets_its_own_id(
    client: JobsClient, batches: list[int]
) -> None:
    ids = await asyncio.gather(*(client.enqueue(count(Number(n))) for n in range(500)))

    assert sum(batches) == 500
    assert len(batches) <= 3
    assert len(set(ids)) == 500
    rows = {row.id: row.payload["value"] for row in await client.store.find(JobFilter.everything(), 1000)}
    assert [rows[job_id] for job_id in ids] == list(range(500))


async def test_a_statement_has_at_most_a_thousand_rows(client: JobsClient, batches: list[int]) -> None:
    await asyncio.gather(*(client.enqueue(count(Number(n))) for n in range(BATCH + 1)))

    assert max(batches) <= BATCH


async def test_a_statement_has_at_most_some_megabytes_and_a_larger_job_goes_alone(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = a_client(max_payload=3 * BATCH_BYTES)
    await client.start(Database(dsn))
    sent: list[list[int]] = []
    write = client._gatherer._write

    async def noted(jobs: Sequence[NewJob]) -> None:
        sent.append([len(job.request.payload) for job in jobs])
        await write(jobs)

    monkeypatch.setattr(client._gatherer, "_write", noted)
    sizes = [BATCH_BYTES // 2, BATCH_BYTES // 2, 2 * BATCH_BYTES, 10, 10]
    await asyncio.gather(*(client.enqueue(JobRequest(job_type="t", payload=b"1" + b" " * (n - 1))) for n in sizes))
    await client.stop()

    assert sent == [[sizes[0], sizes[1]], [sizes[2]], [10, 10]]


async def test_only_so_many_jobs_are_accepted_at_once_and_further_callers_wait_in_their_order(
    client: JobsClient, monkeypatch: pytest.MonkeyPatch, connection: "asyncpg.Connection[Any]"
) -> None:
    write = client._gatherer._write
    go_on = asyncio.Event()

    async def held(jobs: Sequence[NewJob]) -> None:
        await go_on.wait()
        await write(jobs)

    monkeypatch.setattr(client._gatherer, "_write", held)
    callers = [asyncio.create_task(client.enqueue(count(Number(n)))) for n in range(MOST_ACCEPTED + 10)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(client._gatherer._waiting) == MOST_ACCEPTED - BATCH
    callers[-1].cancel()  # while it waits for room
    go_on.set()
    answers = await asyncio.gather(*callers, return_exceptions=True)

    assert isinstance(answers.pop(), asyncio.CancelledError)
    assert answers == await stored(connection)


async def test_stop_writes_also_what_still_waits_for_room(
    dsn: str, direct_dsn: str, connection: "asyncpg.Connection[Any]"
) -> None:
    client = a_client()
    await client.start(Database(dsn))
    callers = [asyncio.create_task(client.enqueue(count(Number(n)))) for n in range(MOST_ACCEPTED + 10)]
    await asyncio.sleep(0)
    await client.stop()

    assert await asyncio.gather(*callers) == await stored(connection)
    if dsn == direct_dsn:  # a pooler keeps its own
        assert await connection.fetchval(OURS) == 0


SIZE = r"SELECT sum(pg_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relname ~ '^job(_|\Z)'"
OURS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'litestar_jobs'"

REFUSED_BY_POSTGRESQL = [b'{"text": "\\u0000"}', b"1e999999"]
"""JSON that jsonb does not take. Calls of jobs refuse it sooner; a request built by hand brings it here."""


@pytest.mark.parametrize("payload", REFUSED_BY_POSTGRESQL, ids=["nul", "too large"])
async def test_a_bad_row_never_fails_its_neighbours(
    client: JobsClient, payload: bytes, connection: "asyncpg.Connection[Any]"
) -> None:
    requests = [count(Number(n)) for n in range(20)]
    requests[7] = JobRequest(job_type="by hand", payload=payload)
    answers = await asyncio.gather(*map(client.enqueue, requests), return_exceptions=True)

    refused = answers.pop(7)
    assert isinstance(refused, PayloadRefused)
    assert "'by hand'" in str(refused)
    assert refused.__cause__ is not None
    assert sorted(answers, key=str) == await stored(connection)


async def test_a_caller_cancelled_while_it_waits_for_its_batch_takes_its_job_back(
    client: JobsClient, monkeypatch: pytest.MonkeyPatch, connection: "asyncpg.Connection[Any]"
) -> None:
    write = client._gatherer._write
    go_on = asyncio.Event()

    async def held(jobs: Sequence[NewJob]) -> None:
        await go_on.wait()
        await write(jobs)

    monkeypatch.setattr(client._gatherer, "_write", held)
    first = asyncio.create_task(client.enqueue(count(Number(1))))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # its batch is on its way
    second, third = (asyncio.create_task(client.enqueue(count(Number(n)))) for n in (2, 3))
    await asyncio.sleep(0)
    second.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await second

    assert [await first, await third] == await stored(connection)


async def test_a_caller_cancelled_after_its_batch_was_sent_leaves_the_others_alone(
    client: JobsClient, monkeypatch: pytest.MonkeyPatch, connection: "asyncpg.Connection[Any]"
) -> None:
    write = client._gatherer._write
    sent, go_on = asyncio.Event(), asyncio.Event()

    async def held(jobs: Sequence[NewJob]) -> None:
        sent.set()
        await go_on.wait()
        await write(jobs)

    monkeypatch.setattr(client._gatherer, "_write", held)
    first, second = (asyncio.create_task(client.enqueue(count(Number(n)))) for n in (1, 2))
    await sent.wait()
    first.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await first

    assert await second in await stored(connection)
    assert len(await stored(connection)) == 2


async def test_a_writer_that_somebody_cancels_never_makes_callers_look_cancelled(
    client: JobsClient, monkeypatch: pytest.MonkeyPatch, connection: "asyncpg.Connection[Any]"
) -> None:
    """A handler that cancels all tasks it finds, say. What was sent may be written; what waited is not."""
    write = client._gatherer._write
    sent = asyncio.Event()

    async def unheard(jobs: Sequence[NewJob]) -> None:
        await write(jobs)
        sent.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(client._gatherer, "_write", unheard)
    first = asyncio.create_task(client.enqueue(count(Number(1))))
    await sent.wait()
    second = asyncio.create_task(client.enqueue(count(Number(2))))
    await asyncio.sleep(0)
    assert client._gatherer._writing is not None
    client._gatherer._writing.cancel()
    uncertain, refused = await asyncio.gather(first, second, return_exceptions=True)
    monkeypatch.setattr(client._gatherer, "_write", write)

    assert isinstance(uncertain, EnqueueUncertain)
    assert type(refused) is EnqueueError
    assert [uncertain.job_id] == await stored(connection)
    await client.enqueue(count(Number(3)))


# When the database is not there.


async def test_a_connection_lost_while_idle_costs_the_next_enqueue_nothing_it_is_not_told(
    client: JobsClient, connection: "asyncpg.Connection[Any]"
) -> None:
    await client.enqueue(count(Number(1)))
    await connection.execute("SELECT pg_terminate_backend($1)", await writer_pid(client))
    try:
        written = [await client.enqueue(count(Number(2)))]
    except (EnqueueError, EnqueueUncertain):
        written = []
    written.append(await client.enqueue(count(Number(3))))

    assert set(written) <= set(await stored(connection))


async def test_a_connection_lost_in_the_middle_is_uncertain_and_says_whom_to_ask(
    client: JobsClient, connection: "asyncpg.Connection[Any]"
) -> None:
    pid = await writer_pid(client)
    async with connection.transaction():
        await connection.execute("LOCK TABLE litestar_jobs.job")
        callers = [asyncio.create_task(client.enqueue(count(Number(n)))) for n in (1, 2)]

        async def waits() -> bool:
            return bool(await connection.fetchval("SELECT count(*) FROM pg_locks WHERE pid = $1 AND NOT granted", pid))

        await until(waits)
        await connection.execute("SELECT pg_terminate_backend($1)", pid)
        answers = await asyncio.gather(*callers, return_exceptions=True)

    assert [type(answer) for answer in answers] == [EnqueueUncertain, EnqueueUncertain]
    for answer in answers:
        assert isinstance(answer, EnqueueUncertain)
        assert str(answer.job_id) in str(answer)
        assert isinstance(answer.__cause__, asyncpg.PostgresError)
        assert await client.get(answer.job_id) is None
    assert await client.get(await client.enqueue(count(Number(3)))) is not None


async def test_what_the_database_refused_is_certainly_not_written(
    client: JobsClient, connection: "asyncpg.Connection[Any]"
) -> None:
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(EnqueueError, match=r"nothing was enqueued: .*read-only"):
        await client.enqueue(count(Number(1)))


async def test_without_our_tables_the_error_names_the_command(empty_dsn: str) -> None:
    client = a_client()
    await client.start(Database(empty_dsn))
    with pytest.raises(EnqueueError, match=r"nothing was enqueued: .*litestar jobs upgrade"):
        await client.enqueue(count(Number(1)))
    await client.stop()


async def test_an_unreachable_database_is_certain_and_shows_no_password() -> None:
    client = a_client()
    await client.start(Database("postgresql://me:secret@127.0.0.1:1/none"))
    with pytest.raises(EnqueueError, match=r"nothing was enqueued: .*127\.0\.0\.1:1/none") as caught:
        await client.enqueue(count(Number(1)))
    with pytest.raises(EnqueueError):
        await client.enqueue_many([count(Number(1))])
    await client.stop()

    assert isinstance(caught.value.__cause__, DatabaseUnreachable)
    assert "secret" not in str(caught.value) + repr(Database("postgresql://me:secret@127.0.0.1:1/none"))


# The lifespan.


async def test_outside_the_lifespan_there_is_a_clear_error(dsn: str) -> None:
    client = a_client()
    with pytest.raises(NotRunning, match=r"async with app\.lifespan\(\)"):
        await client.enqueue(count(Number(1)))
    await client.start(Database(dsn))
    await client.stop()
    for call in (client.enqueue(count(Number(1))), client.enqueue_many([]), client.get(UUID(int=1))):
        with pytest.raises(NotRunning):
            await call


async def test_stop_writes_what_was_accepted(dsn: str, connection: "asyncpg.Connection[Any]") -> None:
    client = a_client()
    await client.start(Database(dsn))
    callers = [asyncio.create_task(client.enqueue(count(Number(n)))) for n in range(10)]
    await asyncio.sleep(0)
    await client.stop()

    assert sorted(await asyncio.gather(*callers)) == await stored(connection)


async def test_another_event_loop_is_an_error_that_names_the_remedy(dsn: str) -> None:
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[count]))
    async with AsyncTestClient(Litestar(plugins=[plugin])):
        with pytest.raises(WrongEventLoop, match=r"TestClient .*litestar_jobs\.testing\.running\(app\)"):
            await plugin.client.enqueue(count(Number(1)))
        with pytest.raises(WrongEventLoop):
            await plugin.client.enqueue_many([])


# enqueue_many.


async def test_enqueue_many_answers_ids_in_the_order_of_the_requests(client: JobsClient) -> None:
    ids = await client.enqueue_many(count(Number(n)) for n in range(10))

    rows = [await client.get(job_id) for job_id in ids]
    assert [row and row.payload["value"] for row in rows] == list(range(10))
    assert await client.enqueue_many([]) == []


async def test_enqueue_many_takes_more_than_it_writes_at_a_time(
    client: JobsClient, connection: "asyncpg.Connection[Any]"
) -> None:
    ids = await client.enqueue_many([count(Number(n)) for n in range(CHUNK + 1)])

    assert sorted(ids) == await stored(connection)


async def test_enqueue_many_reads_a_generator_while_it_writes_and_other_calls_need_not_wait(
    client: JobsClient, connection: "asyncpg.Connection[Any]"
) -> None:
    """The rows of the first chunks are on the server before the generator has given the last ones."""

    async def requests() -> AsyncIterator[JobRequest]:
        for n in range(3 * CHUNK):
            if n == 2 * CHUNK:
                assert await connection.fetchval(SIZE) > CHUNK
                assert await client.get(UUID(int=1)) is None
            yield count(Number(n))

    ids = await client.enqueue_many(requests())

    assert ids == await stored(connection)
    assert len(ids) == 3 * CHUNK


async def test_a_generator_that_raises_keeps_its_error_and_nothing_is_enqueued(
    client: JobsClient, connection: "asyncpg.Connection[Any]"
) -> None:
    def requests() -> Iterator[JobRequest]:
        yield from (count(Number(n)) for n in range(CHUNK + 1))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await client.enqueue_many(requests())
    assert await stored(connection) == []


async def test_a_connection_lost_before_the_commit_of_many_is_certain_and_at_it_is_not(
    client: JobsClient, connection: "asyncpg.Connection[Any]"
) -> None:
    async def kill() -> None:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name = 'litestar_jobs' AND state = 'idle in transaction'"
        )

    async def requests(killed_at: int) -> AsyncIterator[JobRequest]:
        for n in range(2 * CHUNK):
            if n == killed_at:
                await kill()
            yield count(Number(n))
        if killed_at == 2 * CHUNK:
            await kill()

    with pytest.raises(EnqueueError, match="nothing was enqueued"):
        await client.enqueue_many(requests(CHUNK))
    with pytest.raises(EnqueueUncertain) as caught:
        await client.enqueue_many(requests(2 * CHUNK))
    assert await client.get(caught.value.job_id) is None
    assert await stored(connection) == []


async def test_enqueue_many_writes_and_tells_the_same_whether_they_are_few_or_many(
    client: JobsClient, connection: "asyncpg.Connection[Any]"
) -> None:
    """A COPY does what the statement does, which is used below a certain number."""
    heard: list[str] = []
    await connection.add_listener("litestar_jobs", lambda *heard_of: heard.append(str(heard_of[3])))
    kinds = [
        count(Number(1)),
        count(Number(2), queue="other", priority=-7, max_retries=9),
        count(Number(3), delay=90),
        count(Number(4), run_at=datetime.now(UTC) + timedelta(hours=1)),
        count(Number(5), run_at=datetime.now(UTC) - timedelta(hours=1)),
    ]
    token = current_trace_id.set("t1")
    few = await client.enqueue_many(kinds)
    many = await client.enqueue_many(kinds * WORTH_COPY)
    current_trace_id.reset(token)

    async def of(ids: Sequence[UUID]) -> set[tuple[object, ...]]:
        rows = await connection.fetch(
            "SELECT j.payload, j.queue, j.priority, j.max_retries, j.trace_id, j.headers, s.id IS NULL AS now, "
            "round(extract(epoch FROM COALESCE(s.run_at, r.run_at) - j.created_at)) AS waits, "
            "j.run_at = COALESCE(s.run_at, r.run_at) AS same, COALESCE(s.attempts, r.attempts) AS attempts "
            "FROM litestar_jobs.job j LEFT JOIN litestar_jobs.scheduled s USING (id) "
            "LEFT JOIN litestar_jobs.ready r USING (id) WHERE id = ANY($1)",
            ids,
        )
        return {tuple(row) for row in rows}

    assert len(await of(few)) == len(kinds)
    assert await of(few) == await of(many)
    told = [message if message.startswith("ready") else message[:4] for message in heard]
    assert sorted(told) == ["due:", "due:", "ready:default", "ready:default", "ready:other", "ready:other"]


async def test_enqueue_many_writes_all_or_none(client: JobsClient, connection: "asyncpg.Connection[Any]") -> None:
    requests = [count(Number(n)) for n in range(CHUNK + 1)]
    requests[CHUNK] = JobRequest(job_type="by hand", payload=REFUSED_BY_POSTGRESQL[0])
    with pytest.raises(EnqueueError, match="nothing was enqueued"):
        await client.enqueue_many(requests)

    assert await stored(connection) == []
    assert len(await client.enqueue_many(requests[:10])) == 10


async def test_priority_decides_the_order_of_claims(dsn: str) -> None:
    ran: list[int] = []

    @job(queue="ordered")
    async def note(payload: Number) -> None:
        ran.append(payload.value)

    first = JobsPlugin(JobsConfig(dsn=dsn, jobs=[note], worker=None))
    async with running(Litestar(plugins=[first])):
        await first.client.enqueue_many([note(Number(n), priority=n) for n in (3, -1, 2, 0, 1)])
    second = JobsPlugin(JobsConfig(dsn=dsn, jobs=[note], worker=WorkerConfig(concurrency=1)))
    async with running(Litestar(plugins=[second])):
        await drained(second.client)

    assert ran == [-1, 0, 1, 2, 3]


# Looking after jobs.


async def test_cancel_ends_a_pending_job_once(client: JobsClient) -> None:
    now, later = await client.enqueue(count(Number(1))), await client.enqueue(count(Number(2), delay=60))
    assert await client.cancel(now)
    assert await client.cancel(later)
    assert not await client.cancel(now)
    assert not await client.cancel(UUID(int=1))

    row = await client.get(now)
    assert row is not None
    assert row.status is JobStatus.CANCELLED


async def test_retry_runs_what_was_cancelled_and_nothing_else(client: JobsClient) -> None:
    job_id = await client.enqueue(count(Number(1)))
    assert not await client.retry(job_id)
    await client.cancel(job_id)
    assert await client.retry(job_id)
    assert not await client.retry(UUID(int=1))

    row = await client.get(job_id)
    assert row is not None
    assert row.status is JobStatus.PENDING
