"""The judgement: what was lost, what was done twice, and whether the books agree.

How they must agree, for each job:

- **claims**: each has another token; their attempt numbers, in order, begin with 1, and each is that of the one before
  (which was handed back, uncounted) or the next (the one before failed, or its worker was lost).
- **failures**: one of each attempt before the last; of the last one too if the job failed.
- **the end**: the number of attempts is that of the last claim.
- **starts**: an attempt is started at most once for each time that it was claimed. Not "once": a job that was claimed
  ahead and never begun was not started, and is rescued or handed back all the same.
- **marks**: a completed job has left one at least. (An attempt can end before its mark is written.)
- **effects**: one of a completed job that has any, none of another.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from litestar_jobs.database import Database, Link
from litestar_jobs.store import Statements, Store
from litestar_jobs.testing import until

from .app import held, transacted
from .fleet import Events
from .load import Load

OTHERS = """
SELECT pid, query FROM pg_stat_activity
 WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


WITH_EFFECT = {transacted.name, held.name}


class Findings(msgspec.Struct):
    """What is wrong, by promise; and how much there was of everything."""

    lost: set[UUID] = msgspec.field(default_factory=set)
    """Committed jobs that did not end, or completed and never started."""
    doubled: set[UUID] = msgspec.field(default_factory=set)
    """Completed jobs whose effect is there more than once; jobs with one token twice."""
    missing: set[UUID] = msgspec.field(default_factory=set)
    """Completed jobs without their effect."""
    ghosts: set[UUID] = msgspec.field(default_factory=set)
    """Jobs that nobody was told of, or that ran although they were rolled back, or effects of jobs that failed."""
    strays: list[Any] = msgspec.field(default_factory=list)
    """Jobs in no state table or in two."""
    miscounted: dict[UUID, str] = msgspec.field(default_factory=dict)
    """Jobs whose attempts do not add up."""
    connections: list[Any] = msgspec.field(default_factory=list)
    """Connections that are left."""
    counts: Counter[str] = msgspec.field(default_factory=Counter)

    @property
    def wrong(self) -> dict[str, Any]:
        """All that should be empty and is not."""
        facts = msgspec.structs.asdict(self)
        return {name: found for name, found in facts.items() if name != "counts" and found}


async def settled(dsn: str, within: float = 60) -> None:
    """Return when no job waits or runs."""
    link = Link(Database(dsn))
    left: list[tuple[str, int]] = []

    async def look() -> bool:
        counts = await Store(link.fetch, Statements("litestar_jobs")).count()
        left[:] = [(count.status, count.jobs) for count in counts if count.status in {"pending", "running"}]
        return not left

    try:
        await until(look, within, lambda: f"jobs are left: {left}")
    finally:
        await link.close()


async def judge(dsn: str, load: Load, events: Events) -> Findings:
    """After everything has come to rest: all workers have ended, or nothing runs any more."""
    connection = await asyncpg.connect(dsn)
    try:
        found = Findings()
        await load.ask_again()
        await _follow(connection, load, found)
        await _count(connection, events, found)
        link = Link(Database(dsn))
        found.strays = list(await Store(link.fetch, Statements("litestar_jobs")).strays())
        await link.close()
        return found
    finally:
        await connection.close()


async def nobody_left(dsn: str) -> None:
    """No connection is left in the database. The server may need a moment to notice that a process was killed."""
    connection = await asyncpg.connect(dsn)
    left: list[Any] = []

    async def look() -> bool:
        left[:] = await connection.fetch(OTHERS)
        return not left

    try:
        await until(look, 10, lambda: f"connections are left: {left}")
    finally:
        await connection.close()


async def _follow(connection: Any, load: Load, found: Findings) -> None:
    """Each job from what its caller was told to its end."""
    status: dict[UUID, str] = dict(await connection.fetch("SELECT id, status FROM litestar_jobs.finished"))
    types: dict[UUID, str] = dict(await connection.fetch("SELECT id, job_type FROM litestar_jobs.job"))
    marked = {row["job_id"] for row in await connection.fetch("SELECT DISTINCT job_id FROM mark")}
    effects: dict[UUID, int] = dict(await connection.fetch("SELECT job_id, count(*) FROM effect GROUP BY job_id"))
    completed = {job_id for job_id, end in status.items() if end == "completed"}
    found.lost = (load.committed - status.keys()) | (completed - marked)
    found.ghosts = (types.keys() | marked | effects.keys()) - load.committed
    found.ghosts |= load.rolled_back & types.keys()
    found.ghosts |= effects.keys() - completed
    found.doubled = {job_id for job_id, count in effects.items() if count > 1}
    found.missing = {job_id for job_id in completed if types[job_id] in WITH_EFFECT and job_id not in effects}
    found.counts.update(f"jobs {end}" for end in status.values())
    found.counts.update(enqueued=len(load.committed), refused=load.refused, rolled_back=len(load.rolled_back))


async def _count(connection: Any, events: Events, found: Findings) -> None:
    """The books of each job."""
    claims: dict[UUID, list[int]] = defaultdict(list)
    tokens: set[int] = set()
    for row in await connection.fetch("SELECT id, token, attempt FROM claimed ORDER BY number"):
        claims[row["id"]].append(row["attempt"])
        if row["token"] in tokens:
            found.doubled.add(row["id"])
        tokens.add(row["token"])
    failures: dict[UUID, list[int]] = defaultdict(list)
    for row in await connection.fetch("SELECT id, attempt FROM litestar_jobs.failure ORDER BY attempt"):
        failures[row["id"]].append(row["attempt"])
    starts = Counter((heard.job_id, heard.attempt) for heard in events.of("AttemptStarted"))
    started_by_job: dict[UUID | None, dict[int, int]] = defaultdict(dict)
    for (job_id, attempt), count in starts.items():
        started_by_job[job_id][attempt or 0] = count
    for row in await connection.fetch("SELECT id, status, attempts FROM litestar_jobs.finished"):
        job_id = row["id"]
        if row["status"] == "cancelled":
            continue
        wrong = _disagreement(row["status"], row["attempts"], claims[job_id], failures[job_id], started_by_job[job_id])
        if wrong is not None:
            found.miscounted[job_id] = wrong
        found.counts.update(
            claims=len(claims[job_id]), attempts=row["attempts"], handed_back=len(claims[job_id]) - row["attempts"]
        )
    found.counts.update(starts=starts.total(), failures=sum(map(len, failures.values())))
    kinds = await connection.fetch("SELECT error_type, count(*) AS count FROM litestar_jobs.failure GROUP BY 1")
    found.counts.update({f"failure {row['error_type']}": row["count"] for row in kinds})


def _disagreement(
    status: str, attempts: int, claims: Sequence[int], failures: Sequence[int], starts: dict[int, int]
) -> str | None:
    """What does not add up in the books of one job; see the top of this file."""
    if sorted(claims) != list(claims) or set(claims) != set(range(1, attempts + 1)):
        return f"{attempts} attempts, but it was claimed for {claims}"
    failed = attempts if status == "failed" else attempts - 1
    if list(failures) != list(range(1, failed + 1)):
        return f"{status} after {attempts} attempts, but failures of {failures}"
    claimed = Counter(claims)
    if over := {attempt: count for attempt, count in starts.items() if count > claimed[attempt]}:
        return f"attempts started more often than claimed: {over}, claims {claims}"
    return None
