"""Jobs of which something special is asked: written by one statement of their own, so that the others do not pay for it.

A plain job is written as asked, or not at all; of a special one the database says what became of it.
"""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from litestar_jobs.database import Fetch, Record
from litestar_jobs.news import Due, Gated
from litestar_jobs.request import JobId, NewJob
from litestar_jobs.store import Statements

__all__ = ("Written", "write_special", "write_special_once")


class Written(msgspec.Struct, frozen=True):
    """What became of a special job: the id that counts, and what there is to tell workers of, if anything."""

    id: JobId
    due: Due | None
    gated: Gated | None


async def write_special_once(
    fetch: Fetch, sql: Statements, jobs: Sequence[NewJob], channel: str | None
) -> list[Written | None]:
    """Write these jobs, in one statement, and notify on the channel. None stands for a job that has to be asked for again,
    in another statement: it met one that another transaction wrote or moved at this moment."""
    objects = msgspec.json.encode([job.special for job in jobs]).decode()
    rows = {row["asked"]: row for row in await fetch(sql["enqueue_special"], objects, channel)}
    return [_written(rows[str(job.id)]) for job in jobs]


def _written(row: Record) -> Written | None:
    if row["counts"] is None:
        return None
    due = None if row["queue"] is None else (row["queue"], row["delay"])
    return Written(JobId(UUID(row["counts"]).int, is_new=row["is_new"]), due, row["gate"])


async def write_special(
    fetch: Fetch, sql: Statements, jobs: Sequence[NewJob], channel: str | None
) -> dict[UUID, Written]:
    """Write these jobs in a transaction that is open, however often one has to be asked for."""
    became: dict[UUID, Written] = {}
    while jobs:
        answers = await write_special_once(fetch, sql, jobs, channel)
        became |= {job.id: answer for job, answer in zip(jobs, answers, strict=True) if answer is not None}
        jobs = [job for job in jobs if job.id not in became]
    return became
