"""Many jobs at once, in one transaction: by arrays in one statement while they are few, by COPY when they are many.

They come in chunks, so that a generator of millions is never in memory as a whole and never keeps the event loop busy
for long.
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

from litestar_jobs.request import NewJob
from litestar_jobs.special import Written, write_special
from litestar_jobs.store import Statements

__all__ = ("CHUNK", "WORTH_COPY", "BulkWriter", "in_chunks")

T = TypeVar("T")

WORTH_COPY = 200
"""Rows from which COPY into each table is faster than one statement for all, its round trips included."""
CHUNK = 1_000
"""Rows that are made ready for the server at a time: more are no faster, and keep the event loop longer."""

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


async def in_chunks(items: Iterable[T] | AsyncIterable[T], size: int) -> AsyncIterator[list[T]]:
    """The items in lists of at most so many."""
    if isinstance(items, AsyncIterable):
        waiting: list[T] = []
        async for item in items:
            waiting.append(item)
            if len(waiting) == size:
                yield waiting
                waiting = []
        if waiting:
            yield waiting
        return
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


class BulkWriter:
    """Writes jobs on a connection that is in a transaction."""

    def __init__(self, connection: Any, sql: Statements) -> None:
        self._connection = connection
        self._sql = sql
        self._news: set[str] = set()

    async def write(self, jobs: Sequence[NewJob]) -> dict[UUID, Written]:
        """Write these. Answers what became of the special ones."""
        special = [job for job in jobs if not job.request.is_plain]
        plain = [job for job in jobs if job.request.is_plain] if special else jobs
        if len(plain) >= WORTH_COPY:
            await self._copy(plain)
        elif plain:
            await self._connection.fetch(self._sql["enqueue"], *NewJob.columns(plain), self._sql.channel)
        return await write_special(self._connection.fetch, self._sql, special, self._sql.channel)

    async def notify(self) -> None:
        """Tell of what was written, once the transaction commits."""
        if self._news:
            await self._connection.fetch(self._sql["notify"], self._sql.channel, list(self._news))

    async def _copy(self, jobs: Sequence[NewJob]) -> None:
        """What ``enqueue.sql`` does, for many."""
        now: datetime = await self._connection.fetchval("SELECT statement_timestamp()")
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
        for table, columns, rows in (
            ("job", WRITTEN, written),
            ("ready", PENDING, ready),
            ("scheduled", PENDING, later),
        ):
            if rows:
                await self._connection.copy_records_to_table(
                    table, schema_name=self._sql.schema, columns=columns, records=rows
                )
        self._news |= {f"ready:{queue}" for *_, queue in ready}
        if later:
            self._news.add(f"due:{(min(row[1] for row in later) - now).total_seconds()}")
