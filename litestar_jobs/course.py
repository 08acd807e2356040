"""The statements about workflows, as ``store.py`` has those about jobs, and how they go together.

An end leads on in a transaction of its own, after it was committed, whoever made it: its statements see each workflow as
nobody else changes it, because they hold its lock. It counts once, because the step keeps it. Whoever dies between the two
leaves an end that workers find by looking.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypeAlias
from uuid import UUID

import msgspec

from litestar_jobs.database import Fetch, Link, Record
from litestar_jobs.records import QueueCount, Walked
from litestar_jobs.row import JobRow, JobStatus
from litestar_jobs.store import Statements, Store
from litestar_jobs.workflow import Finished, RunWhen

__all__ = ("Course", "Followed", "Skipped", "StepRow", "WorkflowCount", "WorkflowRow")

AT_ONCE = 1_000
"""Ends of one transaction."""
AGAIN = (0.0, 0.02)
"""Seconds before each try to cancel what is there."""
EVERY = 2**31 - 1
MOST_HANDED_OVER = 64_000_000
"""Bytes of results in one payload; PostgreSQL has no room for four times as much."""

WorkflowStatus: TypeAlias = Literal["running", "completed", "failed", "cancelled"]
StepStatus: TypeAlias = Literal["waiting", "pending", "running", "completed", "failed", "cancelled"]


class Skipped(msgspec.Struct, frozen=True):
    """A step that was cancelled because of another."""

    id: UUID
    job_type: str
    queue: str
    trace_id: str | None
    reason: str


class Followed(msgspec.Struct, frozen=True):
    """What ends have led to."""

    skipped: list[Skipped]
    free: dict[UUID, tuple[str, float]]
    """Jobs that may run: in which queue, and in how many seconds."""


class StepRow(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a workflow as it is now."""

    id: UUID
    """Of its job."""
    name: str
    job_type: str
    after: list[str]
    run_when: RunWhen
    status: StepStatus
    """That of its job; ``waiting`` while steps before it have to end."""
    error: str | None
    """How it failed, or why it was cancelled."""
    job: JobRow | None
    """None once that was deleted, some time after its end."""


