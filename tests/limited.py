"""What the tests of limits share: jobs that wait at gates, and an instrument that sees every start and every end."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeAlias
from uuid import UUID

import asyncpg
from uuid_utils.compat import uuid7

from litestar_jobs.request import Limited

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

INSTRUMENT = """
CREATE TABLE seen (id uuid, token bigint, what text, started_at timestamptz, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO seen (id, token, what, started_at) VALUES (NEW.id, NEW.token, 'start', NEW.started_at);
    ELSE
        INSERT INTO seen (id, token, what) VALUES (OLD.id, OLD.token, 'end');
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER see AFTER INSERT OR DELETE ON litestar_jobs.running FOR EACH ROW EXECUTE FUNCTION see();
"""
"""Notes attempts as the database has them. What begins after an end was committed is noted after it."""

TABLES = [
    "job",
    "scheduled",
    "ready",
    "held",
    "running",
    "finished",
    "failure",
    "worker",
    "suspect",
    "limited",
    "gate",
    "pass",
]


async def wait_at(  # noqa: PLR0913 - what a job may be
    connection: Connection,
    limited: Limited,
    count: int = 1,
    *,
    priority: int = 0,
    max_retries: int = 3,
    queue: str = "default",
) -> list[UUID]:
    """So many jobs, waiting at their first gate as if they had just been enqueued."""
    ids = [uuid7() for _ in range(count)]
    await connection.execute(
        """
        WITH asked AS (
            INSERT INTO litestar_jobs.job (id, run_at, created_at, max_retries, priority, queue, job_type, payload)
            SELECT id, clock_timestamp(), now(), $2, $3, $4, 'note', 'null' FROM unnest($1::uuid[]) AS new(id)
            RETURNING id, run_at
        ), gates AS (
            INSERT INTO litestar_jobs.limited (id, limit_key, rate_key, concurrency, rate, per)
            SELECT id, $5, $6, $7, $8, $9 FROM asked
            RETURNING id, reason, key
        )
        INSERT INTO litestar_jobs.held (id, run_at, priority, attempts, queue, reason, key)
        SELECT id, run_at, $3, 0, $4, reason, key FROM asked JOIN gates USING (id)
        """,
        ids,
        max_retries,
        priority,
        queue,
        limited.limit_key,
        limited.rate_key,
        limited.concurrency,
        limited.rate,
        limited.per,
    )
    return ids


async def most_at_once(connection: Connection) -> dict[str, int]:
    """By key of a limit, how many attempts there ever were at the same time."""
    rows = await connection.fetch(
        "SELECT limit_key AS key, what FROM seen JOIN litestar_jobs.limited USING (id) WHERE limit_key IS NOT NULL "
        "ORDER BY at, what"  # of one moment, an end before a start
    )
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for row in rows:
        now[row["key"]] += 1 if row["what"] == "start" else -1
        most[row["key"]] = max(most[row["key"]], now[row["key"]])
    return dict(most)


async def starts(connection: Connection, key: str) -> list[tuple[datetime, datetime]]:
    """Of each start of this rate, when it began at the earliest, and was seen."""
    rows = await connection.fetch(
        "SELECT started_at, at FROM seen JOIN litestar_jobs.limited USING (id) WHERE what = 'start' AND rate_key = $1",
        key,
    )
    return [(row["started_at"], row["at"]) for row in rows]


def too_close(starts: Sequence[tuple[datetime, datetime]], count: int, per: timedelta) -> list[timedelta]:
    """Where more than ``count`` starts lie within ``per``: how far apart they are.

    Each lies between its two times. Those times are not in the same order: a start that began first may be seen last.
    """
    earliest, latest = sorted(begun for begun, _ in starts), sorted(seen for _, seen in starts)
    apart = [last - first for first, last in zip(earliest, latest[count:], strict=False)]
    return [each for each in apart if each < per]
