"""The statements about workflows, as ``store.py`` has those about jobs, and how they go together.

An end leads on in a transaction of its own, after it was committed, whoever made it: its statements see each workflow as
nobody else changes it, because they hold its lock. It counts once, because the step keeps it. Whoever dies between the two
leaves an end that workers find by looking.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, TypeAlias
from uuid import UUID

import msgspec

from litestar_jobs.database import Link
from litestar_jobs.records import Walked
from litestar_jobs.row import JobRow, JobStatus
from litestar_jobs.store import Statements, Store
from litestar_jobs.workflow import Finished

__all__ = ("FOLLOWED_AT_ONCE", "Course", "Followed", "Skipped", "StepRow", "WorkflowCount", "WorkflowRow")

FOLLOWED_AT_ONCE = 1_000
"""Ends of one transaction."""
MOST_HANDED_OVER = 64_000_000
"""Bytes of results in one payload; PostgreSQL has no room for four times as much."""

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
    """A step of a workflow, as it is now."""

    id: UUID
    """Of its job."""
    name: str
    job_type: str
    after: list[str]
    run_when: Literal["completed", "ended"]
    status: StepStatus
    """Its job's; ``waiting`` while steps before it have to end."""
    error: str | None
    """Its last error, or why it was cancelled."""
    job: JobRow | None
    """None once it is deleted, some time after its end."""


class WorkflowCount(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow, and how many of its steps are where; ``active`` ones are pending or running."""

    id: UUID
    name: str
    created_at: datetime
    trace_id: str | None
    steps: int
    waiting: int
    active: int
    completed: int
    failed: int
    cancelled: int

    @property
    def status(self) -> Literal["running", "completed", "failed", "cancelled"]:
        """Running until all steps have ended; then failed if one failed, cancelled if one was, else completed."""
        return _status(self.waiting + self.active, self.failed, self.cancelled)


class WorkflowRow(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow as it is now."""

    id: UUID
    name: str
    status: Literal["running", "completed", "failed", "cancelled"]
    """Running until all steps have ended; then failed if one failed, cancelled if one was, else completed."""
    created_at: datetime
    trace_id: str | None
    steps: list[StepRow]
    """In an order in which they can run."""

    def step(self, name: str) -> StepRow:
        """The step of this name; :exc:`LookupError` if there is none."""
        found = next((step for step in self.steps if step.name == name), None)
        if found is None:
            raise LookupError(f"workflow {self.name!r} has no step {name!r}")
        return found


class Course:
    """Workflows in the database, over one connection."""

    def __init__(self, link: Link, statements: Statements) -> None:
        self._link = link
        self._sql = statements
        self._channel = statements.channel

    async def follow(self, ids: Sequence[UUID]) -> Followed:
        """Lead on from those of these jobs that are steps and have ended. Any number of them, as often as one likes."""
        skipped: list[Skipped] = []
        free: dict[UUID, tuple[str, float]] = {}
        for first in range(0, len(ids), FOLLOWED_AT_ONCE):
            async with self._link.transaction() as connection:
                await self._follow(connection, ids[first : first + FOLLOWED_AT_ONCE], skipped, free)
        return Followed(skipped, free)

    async def _follow(
        self, connection: Any, ids: Sequence[UUID], skipped: list[Skipped], free: dict[UUID, tuple[str, float]]
    ) -> None:
        if not await connection.fetch(self._sql["lock_workflows"], ids):
            return
        ended = await connection.fetch(self._sql["end_steps"], ids)
        if not ended:
            return
        skipped += [
            Skipped(row["id"], row["job_type"], row["queue"], row["trace_id"], row["reason"])
            for row in ended
            if row["queue"] is not None
        ]
        columns = ([row[name] for row in ended] for name in ("id", "status", "had_ended"))
        freed = await connection.fetch(self._sql["free_steps"], *columns, self._channel)
        free |= {row["id"]: (row["queue"], row["delay"]) for row in freed}
        if takers := [row["id"] for row in freed if row["takes"] is not None]:
            await connection.fetch(self._sql["hand_over"], takers, MOST_HANDED_OVER)

    async def untold(self, after: UUID, at_most: int) -> tuple[Walked, list[UUID]]:
        """Walk over steps. Those whose end has led to nothing yet."""
        (row,) = await self._link.fetch(self._sql["untold_steps"], after, at_most)
        return Walked(row["seen"], row["last"], 0), row["untold"]

    async def forget(self, after: UUID, at_most: int) -> Walked:
        """Walk over workflows, and delete those of which no job is left."""
        (row,) = await self._link.fetch(self._sql["forget_workflows"], after, at_most)
        return Walked(row["seen"], row["last"], row["gone"])

    async def cancel(self, workflow_id: UUID) -> set[UUID]:
        """Cancel the steps that can be: all of them in one statement, so that none lets another go meanwhile."""
        ids = [row["id"] for row in await self._link.fetch(self._sql["steps"], workflow_id)]
        async with self._link.transaction() as connection:
            await connection.fetch(self._sql["lock_workflows"], ids)
            return set(await Store(connection.fetch, self._sql).cancel_many(ids))

    async def list(self, at_most: int, before: UUID | None = None) -> list[WorkflowCount]:
        """The newest first."""
        return await self._counts(None, before, at_most)

    async def get(self, workflow_id: UUID) -> WorkflowRow | None:
        rows = await self._link.fetch(self._sql["steps"], workflow_id)
        counts = await self._counts([workflow_id], None, 1)
        if not counts:
            return None
        (count,) = counts
        jobs = {job.id: job for job in await Store(self._link.fetch, self._sql).get_all([row["id"] for row in rows])}
        steps = [_step(row, jobs.get(row["id"])) for row in rows]
        ends = [step.status for step in steps]
        status = _status(
            len(steps) - sum(map(ends.count, ("completed", "failed", "cancelled"))),
            ends.count("failed"),
            ends.count("cancelled"),
        )
        return WorkflowRow(
            id=count.id,
            name=count.name,
            status=status,
            created_at=count.created_at,
            trace_id=count.trace_id,
            steps=steps,
        )

    async def before(self, step_id: UUID) -> dict[str, Finished]:
        """How the steps ended that this one comes after, by name."""
        rows = await self._link.fetch(self._sql["results_before"], step_id)
        return {
            row["name"]: Finished(
                id=row["id"],
                name=row["name"],
                job_type=row["job_type"],
                status=JobStatus(row["status"]),
                result=None if row["result"] is None else msgspec.json.decode(row["result"]),
                error=row["error"],
            )
            for row in rows
        }

    async def _counts(self, ids: Sequence[UUID] | None, before: UUID | None, at_most: int) -> "list[WorkflowCount]":
        rows = await self._link.fetch(self._sql["workflows"], ids, before, at_most)
        return [WorkflowCount(**{name: row[name] for name in WorkflowCount.__struct_fields__}) for row in rows]
