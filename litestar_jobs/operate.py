"""What is done to many jobs at once, by filter: retry, cancel, delete, move, or only count.

The jobs that are meant are those of one moment: one statement reads their ids, in slices, while another connection
moves each slice in a transaction of its own. So nothing is locked for long, a job is tried once however often it comes
back, and what was done stays done if the rest fails. Each move says where the job must be for it: a job that a worker
claims meanwhile does not move, and is not counted.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeAlias
from uuid import UUID

from litestar_jobs.database import Database, Link
from litestar_jobs.filter import JobFilter
from litestar_jobs.request import MAX_PRIORITY, check_queue, whole_number
from litestar_jobs.row import JobStatus
from litestar_jobs.store import Statements, Store

__all__ = ("Operator",)

Move: TypeAlias = Callable[[list[UUID]], Awaitable[dict[UUID, str | None]]]
"""Answers the jobs that moved, each with the queue in which it may run now, if it may."""

SLICE = 1_000
"""Jobs of one transaction."""
AGAIN = (0.0, 0.0, 0.02)
"""Seconds before each try to move a job."""
PATIENCE = 3_600.0
"""Seconds that the search for the next slice may take: for most conditions there is no index."""

PENDING = (JobStatus.PENDING,)
UNENDED = (JobStatus.PENDING, JobStatus.RUNNING)
ENDED_BADLY = (JobStatus.FAILED, JobStatus.CANCELLED)
ENDED = (JobStatus.COMPLETED, *ENDED_BADLY)


class Operator:
    """Does one thing to all jobs that a filter means. With ``dry_run`` it only counts them."""

    def __init__(
        self,
        database: Database,
        statements: Statements,
        store: Store,
        wake: Callable[[set[str]], None],
        lead_on: Callable[[list[UUID]], Awaitable[object]],
    ) -> None:
        """``store`` is what the moves go through; ``wake`` hears of queues that have jobs now, and ``lead_on`` of jobs
        that have ended."""
        self._database = database
        self._sql = statements
        self._store = store
        self._wake = wake
        self._lead_on = lead_on

    async def retry(self, which: JobFilter, *, dry_run: bool = False) -> int:
        statuses = which.among(ENDED_BADLY, "retried")
        return await self._each(which, statuses, lambda ids: self._store.retry_many(ids, statuses), dry_run=dry_run)

    async def cancel(self, which: JobFilter, *, dry_run: bool = False) -> int:
        statuses = which.among(UNENDED, "cancelled")
        return await self._each(which, statuses, self._cancel, dry_run=dry_run)

    async def _cancel(self, ids: list[UUID]) -> dict[UUID, str | None]:
        cancelled = await self._store.cancel_many(ids)
        await self._lead_on(list(cancelled))
        return cancelled

    async def delete(self, which: JobFilter, *, dry_run: bool = False) -> int:
        statuses = which.among(ENDED, "deleted")
        return await self._each(which, statuses, lambda ids: self._store.delete_many(ids, statuses), dry_run=dry_run)

    async def move(
        self, which: JobFilter, *, queue: str | None = None, priority: int | None = None, dry_run: bool = False
    ) -> int:
        """To another queue, or to another priority."""
        if queue is not None:
            check_queue(queue)
        if priority is not None:
            whole_number(priority, "priority", -MAX_PRIORITY, MAX_PRIORITY)
        statuses = which.among(PENDING, "moved")
        return await self._each(
            which, statuses, lambda ids: self._store.move_many(ids, queue, priority), dry_run=dry_run
        )

    async def _each(self, which: JobFilter, statuses: Sequence[JobStatus], move: Move, *, dry_run: bool) -> int:
        total = 0
        async with aclosing(self._slices(which, statuses)) as slices:
            async for ids in slices:
                total += len(ids) if dry_run else await self._move(ids, move)
        return total

    async def _move(self, ids: list[UUID], move: Move) -> int:
        """What does not move at first may have been on its way from one table to another: it is tried again."""
        total = 0
        for pause in AGAIN:
            await asyncio.sleep(pause)
            moved = await move(ids)
            total += len(moved)
            self._wake({queue for queue in moved.values() if queue is not None})
            ids = [job_id for job_id in ids if job_id not in moved]
            if not ids:
                break
        return total

    async def _slices(self, which: JobFilter, statuses: Sequence[JobStatus]) -> AsyncGenerator[list[UUID], None]:
        link = Link(self._database)
        try:
            async with link.transaction() as connection:
                found = await connection.cursor(self._sql["matching"], *which.arguments(statuses), timeout=PATIENCE)
                while rows := await found.fetch(SLICE, timeout=PATIENCE):
                    yield [row["id"] for row in rows]
        finally:
            await link.close()
