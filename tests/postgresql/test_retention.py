"""Retention: jobs go when they have been kept long enough after they ended, whole, and nothing else goes."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TypeAlias
from uuid import UUID

import asyncpg
import pytest
from litestar import Litestar
from uuid_utils.compat import uuid7

from litestar_jobs import JobsConfig, JobsPlugin, Retention, WorkerConfig, job
from litestar_jobs.database import SETTINGS, Database, Link, Record
from litestar_jobs.errors import ConfigurationError
from litestar_jobs.store import Statements
from litestar_jobs.telemetry import Event, JobsPruned
from litestar_jobs.testing import running, until
from litestar_jobs.worker import prune
from litestar_jobs.worker.partition import LAST
from litestar_jobs.worker.prune import ANEW_PAUSE, PAUSE, SLICE, Pruner

SQL = Statements("litestar_jobs")
DAY = 86_400.0
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
KEEP = {"completed": DAY, "failed": 14 * DAY, "cancelled": 14 * DAY}


@pytest.fixture(autouse=True)
async def _plain(connection: Connection) -> None:
    """How partitions go is another story."""
    await connection.execute("SELECT litestar_jobs.unpartition_tables()")


def id_of(age: float) -> UUID:
    """The id of a job that was created so many seconds ago."""
    milliseconds = int((time.time() - age) * 1000)
    return UUID(bytes=milliseconds.to_bytes(6, "big") + uuid7().bytes[6:])


ENDED = """
WITH ended AS (
    INSERT INTO litestar_jobs.job (id, run_at, created_at, max_retries, priority, queue, job_type, payload)
    SELECT id, now(), now() - make_interval(secs => $2), 3, 0, 'default', 'note', 'null' FROM unnest($1::uuid[]) AS id
    RETURNING id
), failed AS (
    INSERT INTO litestar_jobs.failure SELECT id, now(), 1, 'OSError', 'no' FROM ended
)
INSERT INTO litestar_jobs.finished (id, finished_at, attempts, status)
SELECT id, now() - make_interval(secs => $3), 1, $4 FROM ended
"""


async def ended(
    connection: Connection, status: str, ago: float, *, count: int = 1, created: float | None = None
) -> list[UUID]:
    """Jobs that ended like that so long ago, and were created then if not before."""
    created = ago if created is None else created
    ids = [id_of(created) for _ in range(count)]
    await connection.execute(ENDED, ids, created, ago, status)
    return ids


async def left(connection: Connection) -> set[UUID]:
    """The jobs that are there; of the others nothing is."""
    found: set[UUID] = set()
    for table in ("job", "finished", "failure"):
        ids = {row["id"] for row in await connection.fetch(f"SELECT id FROM litestar_jobs.{table}")}
        assert not found or ids == found, table
        found = ids
    return found


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def pruner(link: Link, keep: Mapping[str, float] = KEEP, emit: Callable[[Event], None] = lambda _: None) -> Pruner:
    return Pruner(link, SQL, keep, emit)


async def swept(each: Pruner) -> int:
    """Step until the sweep is over. Answers in how many steps it was."""
    steps = 1
    while await each.step() < PAUSE:
        steps += 1
    return steps


async def test_jobs_go_when_they_have_been_kept_for_the_time_of_their_status(
    link: Link, connection: Connection
) -> None:
    for status, kept in KEEP.items():
        await ended(connection, status, kept + 60)
    stay = {(await ended(connection, status, kept - 60))[0] for status, kept in KEEP.items()}
    stay |= set(await ended(connection, "completed", 60, created=30 * DAY))
    events: list[Event] = []
    await swept(pruner(link, emit=events.append))
    assert await left(connection) == stay
    assert events == [JobsPruned(completed=1, failed=1, cancelled=1)]


async def test_what_is_kept_for_ever_stays(link: Link, connection: Connection) -> None:
    keep = Retention(completed=None, failed=0, cancelled=None).limits
    stay = [*await ended(connection, "completed", 900 * DAY), *await ended(connection, "cancelled", 900 * DAY)]
    await ended(connection, "failed", 60)
    await swept(pruner(link, keep))
    assert await left(connection) == set(stay)


async def test_with_nothing_to_prune_for_ever_only_partitions_are_asked_for(link: Link) -> None:
    asked: list[str] = []
    fetch = link.fetch

    async def heard(sql: str, *arguments: object) -> Sequence[Record]:
        asked.append(sql)
        return await fetch(sql, *arguments)

    link.fetch = heard  # type: ignore[method-assign]
    assert await pruner(link, {}).step() == ANEW_PAUSE
    assert asked == [SQL["partitions"]]


async def test_jobs_that_are_not_over_stay_however_old(link: Link, connection: Connection) -> None:
    (old,) = await ended(connection, "completed", 900 * DAY)
    await connection.execute("DELETE FROM litestar_jobs.finished")
    await connection.execute(
        "INSERT INTO litestar_jobs.ready SELECT id, run_at, priority, 0, queue FROM litestar_jobs.job"
    )
    await swept(pruner(link))
    assert await connection.fetchval("SELECT id FROM litestar_jobs.job") == old


async def test_slices_are_bounded_and_followed_by_pauses_in_proportion(link: Link, connection: Connection) -> None:
    stay = await ended(connection, "failed", 2 * DAY, count=SLICE + 5)  # older than many completed ones
    await ended(connection, "completed", 2 * DAY, count=2 * SLICE)
    await ended(connection, "cancelled", 20 * DAY, count=SLICE + 1)
    each = pruner(link)
    at_a_time: list[int] = []
    before = len(await connection.fetch("SELECT FROM litestar_jobs.job"))
    pause = 0.0
    while pause < PAUSE:
        begun = time.monotonic()
        pause = await each.step()
        took = time.monotonic() - begun
        now = await connection.fetchval("SELECT count(*) FROM litestar_jobs.job")
        at_a_time.append(before - now)
        before = now
        assert pause >= PAUSE or 0 < pause <= took * prune.BREATHER
    assert max(at_a_time) <= SLICE
    assert await left(connection) == set(stay)


async def test_a_sweep_begins_where_the_last_one_ended_and_now_and_then_anew(
    link: Link, connection: Connection
) -> None:
    clock = Clock()
    each = Pruner(link, SQL, KEEP, lambda _: None, clock)
    kept = await ended(connection, "failed", 2 * DAY, count=2 * SLICE)
    at_first = await swept(each)
    assert at_first >= 5
    assert await swept(each) == 4, "nothing is looked at twice"

    late = await ended(connection, "completed", 1.5 * DAY, created=3 * DAY)  # created before what was seen
    await swept(each)
    assert await left(connection) == {*kept, *late}
    clock.now += ANEW_PAUSE
    assert await swept(each) == at_first
    assert await left(connection) == set(kept)


async def test_many_at_once_do_no_harm(dsn: str, connection: Connection) -> None:
    for status in KEEP:
        await ended(connection, status, 30 * DAY, count=3 * SLICE + 1)
    links = [Link(Database(dsn)) for _ in range(4)]
    done = await asyncio.gather(*(pruner(each).sweep() for each in links))
    assert [sum(getattr(one, status) for one in done) for status in KEEP] == [3 * SLICE + 1] * 3
    assert await left(connection) == set()
    for each in links:
        await each.close()


async def test_a_job_that_is_retried_at_this_moment_stays(link: Link, connection: Connection, dsn: str) -> None:
    (again,) = await ended(connection, "failed", 30 * DAY)
    async with connection.transaction():
        assert await connection.fetch(SQL["retry"], again, "nobody")
        await asyncio.wait_for(swept(pruner(link)), 10)
    assert await connection.fetchval("SELECT id FROM litestar_jobs.ready") == again


async def test_between_sweeps_there_is_no_connection(link: Link, connection: Connection) -> None:
    await swept(pruner(link))
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"

    async def alone() -> bool:
        return bool(await connection.fetchval(f"{others} AND backend_type = 'client backend'") == 0)

    await until(alone)


async def test_a_worker_prunes_as_its_configuration_says(dsn: str, connection: Connection) -> None:
    @job(name="never_enqueued")
    async def nothing() -> None: ...

    await ended(connection, "completed", 2 * DAY)
    (stays,) = await ended(connection, "failed", 2 * DAY)
    events: list[Event] = []
    config = JobsConfig(
        dsn=dsn,
        jobs=[nothing],
        worker=WorkerConfig(),
        retention=Retention(failed=timedelta(days=3)),
        hooks=[events.append],
    )
    async with running(Litestar(plugins=[JobsPlugin(config)], logging_config=None)):

        async def pruned() -> bool:
            return JobsPruned(completed=1) in events

        await until(pruned)
    assert await left(connection) == {stays}


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: Retention(completed=-1), "Retention: completed must lie between"),
        (lambda: Retention(failed="1d"), "Retention: failed must be a number of seconds"),  # type: ignore[arg-type]
        (lambda: JobsConfig(retention=None), "retention must be a Retention"),  # type: ignore[arg-type]
    ],
)
def test_a_retention_that_makes_no_sense_is_an_error_where_it_is_made(made: Callable[[], object], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        made()


async def test_a_walk_does_not_go_over_what_was_deleted_before_under_a_held_snapshot(
    direct_dsn: str, connection: Connection
) -> None:
    """Nothing may be vacuumed away then, so only the place that is remembered keeps a slice from its dead entries."""
    for _ in range(20):
        await ended(connection, "completed", 2 * DAY, count=SLICE)
    ours = await asyncpg.connect(direct_dsn, server_settings=SETTINGS)
    holder = await asyncpg.connect(direct_dsn)
    async with holder.transaction(isolation="repeatable_read"):
        await holder.fetch("SELECT count(*) FROM litestar_jobs.finished")
        after = UUID(int=0)
        for _ in range(19):
            (row,) = await ours.fetch(SQL["prune_completed"], DAY, after, LAST, SLICE)
            assert row["gone"] == SLICE
            after = row["last"]
        pages = [await _pages(ours, after), await _pages(ours, UUID(int=0))]
    await holder.close()
    await ours.close()
    assert pages[1] > 5 * pages[0]


async def _pages(connection: Connection, after: UUID) -> int:
    """Pages that a slice reads to see what is next."""
    transaction = connection.transaction()
    await transaction.start()
    sql = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {SQL['prune_completed']}"
    plan = (await connection.fetchval(sql, DAY, after, LAST, 10)) or "[]"
    await transaction.rollback()
    nodes = [json.loads(plan)[0]["Plan"]]
    while nodes:
        node = nodes.pop()
        if node.get("Subplan Name") == "CTE seen":
            return int(node["Shared Hit Blocks"] + node["Shared Read Blocks"])
        nodes += node.get("Plans", [])
    raise AssertionError(plan)
