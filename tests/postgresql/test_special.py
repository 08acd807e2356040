"""Jobs of which something special is asked: they go through one statement of their own, on every way in.

Here every job is taken for a special one although nothing special is asked, so that it must be written as a plain one is.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from litestar_jobs import JobId, JobRequest, JobsClient, job
from litestar_jobs.database import Database
from litestar_jobs.errors import PayloadRefused
from litestar_jobs.store import Statements
from litestar_jobs.telemetry import NoTracing
from litestar_jobs.testing import until
from test_enqueue_with import ALL, opened


@job
async def count(payload: int) -> None: ...


@job
async def bare() -> None: ...


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[JobsClient]:
    client = JobsClient(Statements("litestar_jobs"), NoTracing(lambda: None))
    await client.start(Database(dsn))
    yield client
    await client.stop()


@pytest.fixture
def special(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobRequest, "is_plain", False)


REQUESTS = [
    count(1),
    bare(),
    count(2, queue="others", priority=5, max_retries=0),
    count(3, delay=60),
    count(4, run_at=datetime.now(UTC) + timedelta(hours=1)),
    count(5, run_at=datetime(2020, 1, 1, tzinfo=UTC)),
    count(6, run_at=datetime(1, 1, 2, 1, tzinfo=UTC)),
    JobRequest(job_type="by hand", payload='{"a": [1.50, null, "ä€😀"]}'.encode()),
]

ALIKE = """
SELECT queue, job_type, payload::text, priority, max_retries, trace_id, headers::text,
       CASE run_at - created_at WHEN '0 s' THEN 'now' WHEN '60 s' THEN 'in a minute' ELSE run_at::text END AS run_at,
       (SELECT 'ready' FROM litestar_jobs.ready WHERE ready.id = job.id) AS ready,
       (SELECT 'scheduled' FROM litestar_jobs.scheduled WHERE scheduled.id = job.id) AS scheduled
  FROM litestar_jobs.job WHERE id = ANY($1)
"""


async def rows(connection: "asyncpg.Connection[Any]", ids: list[JobId]) -> list[tuple[Any, ...]]:
    return sorted(map(tuple, await connection.fetch(ALIKE, ids)), key=str)


async def test_a_special_job_is_written_as_a_plain_one_is(
    client: JobsClient, monkeypatch: pytest.MonkeyPatch, connection: "asyncpg.Connection[Any]"
) -> None:
    plain = [await client.enqueue(request) for request in REQUESTS]
    monkeypatch.setattr(JobRequest, "is_plain", False)
    ways = {
        "alone": [await client.enqueue(request) for request in REQUESTS],
        "together": await asyncio.gather(*map(client.enqueue, REQUESTS)),
        "many": await client.enqueue_many(REQUESTS),
    }
    expected = await rows(connection, plain)
    assert len(expected) == len(REQUESTS)
    for way, ids in ways.items():
        assert (way, await rows(connection, ids)) == (way, expected)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.usefixtures("special")
async def test_a_special_job_commits_and_rolls_back_with_the_callers_own_writes(
    kind: str, dsn: str, client: JobsClient
) -> None:
    async with opened(kind, dsn) as own:
        undone = await client.enqueue_with(own.connection, count(1))
        await own.rollback()
    async with opened(kind, dsn) as own:
        done = await client.enqueue_with(own.connection, count(2))
        assert isinstance(done, JobId)
        assert done.is_new
        assert await client.get(done) is None, "not before the commit"
        await own.commit()

    assert await client.get(undone) is None
    row = await client.get(done)
    assert row is not None
    assert row.payload == 2


@pytest.mark.parametrize("kind", ["AsyncSession+asyncpg", "AsyncConnection+psycopg", "asyncpg", "psycopg"])
@pytest.mark.usefixtures("special")
async def test_a_special_job_wakes_workers_when_it_may_run(
    kind: str, dsn: str, client: JobsClient, connection: "asyncpg.Connection[Any]"
) -> None:
    heard: list[str] = []
    await connection.add_listener("litestar_jobs", lambda *said: heard.append(str(said[-1])))
    async with opened(kind, dsn) as own:
        await client.enqueue_with(own.connection, count(1, queue="mine"))
        await own.commit()

    async def look() -> bool:
        await connection.fetch("SELECT 1")
        return heard == ["ready:mine"]

    await until(look)


@pytest.mark.usefixtures("special")
async def test_special_jobs_tell_workers_of_this_process_and_of_others(
    client: JobsClient, connection: "asyncpg.Connection[Any]"
) -> None:
    heard: list[str] = []
    here: list[tuple[set[str], float | None]] = []
    await connection.add_listener("litestar_jobs", lambda *said: heard.append(str(said[-1])))
    client.listen(lambda ready, soonest: here.append((ready, soonest)))
    await client.enqueue(count(1))
    await client.enqueue(count(1, delay=60))
    await client.enqueue_many([count(1), count(1, queue="b"), count(1, delay=60)])

    async def look() -> bool:
        await connection.fetch("SELECT 1")
        return len(heard) == 5

    await until(look)
    assert [said.partition(":")[0] for said in heard] == ["ready", "due", "ready", "ready", "due"]
    assert [ready for ready, _ in here] == [{"default"}, set(), {"default", "b"}]
    assert [soonest is not None and 50 < soonest <= 60 for _, soonest in here] == [False, True, True]


@pytest.mark.usefixtures("special")
async def test_a_bad_row_never_fails_its_special_neighbours(
    client: JobsClient, connection: "asyncpg.Connection[Any]"
) -> None:
    requests = [count(n) for n in range(20)]
    requests[7] = JobRequest(job_type="by hand", payload=b'"\\u0000"')
    answers = await asyncio.gather(*map(client.enqueue, requests), return_exceptions=True)

    refused = answers.pop(7)
    assert isinstance(refused, PayloadRefused)
    assert sorted(answers, key=str) == await connection.fetchval(
        "SELECT array_agg(id ORDER BY id) FROM litestar_jobs.job"
    )


async def test_plain_and_special_jobs_that_come_together_are_all_written(
    client: JobsClient, monkeypatch: pytest.MonkeyPatch, connection: "asyncpg.Connection[Any]"
) -> None:
    """And the ids of many are in the order of the requests."""
    monkeypatch.setattr(JobRequest, "is_plain", property(lambda request: request.queue == "plain"))
    requests = [count(n, queue="plain" if n % 3 else "special") for n in range(700)]
    alone = await asyncio.gather(*map(client.enqueue, requests))
    many = await client.enqueue_many(requests)

    for ids in (alone, many):
        payloads = "SELECT payload::text::int AS n FROM unnest($1::uuid[]) WITH ORDINALITY AS a(id, n) JOIN litestar_jobs.job USING (id) ORDER BY a.n"
        assert [row["n"] for row in await connection.fetch(payloads, ids)] == list(range(700))
