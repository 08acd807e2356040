"""Jobs of which something special is asked: written by one statement of their own, so that the others do not pay for it.

A plain job is written as asked, or not at all; of a special one the database says what became of it.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from litestar_jobs.database import Fetch, Link, Record
from litestar_jobs.errors import AlreadyEnqueued
from litestar_jobs.news import Due
from litestar_jobs.request import JobId, JobRequest, NewJob
from litestar_jobs.store import Statements

__all__ = ("Written", "write_special", "write_special_alone")

LOCK_TIMEOUT = "100ms"
"""How long a common statement waits for somebody's transaction. Then the jobs that do not have to wait go before."""


class Written(msgspec.Struct, frozen=True):
    """What became of a special job: the id that counts, and what there is to tell workers of, if anything."""

    id: JobId
    due: Due | None

    def answer(self, request: JobRequest) -> JobId:
        """What its caller is told; :exc:`AlreadyEnqueued` if that is what was asked for."""
        if not self.id.is_new and request.unique is not None and request.unique.on_conflict == "error":
            raise AlreadyEnqueued(
                f"nothing was enqueued: job {self.id} has the key of this unique job {request.job_type!r}. Catch "
                'AlreadyEnqueued, or let the job be defined with another on_conflict, such as "skip".',
                job_id=self.id,
            )
        return self.id


async def write_special_alone(link: Link, sql: Statements, jobs: Sequence[NewJob]) -> list[Written | None]:
    """Write these jobs in a transaction of our own. None stands for one that has to be asked for again: it met a job that
    another transaction wrote or moved at this moment.

    Raises one of ``WAITED`` if a transaction that is open keeps one of them waiting.
    """
    if not any(map(_may_change, jobs)):
        return await _write_once(link.fetch, sql, jobs, sql.channel, LOCK_TIMEOUT)
    async with link.transaction() as connection:
        return await _write_once(connection.fetch, sql, jobs, sql.channel, LOCK_TIMEOUT)


async def write_special(
    fetch: Fetch, sql: Statements, jobs: Sequence[NewJob], channel: str | None
) -> dict[UUID, Written]:
    """Write these jobs in a transaction that is open, however often one has to be asked for."""
    became: dict[UUID, Written] = {}
    while jobs:
        answers = await _write_once(fetch, sql, jobs, channel)
        became |= {job.id: answer for job, answer in zip(jobs, answers, strict=True) if answer is not None}
        jobs = [job for job in jobs if job.id not in became]
    return became


async def _write_once(
    fetch: Fetch, sql: Statements, jobs: Sequence[NewJob], channel: str | None, patience: str | None = None
) -> list[Written | None]:
    """Write them, and change those of others that hold their keys and are pending, if that was asked for."""
    answered = await fetch(sql["enqueue_special"], _json(job.special for job in jobs), channel, patience)
    rows = {row["asked"]: row for row in answered}
    became = {job.id: _written(rows[str(job.id)]) for job in jobs}
    changes = [
        (job, rows[str(job.id)]["counts"]) for job in jobs if rows[str(job.id)]["is_pending"] and _may_change(job)
    ]
    if changes:
        asked = {holder: _change(job, holder) for job, holder in changes}  # of several for one, the last
        changed = {row["id"]: row for row in await fetch(sql["change_pending"], _json(asked.values()), channel)}
        for job, holder in changes:
            became[job.id] = Written(_known(holder), _due(changed[holder])) if holder in changed else None
    return list(became.values())


def _may_change(job: NewJob) -> bool:
    unique = job.request.unique
    return unique is not None and unique.on_conflict in {"replace", "reschedule"}


def _change(job: NewJob, holder: str) -> dict[str, Any]:
    """An object for ``change_pending.sql``."""
    unique = job.request.unique
    return job.special | {"id": holder, "replace": unique is not None and unique.on_conflict == "replace"}


def _written(row: Record) -> Written | None:
    if row["is_new"]:
        return Written(JobId(UUID(row["counts"]).int), _due(row))
    return None if row["counts"] is None else Written(_known(row["counts"]), None)


def _known(job_id: str) -> JobId:
    return JobId(UUID(job_id).int, is_new=False)


def _due(row: Record) -> Due | None:
    return row["gate"] if row["queue"] is None else (row["queue"], row["delay"])


def _json(objects: Iterable[dict[str, Any]]) -> str:
    return msgspec.json.encode(list(objects)).decode()