class WorkflowCount(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow, and how many of its steps are where; ``active`` ones are pending or running."""

    id: UUID
    name: str
    status: WorkflowStatus
    created_at: datetime
    trace_id: str | None
    steps: int
    waiting: int
    active: int
    completed: int
    failed: int
    cancelled: int


class WorkflowRow(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow as it is now."""

    id: UUID
    name: str
    status: WorkflowStatus
    """Running until all steps have ended; then failed if one has failed, cancelled if one was, else completed."""
    created_at: datetime
    trace_id: str | None
    steps: list[StepRow]
    """In the order in which they were added."""


class Course:
    """Workflows in the database, over one connection."""

    def __init__(self, link: Link, statements: Statements) -> None:
        self._link = link
        self._sql = statements
        self._channel = statements.channel

    async def start(self, arguments: Sequence[Any]) -> None:
        """Write a workflow. The arguments are those of ``start_workflow.sql``, without the channel."""
        await self._link.fetch(self._sql["start_workflow"], *arguments, self._channel)

    async def follow(self, ids: Sequence[UUID]) -> Followed:
        """Lead on from those of these jobs that are steps and have ended, as often as one likes."""
        followed = Followed([], {})
        for first in range(0, len(ids), AT_ONCE):
            async with self._link.transaction() as connection:
                fetch = partial(connection.fetch, timeout=self._link.timeout)
                await self._follow(fetch, ids[first : first + AT_ONCE], followed)
        return followed

    async def _follow(self, fetch: Fetch, ids: Sequence[UUID], followed: Followed) -> None:
        if not await fetch(self._sql["lock_workflows"], ids):
            return
        ended = await fetch(self._sql["end_steps"], ids)
        if not ended:
            return
        columns = ([row[name] for row in ended] for name in ("id", "status", "had_ended"))
        freed = await fetch(self._sql["free_steps"], *columns, self._channel)
        if takers := [row["id"] for row in freed if row["takes"] is not None]:
            await fetch(self._sql["hand_over"], takers, MOST_HANDED_OVER)
        followed.free.update((row["id"], (row["queue"], row["delay"])) for row in freed)
        followed.skipped.extend(
            Skipped(**{name: row[name] for name in Skipped.__struct_fields__})
            for row in ended
            if row["queue"] is not None
        )

    async def untold(self, after: UUID, at_most: int) -> tuple[Walked, list[UUID]]:
        """Walk over steps. Those that have ended without leading to anything yet."""
        return await self._untold(self._link.fetch, after, at_most)

    async def at_one_moment(self) -> tuple[list[QueueCount], int]:
        """How many jobs there are, and how many ends have led to nothing yet: between the two of them no job of a workflow
        is overlooked."""
        async with self._link.transaction("repeatable_read") as connection:
            counts = await Store(connection.fetch, self._sql).count()
            _, untold = await self._untold(connection.fetch, UUID(int=0), EVERY)
            return counts, len(untold)

    async def _untold(self, fetch: Fetch, after: UUID, at_most: int) -> tuple[Walked, list[UUID]]:
        (row,) = await fetch(self._sql["untold_steps"], after, at_most)
        return Walked(row["seen"], row["last"], 0), row["untold"]

    async def forget(self, after: UUID, at_most: int) -> Walked:
        """Walk over workflows, and delete those of which no job is left."""
        (row,) = await self._link.fetch(self._sql["forget_workflows"], after, at_most)
        return Walked(row["seen"], row["last"], row["gone"])

    async def cancel(self, workflow_id: UUID) -> int:
        """Cancel all of its jobs that can be, and once more what was on its way to another state. Answers how many."""
        total = 0
        for pause in AGAIN:
            await asyncio.sleep(pause)
            cancelled = await self._cancel(workflow_id)
            total += len(cancelled)
            await self.follow(list(cancelled))
        return total

    async def _cancel(self, workflow_id: UUID) -> set[UUID]:
        """All in one statement, under the lock: no step may let another go meanwhile."""
        ids = [row["id"] for row in await self._steps(workflow_id)]
        async with self._link.transaction() as connection:
            await connection.fetch(self._sql["lock_workflows"], ids)
            return set(await Store(connection.fetch, self._sql).cancel_many(ids))

    async def newest(self, at_most: int) -> list[WorkflowCount]:
        return await self._counts(None, at_most)

    async def get(self, workflow_id: UUID) -> WorkflowRow | None:
        counts = await self._counts([workflow_id], 1)
        rows = await self._steps(workflow_id)
        jobs = {job.id: job for job in await Store(self._link.fetch, self._sql).get_all([row["id"] for row in rows])}
        for about in counts:
            steps = [_step_row(row, jobs.get(row["id"])) for row in rows]
            return WorkflowRow(
                id=about.id,
                name=about.name,
                status=about.status,
                created_at=about.created_at,
                trace_id=about.trace_id,
                steps=steps,
            )
        return None

    async def before(self, step_id: UUID) -> dict[str, Finished]:
        """How the steps ended that this one comes after, by name."""
        rows = await self._link.fetch(self._sql["results_before"], step_id)
        return {row["name"]: _finished(row) for row in rows}

    async def _steps(self, workflow_id: UUID) -> Sequence[Record]:
        return await self._link.fetch(self._sql["steps"], workflow_id)

    async def _counts(self, ids: Sequence[UUID] | None, at_most: int) -> list[WorkflowCount]:
        rows = await self._link.fetch(self._sql["workflows"], ids, at_most)
        return [WorkflowCount(**{name: row[name] for name in WorkflowCount.__struct_fields__}) for row in rows]


def _step_row(row: Record, job: JobRow | None) -> StepRow:
    noted: StepStatus = row["noted"] or "cancelled"
    status = "waiting" if row["is_waiting"] else noted if job is None else job.status.value
    error = row["error"] if job is None or job.last_error is None else job.last_error
    return StepRow(
        id=row["id"],
        name=row["name"],
        job_type=row["job_type"],
        after=row["after"],
        run_when=row["run_when"],
        status=status,
        error=error if status in {"failed", "cancelled"} else None,
        job=job,
    )


def _finished(row: Record) -> Finished:
    return Finished(
        id=row["id"],
        name=row["name"],
        job_type=row["job_type"],
        status=JobStatus(row["status"]),
        result=None if row["result"] is None else msgspec.json.decode(row["result"]),
        error=row["error"],
    )
