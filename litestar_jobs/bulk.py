"""Many jobs at once, in one transaction: by arrays in one statement while they are few, by COPY when they are many."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from litestar_jobs.database import Link
from litestar_jobs.request import NewJob
from litestar_jobs.store import Statements

__all__ = ("CHUNK", "WORTH_COPY", "write_many")

T = TypeVar("T")

WORTH_COPY = 200
"""Rows from which COPY into each table is faster than one statement for all, its round trips included."""
CHUNK = 10_000
"""Rows that are made ready for the server at a time."""

WRITTEN = (
    "id",
    "run_at",
    "created_at",
    "max_retries",
    "priority",
    "queue",
    "job_type",
    "payload",
    "trace_id",
    "headers",
)
PENDING = ("id", "run_at", "priority", "attempts", "queue")


async def write_many(link: Link, sql: Statements, jobs: Sequence[NewJob]) -> None:
    """Write all of them or none, and notify."""
    async with link.transaction() as connection:
        if len(jobs) < WORTH_COPY:
            await connection.fetch(sql["enqueue"], *NewJob.columns(jobs), sql.channel)
            return
        news: set[str] = set()
        for chunk in _chunks(jobs, CHUNK):
            news |= await _copy(connection, sql, chunk)
        await connection.fetch(sql["notify"], sql.channel, list(news))


async def _copy(connection: Any, sql: Statements, jobs: Sequence[NewJob]) -> set[str]:
    """What ``enqueue.sql`` does, for many. Answers what to notify of."""
    now: datetime = await connection.fetchval("SELECT statement_timestamp()")
    written: list[tuple[Any, ...]] = []
    ready: list[tuple[Any, ...]] = []
    later: list[tuple[Any, ...]] = []
    for job in jobs:
        asked = job.request
        run_at = asked.run_at or now + timedelta(seconds=asked.delay_seconds)
        written.append(
            (
                job.id,
                run_at,
                now,
                asked.max_retries,
                asked.priority,
                asked.queue,
                asked.job_type,
                asked.payload.decode(),
                job.trace_id,
                job.headers.decode() if job.headers else None,
            )
        )
        (ready if run_at <= now else later).append((job.id, run_at, asked.priority, 0, asked.queue))
    for table, columns, rows in (("job", WRITTEN, written), ("ready", PENDING, ready), ("scheduled", PENDING, later)):
        if rows:
            await connection.copy_records_to_table(table, schema_name=sql.schema, columns=columns, records=rows)
    news = {f"ready:{queue}" for *_, queue in ready}
    return news | {f"due:{(min(row[1] for row in later) - now).total_seconds()}"} if later else news


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
