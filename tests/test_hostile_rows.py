"""What another program puts straight into the tables cannot take a worker down, nor stop the jobs beside it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest
from litestar import Litestar
from uuid_utils.compat import uuid7

from litestar_jobs import JobContext, JobFilter, JobsConfig, JobsPlugin, JobStatus, WorkerConfig, job
from litestar_jobs.errors import PayloadRefused
from litestar_jobs.payload import READ_FACTOR
from litestar_jobs.testing import ended, running, until
from litestar_jobs.trace import current_trace_id


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


TOO_DEEP = "maximum recursion depth exceeded"
"""Newer Pythons read some of these."""
PAYLOADS = {
    "deep arrays": ("[" * 5000 + "]" * 5000, TOO_DEEP),
    "deep objects": ('{"a":' * 5000 + "1" + "}" * 5000, TOO_DEEP),
    "a huge number": ("1" * 100_000, "out of range"),
    "a huge exponent": ("1e100000", "out of range"),
    "a long key": ('{"' + "k" * 500_000 + '": ' + "[" * 2000 + "]" * 2000 + "}", TOO_DEEP),
    "much text": ('"' + "x" * 20_000_000 + '"', "larger than a worker reads"),
}


def is_readable(payload: str) -> bool:
    """Whether this Python's limits let it read such a payload, which may not be larger than a worker reads."""
    try:
        msgspec.json.decode(payload)
    except (ValueError, RecursionError):
        return False
    return len(payload) < READ_FACTOR * JobsConfig().max_payload


@pytest.mark.parametrize("name", PAYLOADS)
async def test_a_hostile_payload_ends_as_failed_with_its_reason_and_its_neighbours_run(
    name: str, dsn: str, connection: Any
) -> None:
    payload, reason = PAYLOADS[name]
    hostile = [await put(connection, payload=payload) for _ in range(3)]
    typed = await put(connection, payload=payload, job_type="numbers")
    beside = await put(connection, job_type="neighbour", priority=1)
    async with worker(dsn) as plugin:
        assert (await ended(plugin.client, beside)).status is JobStatus.COMPLETED
        for row in [await ended(plugin.client, job_id) for job_id in (*hostile, typed)]:
            if row.id != typed and is_readable(payload):
                assert row.status is JobStatus.COMPLETED
                continue
            assert (row.status, row.attempts) == (JobStatus.FAILED, 1)
            assert str(row.last_error).startswith("PayloadError: the stored payload of job")
            assert reason in str(row.last_error) or row.id == typed
        assert len(await plugin.client.store.find(JobFilter.everything(), 10)) == 5, "they can be looked at"


async def test_a_payload_as_large_as_may_be_enqueued_is_read_however_jsonb_writes_it(dsn: str) -> None:
    async with worker(dsn, max_payload=1000) as plugin:
        row = await ended(plugin.client, await plugin.client.enqueue(anything([1] * 450)))
    assert row.status is JobStatus.COMPLETED


HEADERS = {
    "deep": "[" * 5000 + "]" * 5000,
    "a list": '["traceparent"]',
    "a number": "17",
    "numbers in it": '{"traceparent": 5}',
    "nested": '{"traceparent": {"a": []}}',
    "large": '{"traceparent": "' + "x" * 10_000_000 + '"}',
    "lines": '{"traceparent": "a\\r\\nb: c"}',
    "no time": '{"schedule": "s", "slot": "tomorrow"}',
}


@pytest.mark.parametrize("name", HEADERS)
async def test_hostile_headers_are_ignored(name: str, dsn: str, connection: Any) -> None:
    jobs = [await put(connection, headers=HEADERS[name]) for _ in range(4)]
    jobs.append(await put(connection, job_type="neighbour", priority=1))
    async with worker(dsn) as plugin:
        for job_id in jobs:
            assert (await ended(plugin.client, job_id)).status is JobStatus.COMPLETED


LINES = "a\r\nERROR forged \x1b[31m"


async def test_no_text_of_a_row_makes_a_line_in_the_log(
    dsn: str, connection: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await put(connection, job_type=LINES, trace_id=LINES)
    seen: list[str | None] = []

    @job(name="traced")
    async def traced() -> None:
        seen.append(current_trace_id.get())
        raise ValueError(LINES)

    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[traced]))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        await ended(plugin.client, await put(connection, job_type="traced", trace_id=LINES))
        await until(lambda: _logged(caplog, "no job of this name"))
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert [line for line in lines if not line.isprintable()] == []
    assert seen == [None], "what is no trace id is none"


async def _logged(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return text in caplog.text


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "4000-01-01 BC", "20000-01-01"])
@pytest.mark.parametrize(("table", "column"), [("job", "run_at"), ("job", "created_at"), ("ready", "run_at")])
async def test_times_that_python_does_not_have_are_refused_by_the_tables(
    connection: Any, table: str, column: str, moment: str
) -> None:
    job_id = await put(connection)
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(f"UPDATE litestar_jobs.{table} SET {column} = '{moment}' WHERE id = $1", job_id)
    await connection.execute("DELETE FROM litestar_jobs.job; DELETE FROM litestar_jobs.ready")


async def test_the_last_moment_of_all_is_refused_at_the_call(dsn: str) -> None:
    async with worker(dsn) as plugin:
        with pytest.raises(PayloadRefused, match="nothing was enqueued"):
            await plugin.client.enqueue(neighbour(run_at=datetime.max.replace(tzinfo=UTC)))


async def test_attempts_that_cannot_be_counted_are_refused_by_the_tables(connection: Any) -> None:
    for columns in ({"attempts": 32_767}, {"max_retries": 32_767}):
        with pytest.raises(asyncpg.CheckViolationError):
            async with connection.transaction():
                await put(connection, **columns)


async def test_a_job_that_was_put_where_it_already_runs_or_has_ended_stops_nobody(dsn: str, connection: Any) -> None:
    """Whoever may enqueue can write the row of a state for an id that it knows."""
    double = (
        "INSERT INTO litestar_jobs.ready (id, queue, priority, run_at, attempts) VALUES ($1, 'default', 0, now(), 0)"
    )
    gate, entered = asyncio.Event(), asyncio.Event()

    @job
    async def holds() -> None:
        entered.set()
        await gate.wait()

    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[holds, neighbour], worker=WorkerConfig(lease=1, poll_interval=0.2)))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        held = await plugin.client.enqueue(holds())
        await entered.wait()
        over = await ended(plugin.client, await plugin.client.enqueue(neighbour()))
        for job_id in (held, over.id):
            await connection.execute(double, job_id)
        for _ in range(5):
            beside = await plugin.client.enqueue(neighbour())
            assert (await ended(plugin.client, beside)).status is JobStatus.COMPLETED
        gate.set()
        assert (await ended(plugin.client, held)).status is JobStatus.COMPLETED

        async def whole() -> bool:
            return await plugin.client.store.strays() == []

        await until(whole)


@pytest.mark.parametrize("message", ["due:soon", "due:nan", "due:-Infinity", "ready:", "", ":", "due:", "echo:"])
async def test_a_notification_that_makes_no_sense_disturbs_nobody(
    dsn: str, connection: Any, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker(dsn) as plugin:
        await connection.execute("SELECT pg_notify('litestar_jobs', $1)", message)
        await ended(plugin.client, await plugin.client.enqueue(neighbour()))
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
