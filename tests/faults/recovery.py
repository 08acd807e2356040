"""How fast work is back: the rate at which jobs finished, seen afterwards in the times that the database kept."""

import statistics
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import asyncpg

SLICE = 0.5
"""Seconds over which a rate is taken."""


async def moment(dsn: str) -> datetime:
    """The time by the clock that stamps jobs."""
    connection = await asyncpg.connect(dsn)
    now: datetime = await connection.fetchval("SELECT clock_timestamp()")
    await connection.close()
    return now


async def ends(dsn: str) -> list[datetime]:
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch("SELECT finished_at FROM litestar_jobs.finished ORDER BY finished_at")
    await connection.close()
    return [row["finished_at"] for row in rows]


def seconds_to_recover(finished: Sequence[datetime], since: datetime, broken: datetime, back: datetime) -> float | None:
    """Seconds from ``back`` to the end of the first slice of time with half the usual rate, which is that between ``since`` and
    ``broken``. None: it never was."""
    usual = Counter(int((end - since).total_seconds() / SLICE) for end in finished if since <= end < broken)
    enough = statistics.median(usual.values()) / 2
    after = Counter(int((end - back).total_seconds() / SLICE) for end in finished if end >= back)
    return next(((index + 1) * SLICE for index in sorted(after) if after[index] >= enough), None)
