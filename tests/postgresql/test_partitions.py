"""Partitioned tables: the same jobs and promises as in plain ones, and what is old goes many at once."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import pytest
from litestar import Litestar
from uuid_utils.compat import uuid7

from litestar_jobs import JobsConfig, JobsPlugin, JobStatus, Limit, Retention, WorkerConfig, job, migrate
from litestar_jobs.database import NOT_ALLOWED, WAITED, Database, Link
from litestar_jobs.errors import DefinitionError, JobsError
from litestar_jobs.partitions import Partitions
from litestar_jobs.store import Statements, Store
from litestar_jobs.telemetry import ChoreFailed, Event, JobsPruned
from litestar_jobs.testing import drained, running, until
from litestar_jobs.worker.partition import LATER, PATIENCE, TRIES, PartitionKeeper
from litestar_jobs.worker.prune import SLICE, Pruner
from test_retention import DAY, KEEP, SQL, Clock, ended, id_of, left, pruner, swept

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
TABLES = ("job", "finished", "failure", "limited")
MOST = 50_000
"""Of how many jobs may move while everybody waits."""


@pytest.fixture(autouse=True)
async def _plain(connection: Connection) -> None:
    await connection.execute("SELECT litestar_jobs.unpartition_tables()")


@pytest.fixture
def partitions(link: Link) -> Partitions:
    return Partitions(link.fetch, SQL)


async def made_days_ago(connection: Connection, *days: int) -> None:
    """Empty tables in partitions of a day each, those that began so many days ago. There is none for the others."""
    await connection.execute("SET timezone = 'UTC'; SELECT litestar_jobs.partition_tables('1 day')")
    for (label,) in await connection.fetch("SELECT label FROM litestar_jobs.partitions()"):
        for table in TABLES:
            await connection.execute(f"DROP TABLE litestar_jobs.{table}_{label}")
    today = await connection.fetchval("SELECT date_trunc('day', now())")
    for ago in days:
        begins = today - timedelta(days=ago)
        await connection.execute("SELECT litestar_jobs.add_partition($1, $2)", begins, begins + timedelta(days=1))


def noon(days_ago: int) -> float:
    """The age of what was made at noon of that day."""
    return time.time() % DAY + (days_ago - 0.5) * DAY


async def labels(connection: Connection) -> list[str]:
    return [row["label"] for row in await connection.fetch("SELECT label FROM litestar_jobs.partitions()")]


async def in_rest(connection: Connection) -> set[UUID]:
    return {row["id"] for row in await connection.fetch("SELECT id FROM litestar_jobs.job_rest")}


SHAPE = """
SELECT relname, CASE relkind WHEN 'p' THEN 'r' ELSE relkind::text END AS kind, relacl::text, pg_get_userbyid(relowner) AS owner,
       obj_description(c.oid, 'pg_class') AS comment,
       (SELECT string_agg(concat(attname, format_type(atttypid, atttypmod), attnotnull, attgenerated, attacl,
                                 pg_get_expr(adbin, adrelid), col_description(c.oid, attnum)), ',' ORDER BY attnum)
          FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
         WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) AS columns,
       (SELECT string_agg(concat(conname, replace(pg_get_constraintdef(oid), ' NOT VALID', '')), ',' ORDER BY conname)
          FROM pg_constraint WHERE conrelid = c.oid) AS constraints,
       (SELECT string_agg(replace(pg_get_indexdef(indexrelid), ' ON ONLY ', ' ON '), ',' ORDER BY indexrelid::regclass::text)
          FROM pg_index WHERE indrelid = c.oid) AS indexes
  FROM pg_class c WHERE relnamespace = $1::text::regnamespace AND relkind IN ('r', 'p', 'v') AND NOT relispartition
 ORDER BY relname
