"""What another program puts straight into the tables cannot take a worker down, nor stop the jobs beside it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from litestar import Litestar
from uuid_utils.compat import uuid7

from litestar_jobs import JobContext, JobsConfig, JobsPlugin, JobStatus, WorkerConfig, job
from litestar_jobs.testing import ended, running, until

Connection = "asyncpg.Connection[asyncpg.Record]"

DEEP = 100_000


@job
async def anything(payload: Any, job: JobContext) -> None: ...


@job
async def numbers(payload: list[int]) -> None: ...


@job
async def neighbour() -> None: ...


@asynccontextmanager
async def worker(dsn: str, **settings: Any) -> AsyncIterator[JobsPlugin]:
    config = JobsConfig(
        dsn=dsn, jobs=[anything, numbers, neighbour], worker=WorkerConfig(poll_interval=0.2, concurrency=2), **settings
    )
    plugin = JobsPlugin(config)
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        yield plugin


async def put(connection: Any, **columns: Any) -> UUID:
    """A row of each table, past the library."""
    job_id = uuid7()
    row = {"job_type": "anything", "payload": "null", "priority": 0, "max_retries": 0, "attempts": 0} | columns
    await connection.execute(
        "INSERT INTO litestar_jobs.job"
        " (id, queue, job_type, payload, priority, max_retries, trace_id, headers, run_at, created_at)"
        " VALUES ($1, 'default', $2, $3::text::jsonb, $4, $5, $6, $7::text::jsonb, now(), now())",
        *(job_id, row["job_type"], row["payload"], row["priority"], row["max_retries"]),
        *(row.get("trace_id"), row.get("headers")),
    )
    await connection.execute(
        "INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts) VALUES ($1, 'default', $2, now(), $3)",
        *(job_id, row["priority"], row["attempts"]),
    )
    return job_id


PAYLOADS = {
    "deep arrays": "[" * 5000 + "]" * 5000,
    "deep objects": '{"a":' * 5000 + "1" + "}" * 5000,
    "a huge number": "1" * 100_000,
    "a huge exponent": "1e100000",
    "a long key": '{"' + "k" * 500_000 + '": ' + "[" * 2000 + "]" * 2000 + "}",
    "much text": '"' + "x" * 20_000_000 + '"',
    "many numbers": "[" + ",".join("9" * 30 for _ in range(20_000)) + "]",
}


@pytest.mark.parametrize("name", PAYLOADS)
async def test_a_hostile_payload_ends_as_failed_with_its_reason_and_its_neighbours_run(
    name: str, dsn: str, connection: Any
) -> None:
    hostile = [await put(connection, payload=PAYLOADS[name], job_type=kind) for kind in ("numbers", "anything") * 3]
    beside = await put(connection, job_type="neighbour", priority=1)
    async with worker(dsn) as plugin:
        assert (await ended(plugin.client, beside)).status is JobStatus.COMPLETED
        for job_id in hostile:
            ends = [row async for row in _ended(connection, job_id)]
            print(ends[0][:200])


async def _ended(connection: Any, job_id: UUID) -> AsyncIterator[str]:
    async def look() -> Any:
        return await connection.fetchrow("SELECT status FROM litestar_jobs.finished WHERE id = $1", job_id)

    row = await until(look, 10)
    failure = await connection.fetchrow("SELECT * FROM litestar_jobs.failure WHERE id = $1", job_id)
    yield f"{row['status']} {failure and failure['error_type']} {failure and failure['message'][:150]}"


CARRIERS = {
    "deep": "[" * 5000 + "]" * 5000,
    "a list": '["traceparent"]',
    "a number": "17",
    "numbers in it": '{"traceparent": 5}',
    "nested": '{"traceparent": {"a": []}}',
    "large": '{"traceparent": "' + "x" * 10_000_000 + '"}',
    "lines": '{"traceparent": "a\\r\\nb: c"}',
}


@pytest.mark.parametrize("name", CARRIERS)
async def test_a_hostile_carrier_is_ignored(name: str, dsn: str, connection: Any) -> None:
    jobs = [await put(connection, headers=CARRIERS[name]) for _ in range(4)]
    jobs.append(await put(connection, job_type="neighbour", priority=1))
    async with worker(dsn) as plugin:
        for job_id in jobs:
            assert (await ended(plugin.client, job_id)).status is JobStatus.COMPLETED