"""


@pytest.mark.parametrize("schema", ["litestar_jobs", "order"])
async def test_what_hangs_on_the_tables_is_there_before_and_after(
    connection: Connection, link: Link, schema: str
) -> None:
    quoted = f'"{schema}"'
    await migrate.upgrade(link, schema)
    await connection.execute(
        f"GRANT SELECT ON {quoted}.job TO PUBLIC; GRANT UPDATE (queue), SELECT (id) ON {quoted}.job TO pg_monitor;"
        f"GRANT DELETE ON {quoted}.finished TO pg_monitor WITH GRANT OPTION; GRANT SELECT ON {quoted}.jobs TO pg_monitor;"
        f"ALTER TABLE {quoted}.job SET (autovacuum_vacuum_scale_factor = 0.01);"
        f"COMMENT ON COLUMN {quoted}.job.queue IS 'which';"
        f"CREATE VIEW mine AS SELECT id, queue FROM {quoted}.job; GRANT SELECT ON mine TO PUBLIC"
    )
    before = await connection.fetch(SHAPE, quoted)
    partitions = Partitions(link.fetch, Statements(schema))
    await partitions.begin(DAY)
    assert await connection.fetch(SHAPE, quoted) == before
    options = f"SELECT DISTINCT reloptions FROM pg_class WHERE relname LIKE 'job\\_%' AND relkind = 'r' AND relnamespace = '{quoted}'::regnamespace"
    assert [row["reloptions"] for row in await connection.fetch(options)] == [["autovacuum_vacuum_scale_factor=0.01"]]
    new = uuid7()
    await connection.execute(f"INSERT INTO {quoted}.job VALUES ($1, now(), now(), 1, 1, 'q', 't', '1')", new)
    await connection.execute(f"INSERT INTO {quoted}.ready VALUES ($1, now(), 1, 0, 'q')", new)
    assert await connection.fetchval("SELECT count(*) FROM mine") == 1
    await partitions.end()
    assert await connection.fetch(SHAPE, quoted) == before
    assert await connection.fetchval("SELECT count(*) FROM mine") == 1
    leftover = f"SELECT count(*) FROM pg_class WHERE relnamespace = '{quoted}'::regnamespace AND relispartition"
    assert await connection.fetchval(leftover) == 0
    await partitions.begin(DAY)
    await partitions.end()
    assert await connection.fetch(SHAPE, quoted) == before


async def test_a_downgrade_makes_them_plain_and_keeps_the_jobs(
    partitions: Partitions, connection: Connection, link: Link
) -> None:
    jobs = await ended(connection, "failed", 60, count=3)
    await partitions.begin(DAY)
    await migrate.downgrade(link, "litestar_jobs", 10)
    assert await left(connection) == set(jobs)
    functions = "SELECT proname FROM pg_proc WHERE pronamespace = 'litestar_jobs'::regnamespace"
    assert [row["proname"] for row in await connection.fetch(functions)] == ["new_id"]
    await migrate.upgrade(link, "litestar_jobs")


HINDERED = {
    "trigger t": "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
    "CREATE TRIGGER t BEFORE INSERT ON litestar_jobs.job FOR EACH ROW EXECUTE FUNCTION f()",
    "foreign key mine_job_fkey": "CREATE TABLE mine (job uuid REFERENCES litestar_jobs.job)",
    "function public.g()": "CREATE FUNCTION g() RETURNS bigint LANGUAGE sql BEGIN ATOMIC"
    " SELECT count(*) FROM litestar_jobs.job; END",
    "row security": "ALTER TABLE litestar_jobs.finished ENABLE ROW LEVEL SECURITY",
    "publication news": "CREATE PUBLICATION news FOR TABLE litestar_jobs.failure",
    "materialized view public.seen": "CREATE MATERIALIZED VIEW seen AS SELECT id FROM litestar_jobs.limited",
}


@pytest.mark.parametrize("what", HINDERED)
async def test_what_partitioned_tables_would_not_have_is_named_and_nothing_is_changed(
    partitions: Partitions, connection: Connection, what: str
) -> None:
    await connection.execute(HINDERED[what])
    with pytest.raises(JobsError, match=rf"these would be lost: the {re.escape(what)}.*Remove them first"):
        await partitions.begin(DAY)
    assert await partitions.listed(KEEP) == []
    assert await connection.fetchval("SELECT relkind FROM pg_class WHERE oid = 'litestar_jobs.job'::regclass") == b"r"


@pytest.mark.parametrize("width", [60, timedelta(minutes=59), timedelta(days=400), -1])
async def test_a_width_that_makes_no_sense_is_refused(partitions: Partitions, width: Any) -> None:
    with pytest.raises(DefinitionError, match="the width of partitions must lie between"):
        await partitions.begin(width)


async def test_a_change_that_others_stand_in_the_way_of_says_so_and_leaves_all_as_it_was(
    partitions: Partitions, connection: Connection
) -> None:
    async with connection.transaction():
        await connection.fetch("SELECT count(*) FROM litestar_jobs.jobs")
        with pytest.raises(JobsError, match="the tables were in use all the time"):
            await partitions.begin(DAY)
    await partitions.begin(DAY)


async def test_jobs_go_on_through_both_changes(dsn: str, partitions: Partitions) -> None:
    """A worker that is at work meanwhile loses none, and none runs twice."""
    ran: list[int] = []

    @job
    async def note(payload: int) -> int:
        ran.append(payload)
        return payload

    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[note], worker=WorkerConfig(concurrency=50)))
    enqueued = 0
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        for change in (partitions.begin(DAY), partitions.begin(DAY / 4), partitions.end()):
            changing = asyncio.create_task(change)
            while not changing.done():
                ids = await plugin.client.enqueue_many([note(enqueued + n) for n in range(20)])
                enqueued += 20
                assert (await plugin.client.result(ids[7], of=note, timeout=30)) == enqueued - 13
            await changing
        await drained(plugin.client)
    assert sorted(ran) == list(range(enqueued))


async def test_what_there_is_becomes_the_first_partition_and_two_are_made_ahead(
    partitions: Partitions, connection: Connection
) -> None:
    (old,) = await ended(connection, "completed", 900 * DAY)
    ahead = id_of(-30 * DAY)
    await connection.execute("INSERT INTO litestar_jobs.job VALUES ($1, now(), now(), 1, 1, 'q', 't', '1')", ahead)
    await connection.execute("INSERT INTO litestar_jobs.ready VALUES ($1, now(), 1, 0, 'q')", ahead)
    await partitions.begin(DAY)
    first, second, rest = await partitions.listed(KEEP)
    assert (first.begins, second.begins, rest.begins, rest.ends) == (None, first.ends, None, None)
    assert first.ends
    assert second.ends
    assert first.ends > datetime.now(UTC)
    assert second.ends - first.ends == timedelta(days=1)
    assert not any(each.is_over for each in (first, second, rest))
    assert await connection.fetchval("SELECT id FROM litestar_jobs.job_before") == old
    assert await in_rest(connection) == {ahead}, "of a clock that is wrong"


async def test_partitions_are_made_a_whole_width_ahead_and_take_what_the_rest_has_of_them(
    partitions: Partitions, connection: Connection
) -> None:
    await made_days_ago(connection, 1, 0)
    early = id_of(-1 * DAY)
    await connection.execute("INSERT INTO litestar_jobs.job VALUES ($1, now(), now(), 1, 1, 'q', 't', '1')", early)
    await connection.execute(
        "INSERT INTO litestar_jobs.limited (id, limit_key, concurrency) VALUES ($1, 'k', 1)", early
    )
    await connection.execute("INSERT INTO litestar_jobs.ready VALUES ($1, now(), 1, 0, 'q')", early)
    assert await in_rest(connection) == {early}
    reaches = [await partitions.make(), await partitions.make()]
    today = await connection.fetchval("SELECT date_trunc('day', now())")
    assert reaches == [today + timedelta(days=2), None]
    assert await in_rest(connection) == set()
    places = "SELECT tableoid::regclass::text FROM litestar_jobs.{} WHERE id = $1"
    label = f"{today + timedelta(days=1):%Y%m%dt%H%M}"
    for table in ("job", "limited"):
        assert await connection.fetchval(places.format(table), early) == f"litestar_jobs.{table}_{label}"


async def test_after_a_time_without_anybody_the_next_one_begins_later_than_now(
    partitions: Partitions, connection: Connection
) -> None:
    """The rest may have jobs of today by then."""
    await made_days_ago(connection, 9, 8)
    today = await connection.fetchval("SELECT date_trunc('day', now())")
    assert await partitions.make() == today + timedelta(days=2)
    assert [each.begins for each in await partitions.listed(KEEP)][-2] == today + timedelta(days=1)


async def test_later_partitions_get_another_width_and_those_made_ahead_are_made_anew_if_they_are_empty(
    partitions: Partitions, connection: Connection
) -> None:
    await partitions.begin(7 * DAY)
    await partitions.begin(DAY)
    bounds = [each.ends for each in await partitions.listed(KEEP) if each.ends]
    assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(bounds))
    begins = bounds[-1] - timedelta(days=1)
    await connection.execute(
        "INSERT INTO litestar_jobs.failure VALUES (litestar_jobs.first_id($1), now(), 1, 'E', 'm')", begins
    )
    await partitions.begin(DAY / 2)
    after = [each.ends for each in await partitions.listed(KEEP) if each.ends]
    assert after == [*bounds, bounds[-1] + timedelta(hours=12)]


async def test_a_partition_goes_when_all_its_jobs_were_kept_long_enough(link: Link, connection: Connection) -> None:
    await made_days_ago(connection, 4, 3, 2, 1, 0, -1)
    gone, kept = await labels(connection), await ended(connection, "completed", 60, count=3)
    await ended(connection, "completed", noon(4), count=50)
    await ended(connection, "completed", noon(3), count=50)
    events: list[Event] = []
    await swept(pruner(link, emit=events.append))
    assert await left(connection) == set(kept)
    assert events == [JobsPruned(completed=100)]
    assert await labels(connection) == gone[3:]


async def test_completed_jobs_wait_for_their_partition(link: Link, connection: Connection) -> None:
    """And are not deleted one by one while it is there; by hand they are."""
    await made_days_ago(connection)
    await connection.execute("SELECT litestar_jobs.add_partition(now() - interval '2 days', now() + interval '2 days')")
    over = await ended(connection, "completed", DAY + 60, count=3)
    events: list[Event] = []
    await swept(pruner(link, emit=events.append))
    assert await left(connection) == set(over)
    assert await pruner(link).sweep() == JobsPruned(completed=3)
    assert await left(connection) == set()


async def make_all_that_stay(connection: Connection, age: float) -> set[UUID]:
    """Jobs that were created so long ago, of each state, and that ended a moment ago, of each status."""
    states = {
        "scheduled": "run_at, priority, attempts, queue) SELECT id, run_at, 0, 0, 'q'",
        "ready": "run_at, priority, attempts, queue) SELECT id, run_at, 0, 0, 'q'",
        "held": "run_at, priority, attempts, queue, reason) SELECT id, run_at, 0, 0, 'q', 'workflow'",
        "running": "token, started_at, worker_id, attempt, queue) SELECT id, 1, now(), id, 1, 'q'",
    }
    stay: set[UUID] = set()
    for table, how in states.items():
        (made,) = await ended(connection, "completed", age)
        await connection.execute("DELETE FROM litestar_jobs.finished WHERE id = $1", made)
        await connection.execute(
            f"INSERT INTO litestar_jobs.{table} (id, {how} FROM litestar_jobs.job WHERE id = $1", made
        )
        stay.add(made)
    for status in KEEP:
        stay |= set(await ended(connection, status, 60, created=age))
    await connection.execute("UPDATE litestar_jobs.finished SET result = '7'")
    return stay | set(await ended(connection, "failed", age)) | set(await ended(connection, "cancelled", age))


async def test_jobs_that_have_not_ended_or_are_kept_longer_go_to_the_rest_as_they_are(
    link: Link, connection: Connection
) -> None:
    await made_days_ago(connection, 5, 0, -1)
    stay = await make_all_that_stay(connection, noon(5))
    await connection.execute(
        "INSERT INTO litestar_jobs.limited (id, limit_key, concurrency) SELECT id, 'k', 3 FROM litestar_jobs.job"
    )
    contents = [f"SELECT * FROM litestar_jobs.{table} ORDER BY id" for table in (*TABLES, "jobs")]
    before = [await connection.fetch(each) for each in contents]
    over = await ended(connection, "completed", noon(5), count=10)
    await connection.execute(
        "INSERT INTO litestar_jobs.limited (id, limit_key, concurrency) SELECT id, 'k', 3 FROM unnest($1::uuid[]) AS id",
        over,
    )
    await ended(connection, "failed", noon(5), count=1)
    await connection.execute(
        "UPDATE litestar_jobs.finished SET finished_at = now() - interval '15 days' WHERE status = 'failed' AND result IS NULL AND id NOT IN (SELECT id FROM litestar_jobs.limited)"
    )
    events: list[Event] = []
    await swept(pruner(link, emit=events.append))
    assert events == [JobsPruned(completed=10, failed=1)]
    assert [await connection.fetch(each) for each in contents] == before
    assert await in_rest(connection) == stay
    assert len(await labels(connection)) == 2


async def test_what_went_to_the_rest_is_deleted_when_its_time_comes(link: Link, connection: Connection) -> None:
    await made_days_ago(connection, 5, 0, -1)
    clock = Clock()
    each = Pruner(link, SQL, KEEP, lambda _: None, clock)
    (late,) = await ended(connection, "completed", 60, created=noon(5))
    await swept(each)
    assert await in_rest(connection) == {late}
    await connection.execute("UPDATE litestar_jobs.finished SET finished_at = now() - interval '25 hours'")
    clock.now += 3600
    await swept(each)
    assert await left(connection) == set()


async def test_too_many_that_stay_are_not_moved_while_everybody_waits(link: Link, connection: Connection) -> None:
    """The others of their partition are deleted one by one, and it goes when few are left."""
    await made_days_ago(connection, 5, 0, -1)
    label = (await labels(connection))[0]
    failed = await ended(connection, "failed", noon(5), count=MOST + 1)
    await ended(connection, "completed", noon(5), count=SLICE + 3)
    clock, events = Clock(), list[Event]()
    each = Pruner(link, SQL, KEEP, events.append, clock)
    await swept(each)
    assert label in await labels(connection)
    assert await in_rest(connection) == set()
    assert events == [JobsPruned(completed=SLICE + 3)]

    (one, *others) = failed
    await connection.execute(
        "UPDATE litestar_jobs.finished SET finished_at = now() - interval '15 days' WHERE id = $1", one
    )
    await swept(each)
    assert label in await labels(connection), "it is not read again at once"
    clock.now += LATER
    await swept(each)
    assert label not in await labels(connection)
    assert await in_rest(connection) == set(others)


async def test_whatever_else_fails_about_a_partition_does_not_keep_the_others(
    link: Link, connection: Connection
) -> None:
    await made_days_ago(connection, 5, 4, 0, -1)
    broken, other, *_ = await labels(connection)
    await connection.execute(f"DROP TABLE litestar_jobs.failure_{broken}")
    over = await ended(connection, "completed", noon(4), count=3)
    each = pruner(link)
    with pytest.raises(asyncpg.UndefinedTableError, match=f"failure_{broken}"):
        await swept(each)
    await swept(each)
    assert not set(over) & await left(connection)
    assert broken in await labels(connection)
    assert other not in await labels(connection)


async def test_nobody_waits_long_for_partitions(
    partitions: Partitions, connection: Connection, store: Store, direct_dsn: str
) -> None:
    """While a transaction that has looked at jobs stays open, others go on."""
    await made_days_ago(connection, 5, 0)
    label = (await labels(connection))[0]
    reader, other = await asyncpg.connect(direct_dsn), await asyncpg.connect(direct_dsn)
    slowest = 0.0
    async with reader.transaction():
        await reader.fetch("SELECT count(*) FROM litestar_jobs.jobs")
        for work in (partitions.make(), partitions.drop(label, KEEP)):
            waiting = asyncio.create_task(work)
            while not waiting.done():
                begun = time.monotonic()
                await other.fetch("SELECT count(*) FROM litestar_jobs.jobs")
                slowest = max(slowest, time.monotonic() - begun)
                await asyncio.sleep(0.01)
            with pytest.raises(WAITED):
                await waiting
    assert 0.1 < slowest < 0.8, "a fifth of a second"
    assert await partitions.make() is not None
    await reader.close()
    await other.close()


async def test_who_finds_others_in_the_way_tries_again_later_and_later_and_tells_in_the_end(
    partitions: Partitions, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made_days_ago(connection, 5, 0)
    tries: list[float] = []
    clock, events = Clock(), list[Event]()

    async def blocked() -> None:
        tries.append(clock.now)
        raise asyncpg.LockNotAvailableError("canceling statement due to lock timeout")

    make = partitions.make
    monkeypatch.setattr(partitions, "make", blocked)
    keeper = PartitionKeeper(partitions, KEEP, events.append, clock)
    for _ in range(4 * 60):
        while await keeper.step() is not None:
            pass
        clock.now += 60
    sweeps = sorted(set(tries))
    assert len(tries) == TRIES * len(sweeps)
    assert [later - earlier for earlier, later in pairwise(sweeps)][:7] == [60, 120, 240, 420, 840, 1620, 3240]
    assert len(events) == len(sweeps) - PATIENCE + 1
    assert isinstance(events[0], ChoreFailed)
    assert (events[0].chore, events[0].delay) == ("partition", 1600)
    monkeypatch.setattr(partitions, "make", make)
    clock.now += LATER
    assert await keeper.step() == JobsPruned()


@asynccontextmanager
async def open_transaction(dsn: str, *statements: tuple[Any, ...]) -> AsyncIterator[None]:
    """Another transaction that has done this, and commits at the end."""
    other = await asyncpg.connect(dsn)
    async with other.transaction():
        for statement in statements:
            await other.fetch(*statement)
        yield
    await other.close()


async def test_what_a_transaction_does_with_an_old_job_meanwhile_is_waited_for(
    partitions: Partitions, connection: Connection, direct_dsn: str
) -> None:
    """Enqueued, retried or finished in transactions that are open when the partition would go: it stays until they
    have ended, and so do their jobs."""
    await made_days_ago(connection, 5, 0)
    (label, _) = await labels(connection)
    (again,) = await ended(connection, "failed", 15 * DAY, created=noon(5))
    (runs,) = await ended(connection, "failed", noon(5))
    await connection.execute("DELETE FROM litestar_jobs.finished WHERE id = $1", runs)
    await connection.execute("INSERT INTO litestar_jobs.running VALUES ($1, 5, now(), NULL, $1, 1, 'q')", runs)
    new = id_of(noon(5))
    acts: dict[str, Sequence[tuple[Any, ...]]] = {
        "enqueued": [(SQL["enqueue_in_session"], new, "q", "t", "1", 0, 3, None, None, None, 0.0)],
        "retried": [(SQL["retry"], again, "nobody")],
        "completed": [(SQL["complete"], [runs], [5])],
    }
    for act in acts.values():
        async with open_transaction(direct_dsn, *act):
            with pytest.raises(WAITED):
                await partitions.drop(label, KEEP)
    done = await partitions.drop(label, KEEP)
    assert done is not None
    assert (done.dropped, done.completed) == (True, 0)
    assert await in_rest(connection) == {again, runs, new}
    rows = await connection.fetch("SELECT id, status FROM litestar_jobs.jobs")
    assert {row["id"]: row["status"] for row in rows} == {again: "pending", runs: "completed", new: "pending"}


async def test_jobs_that_move_while_partitions_go_are_never_lost(
    partitions: Partitions, connection: Connection, direct_dsn: str
) -> None:
    """Many retries, claims and completions of old jobs race with the drop; whatever was not over stays."""
    moved = 0
    for round_ in range(6):
        await connection.execute(
            "SELECT litestar_jobs.unpartition_tables(); TRUNCATE litestar_jobs.job, litestar_jobs.finished, litestar_jobs.ready, litestar_jobs.running, litestar_jobs.failure"
        )
        await made_days_ago(connection, 5, 0)
        (label, _) = await labels(connection)
        over = await ended(connection, "failed", 15 * DAY, created=noon(5), count=400)
        retried: set[UUID] = set()

        async def retry_some(part: Sequence[UUID], retried: set[UUID] = retried) -> None:
            own = await asyncpg.connect(direct_dsn)
            await own.execute(
                "INSERT INTO litestar_jobs.worker VALUES ($1, now(), 'infinity', 1, 'h', '{default}')", part[0]
            )
            for one in part:
                if await own.fetch(SQL["retry"], one, "nobody"):
                    retried.add(one)
                claimed = await own.fetch(
                    SQL["claim"],
                    ["default"],
                    [1],
                    [-32768],
                    [datetime(1, 1, 2, tzinfo=UTC)],
                    [UUID(int=0)],
                    part[0],
                    "{}",
                    9999,
                )
                await own.fetch(SQL["complete"], [row["id"] for row in claimed], [row["token"] for row in claimed])
            await own.close()

        async def drop_it(label: str = label, pause: float = round_ * 0.03) -> None:
            await asyncio.sleep(pause)  # another moment in each round
            while True:
                try:
                    done = await partitions.drop(label, KEEP)
                except WAITED:
                    continue
                if done is not None and done.dropped:
                    return

        await asyncio.wait_for(asyncio.gather(drop_it(), *(retry_some(over[n::3]) for n in range(3))), 60)
        there = {row["id"] for row in await connection.fetch("SELECT id FROM litestar_jobs.jobs")}
        assert there == retried
        moved += len(there)
    assert moved, "some were retried in time"


async def test_of_many_processes_one_makes_and_one_drops(dsn: str, connection: Connection) -> None:
    await made_days_ago(connection, 5, 4, 0)
    for days in (5, 4):
        await ended(connection, "completed", noon(days), count=500)
    links = [Link(Database(dsn)) for _ in range(5)]
    events: list[Event] = []
    for _ in range(20):
        await asyncio.gather(*(swept(pruner(each, emit=events.append)) for each in links))
    assert sum(each.completed for each in events if isinstance(each, JobsPruned)) == 1000
    assert await left(connection) == set()
    assert len(await labels(connection)) == 2
    for each in links:
        await each.close()


async def test_a_partition_is_dropped_only_where_new_commits_are_seen(connection: Connection) -> None:
    await made_days_ago(connection, 5, 0)
    async with connection.transaction(isolation="repeatable_read"):
        with pytest.raises(asyncpg.InvalidTransactionStateError, match="READ COMMITTED"):
            await connection.fetch(SQL["drop_partition"], (await labels(connection))[0], DAY, DAY, DAY)


async def test_without_retention_nothing_is_dropped_and_partitions_are_made(link: Link, connection: Connection) -> None:
    await made_days_ago(connection, 5, 0)
    kept = await ended(connection, "completed", noon(5))
    assert await pruner(link, Retention(completed=None, failed=None, cancelled=None).limits).step() > 0
    assert len(await labels(connection)) == 3
    await swept(pruner(link, {"failed": DAY}))
    assert await left(connection) == set(kept)


@pytest.fixture
async def restricted(direct_dsn: str, connection: Connection) -> AsyncIterator[str]:
    """A role that may read and delete, but not look after partitions."""
    name = f"restricted_{uuid7().hex}"
    await connection.execute(
        f"CREATE ROLE {name} LOGIN; GRANT USAGE ON SCHEMA litestar_jobs TO {name};"
        f"GRANT SELECT, UPDATE, DELETE ON ALL TABLES IN SCHEMA litestar_jobs TO {name}"
    )
    yield name
    await connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def test_a_role_that_may_not_look_after_partitions_is_told_and_deletes_one_by_one(
    dsn: str, connection: Connection, restricted: str
) -> None:
    await made_days_ago(connection, 5, 0)
    over = await ended(connection, "completed", noon(5), count=3)
    await connection.execute(f"GRANT SELECT, UPDATE, DELETE ON ALL TABLES IN SCHEMA litestar_jobs TO {restricted}")
    events: list[Event] = []

    async def restrict(opened: Connection) -> None:
        await opened.execute(f"SET ROLE {restricted}")

    own = Link(Database(dsn), on_open=restrict)
    for function in ("make_partition()", "drop_partition('x', 0, 0, 0)"):
        with pytest.raises(NOT_ALLOWED):
            await own.fetch(f"SELECT litestar_jobs.{function}")
    each = pruner(own, emit=events.append)
    await swept(each)
    await swept(each)
    told, pruned = events
    assert isinstance(told, ChoreFailed)
    assert "GRANT EXECUTE ON FUNCTION litestar_jobs.make_partition" in str(told.error)
    assert pruned == JobsPruned(completed=len(over))
    assert await left(connection) == set()
    await connection.execute(
        f"GRANT EXECUTE ON FUNCTION litestar_jobs.make_partition, litestar_jobs.drop_partition TO {restricted}"
    )
    await swept(each)
    assert len(await labels(connection)) == 2
    await own.close()


async def test_a_worker_looks_after_partitions(dsn: str, connection: Connection) -> None:
    @job(limit=Limit(1))
    async def note(payload: int) -> int:
        return payload

    await made_days_ago(connection, 5, 0)
    old = await ended(connection, "completed", noon(5))
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[note], worker=WorkerConfig()))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        new = await plugin.client.enqueue(note(7))
        assert await plugin.client.result(new, of=note, timeout=10) == 7

        async def looked_after() -> bool:
            return len(await labels(connection)) == 2 and await plugin.client.get(old[0]) is None

        await until(looked_after)
        row = await plugin.client.get(new)
        assert row is not None
        assert row.status is JobStatus.COMPLETED
