"""Statements: each a file with its contract on top, one statement, known to one place, and by an index.

Plans are looked at in the worst moments: behind a large backlog of which the statistics know nothing, or the wrong
thing, with the settings of our connections and without them (a pooler may refuse them, and in a user's transaction
they are the user's).
"""

import json
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import pytest

import litestar_jobs
from conftest import IS_PARTITIONED, NO_AUTOVACUUM, PARTITIONED
from litestar_jobs import migrate
from litestar_jobs.database import SETTINGS, Database, Link
from litestar_jobs.errors import ConfigurationError
from litestar_jobs.filter import JobFilter
from litestar_jobs.row import JobStatus
from litestar_jobs.store import Statements

ROOT = Path(litestar_jobs.__file__).parent
FILES = sorted(path.stem for path in ROOT.joinpath("sql").glob("*.sql"))
SQL = Statements("litestar_jobs")
SEVERAL_CALLERS = {
    "enqueue": 2,  # a batch of single ones, and many at once
    "enqueue_one": 2,  # alone, and in the caller's transaction
    "lock_workflows": 2,  # leading on, and cancelling a workflow
    "notify": 2,  # after a COPY, and whenever the store tells
    "same_database": 2,  # where the worker listens, and the sessions of the application
    "complete": 2,  # a batch of the finisher's, and in the job's own transaction
    "complete_with_results": 2,
    "void": 2,  # of all that a worker runs, and in the job's own transaction
    "start_workflow": 2,  # in a transaction of its own, and in the caller's
}

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def without_comments(sql: str) -> str:
    return re.sub(r"--.*", "", sql)


@pytest.mark.parametrize("name", FILES)
def test_a_statement_begins_with_its_contract(name: str) -> None:
    contract = re.match(r"(?:--.*\n)+", SQL[name])
    assert contract is not None
    parameters = set(re.findall(r"\$\d+", without_comments(SQL[name])))
    assert parameters <= set(re.findall(r"\$\d+", contract[0])), "each $n is explained"


@pytest.mark.parametrize("name", FILES)
def test_a_statement_is_one(name: str) -> None:
    assert ";" not in without_comments(SQL[name])


@pytest.mark.parametrize("name", FILES)
def test_a_statement_has_one_caller(name: str) -> None:
    source = "".join(path.read_text() for path in ROOT.rglob("*.py"))
    assert len(re.findall(rf'(?:sql|statements)\["{name}"\]', source)) == SEVERAL_CALLERS.get(name, 1)


async def test_every_statement_fits_the_migrated_schema(connection: Connection) -> None:
    for name in FILES:
        await connection.prepare(SQL[name])


@pytest.mark.parametrize("schema", ["other_jobs", "order", "litestar_jobs_2"])
async def test_another_schema_takes_the_place_of_ours(empty_dsn: str, schema: str) -> None:
    link = Link(Database(empty_dsn))
    await migrate.upgrade(link, schema)
    await link.close()
    connection = await asyncpg.connect(empty_dsn)
    for name in FILES:
        await connection.prepare(Statements(schema)[name])
    assert await connection.fetchval("SELECT to_regnamespace('litestar_jobs')") is None
    await connection.close()


@pytest.mark.parametrize("schema", ["", "Jobs", "a.b", 'a"b', "a b", "a;b", "1a", "a" * 52, "pg_a", "ä", "a\n"])
def test_a_schema_has_a_plain_name(schema: str) -> None:
    with pytest.raises(ConfigurationError, match="the schema must be a plain lower-case name"):
        Statements(schema)


# Plans.

WORKER, NOW = UUID(int=1), datetime(2030, 1, 1, tzinfo=UTC)
SOME = [UUID(int=number) for number in range(1, 51)]
COUNT = len(SOME)

STEPS = json.dumps([{"id": str(WORKER), "name": "a", "position": 0, "queue": "a", "job_type": "t", "after": []}])
SPECIAL = [
    {
        "id": str(job_id),
        "queue": "a",
        "job_type": "t",
        "payload": {},
        "priority": 0,
        "max_retries": 3,
        "delay": 0,
        "key": str(job_id),
        "until": "finished",
        "replace": True,
    }
    for job_id in SOME
]

HOT: dict[str, tuple[Any, ...]] = {
    "claim": (["a", "b"], [50, 50], [0, 0], [NOW, NOW], SOME[:2], WORKER, "{}", 1000),
    "complete": (SOME, list(range(COUNT))),
    "settle": (
        SOME,
        list(range(COUNT)),
        ["retry", "failed"] * (COUNT // 2),
        [1.0] * COUNT,
        ["E"] * COUNT,
        ["m"] * COUNT,
        ["t"] * COUNT,
        "channel",
        '{"t": {"job_type": "u", "queue": "a", "priority": 0, "max_retries": 3}}',
        ["schedule"],
    ),
    "enqueue": (
        SOME,
        ["a"] * COUNT,
        ["t"] * COUNT,
        ["{}"] * COUNT,
        [0] * COUNT,
        [3] * COUNT,
        ["trace"] * COUNT,
        [None] * COUNT,
        [None] * COUNT,
        [0.0] * COUNT,
        "channel",
    ),
    "enqueue_special": (json.dumps(SPECIAL), "channel", "1s"),
    "change_pending": (json.dumps(SPECIAL), "channel"),
    "complete_with_results": (SOME, list(range(COUNT)), ["1"] * COUNT),
    "progress": (SOME, list(range(COUNT)), [0.5] * COUNT, [None] * COUNT),
    "marks": (SOME,),
    "promote": (100, "channel"),
    "admit": (["limit", "rate"], ["k1", "r"], SOME, "limit", "k", 200, '{"t": [2, 3, 60.0]}', "channel"),
    "renew": (WORKER, 15.0),
    "cancel_many": (SOME, "channel"),
    "lapse": (NOW, SOME[0], NOW, SOME[0], 1000, "channel", "{}", ["schedule"]),
    "void": (SOME, list(range(COUNT))),
    "retry_many": (SOME, ["failed", "cancelled"], "channel"),
    "move_many": (SOME, "b", 1, "channel"),
    "delete_many": (SOME, ["completed", "failed", "cancelled"]),
    "prune_completed": (86_400.0, UUID(int=0), UUID(int=9), 1_000),
    "forget_keys": (UUID(int=0), 1_000),
    "prune_ended": ("failed", 86_400.0, datetime(1, 1, 2, tzinfo=UTC), 1_000),
    "start_workflow": (str(WORKER), "w", "trace", "{}", STEPS, "channel"),
    "lock_workflows": (SOME,),
    "end_steps": (SOME,),
    "free_steps": (SOME, ["completed"] * COUNT, [False] * COUNT, "channel"),
    "hand_over": (SOME, 1_000),
    "untold_steps": (UUID(int=0), 1_000),
    "forget_workflows": (UUID(int=0), 1_000),
    "steps": (WORKER,),
    "results_before": (WORKER,),
}

IN_A_USERS_TRANSACTION = {
    "enqueue_one": (*(column[0] for column in HOT["enqueue"][:-1]), "channel"),
    "enqueue_in_session": tuple(column[0] for column in HOT["enqueue"][:-1]),
    "start_workflow": (str(WORKER), "w", "trace", "{}", STEPS, None),
    "enqueue_special": (json.dumps(SPECIAL[:1]), None, None),
    "change_pending": (json.dumps(SPECIAL[:1]), None),
    "complete": ([SOME[0]], [1]),
    "complete_with_results": ([SOME[0]], [1], ["1"]),
}

CROWD = """
CREATE TABLE crowd AS SELECT gen_random_uuid() AS id, n, n % 8 AS kind FROM generate_series(1, 160000) AS n;
INSERT INTO litestar_jobs.job (id, run_at, created_at, max_retries, priority, queue, job_type, payload)
SELECT id, now(), now(), 3, 0, 'a', 't', '{}' FROM crowd;
INSERT INTO litestar_jobs.ready (id, run_at, priority, attempts, queue)
SELECT id, now(), 0, 0, 'a' FROM crowd WHERE kind BETWEEN 4 AND 6;
INSERT INTO litestar_jobs.held (id, run_at, priority, attempts, queue, reason)
SELECT id, now(), 0, 0, 'a', 'workflow' FROM crowd WHERE kind = 3;
INSERT INTO litestar_jobs.workflow (id, created_at, name) SELECT id, now(), 'w' FROM crowd WHERE kind = 1;
INSERT INTO litestar_jobs.step (id, workflow_id, delay, position, waits_for, name, job_type, run_when)
SELECT s.id, w.id, 0, s.kind, s.kind - 1, 's' || s.kind, 't', 'completed'
  FROM crowd s JOIN crowd w ON w.n / 8 = s.n / 8 AND w.kind = 1 WHERE s.kind BETWEEN 1 AND 3;
INSERT INTO litestar_jobs.edge (upstream, downstream)
SELECT u.id, d.id FROM crowd u JOIN crowd d ON d.n = u.n + 1 WHERE u.kind IN (1, 2);
INSERT INTO litestar_jobs.scheduled (id, run_at, priority, attempts, queue)
SELECT id, now() + interval '1 hour', 0, 0, 'a' FROM crowd WHERE kind = 0;
INSERT INTO litestar_jobs.running (id, token, started_at, worker_id, attempt, queue)
SELECT id, n, now(), gen_random_uuid(), 1, 'a' FROM crowd WHERE kind = 1;
INSERT INTO litestar_jobs.finished (id, started_at, finished_at, attempts, status)
SELECT id, now(), now(), 1, 'completed' FROM crowd WHERE kind = 2;
INSERT INTO litestar_jobs.limited (id, limit_key, concurrency, rate_key, rate, per)
SELECT id, 'k' || n % 5, 3, 'r', 60, 60 FROM crowd WHERE kind IN (1, 7);
INSERT INTO litestar_jobs.held (id, run_at, priority, attempts, queue, reason, key)
SELECT id, now(), 0, 0, 'a', reason, key FROM crowd JOIN litestar_jobs.limited USING (id) WHERE kind = 7;
INSERT INTO litestar_jobs.gate (reason, key, turn, most, per)
SELECT 'limit', 'k' || n, 1, 3, NULL FROM generate_series(0, 20000) AS n UNION ALL SELECT 'rate', 'r', 1, 60, 60;
INSERT INTO litestar_jobs.pass (reason, key, id, passed_at)
SELECT 'limit', 'k' || n % 5, id, now() FROM crowd WHERE kind = 1;
INSERT INTO litestar_jobs.unique_key (key, id, until) SELECT id, id, 'finished' FROM crowd;
"""
LIE = """
UPDATE pg_class SET reltuples = {rows}, relpages = {pages}
 WHERE relnamespace = 'litestar_jobs'::regnamespace AND relkind IN ('r', 'i')
"""
WORLDS = {
    "empty": NO_AUTOVACUUM,
    "empty and analyzed": "ANALYZE",
    "a backlog, analyzed while empty": CROWD,
    "a backlog, as if never analyzed": LIE.format(rows=-1, pages=0),
    "a backlog, statistics of nearly nothing": LIE.format(rows=1, pages=1),
    "a backlog, statistics of far too much": LIE.format(rows=1e8, pages=1_000_000),
    "a backlog, analyzed": "ANALYZE",
}
"""One after the other, in one database."""


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def plan_of(explained: list[Any]) -> list[dict[str, Any]]:
    return list(nodes(json.loads(explained[0][0])[0]["Plan"]))


async def custom_plan(connection: Connection, name: str, arguments: tuple[Any, ...]) -> list[dict[str, Any]]:
    """The plan for these arguments."""
    return plan_of(await connection.fetch(f"EXPLAIN (FORMAT JSON) {SQL[name]}", *arguments))


async def keep_generic_plan(connection: Connection, name: str) -> None:
    """Make the plan for any arguments now, for this connection to keep."""
    await connection.execute(f"SET plan_cache_mode = force_generic_plan; PREPARE kept_{name} AS {SQL[name]}")
    await generic_plan(connection, name)


async def generic_plan(connection: Connection, name: str) -> list[dict[str, Any]]:
    nothing = ", ".join(["NULL"] * len(HOT[name]))
    return plan_of(await connection.fetch(f"EXPLAIN (FORMAT JSON) EXECUTE kept_{name} ({nothing})"))


def read_whole(plan: list[dict[str, Any]]) -> set[str]:
    """The tables and indexes that are read from beginning to end. The one of queues has a row for each that was ever
    paused or resized: that may be."""
    return {
        node.get("Relation Name") or node["Index Name"]
        for node in plan
        if node["Node Type"] == "Seq Scan" or ("Index Name" in node and "Index Cond" not in node)
    } - {"queue", "queue_pkey"}


ONE_BY_ONE = {"claim", "complete", "complete_with_results", "settle", "lapse"}
"""Statements that are run for many jobs at once, and must not take the square of the time for twice as many."""


def compared(plan: list[dict[str, Any]]) -> list[str]:
    """Where each row of one side is compared with each of the other."""
    return [node["Join Filter"] for node in plan if node["Node Type"] == "Nested Loop" and "Join Filter" in node]


@pytest.fixture
async def ours(direct_dsn: str) -> AsyncIterator[Connection]:
    """A connection with our settings."""
    opened = await asyncpg.connect(direct_dsn, server_settings=SETTINGS)
    yield opened
    await opened.close()


SHAPES = pytest.mark.parametrize("shape", ["SELECT 'plain'", PARTITIONED], ids=["plain", "partitioned"])


@SHAPES
async def test_our_connections_never_read_a_table_whole_whatever_the_statistics_say(
    ours: Connection, connection: Connection, shape: str
) -> None:
    await connection.execute(shape)
    for world, script in WORLDS.items():
        await connection.execute(script)
        for name, arguments in HOT.items():
            await keep_generic_plan(ours, name)
            for plan in (await custom_plan(ours, name, arguments), await generic_plan(ours, name)):
                assert (world, name, read_whole(plan)) == (world, name, set())
                assert name not in ONE_BY_ONE or (world, name, compared(plan)) == (world, name, [])
            await ours.execute(f"DEALLOCATE kept_{name}")


@SHAPES
async def test_a_plan_made_while_the_tables_were_empty_is_good_behind_a_backlog(
    ours: Connection, connection: Connection, shape: str
) -> None:
    await connection.execute(f"{shape}; {NO_AUTOVACUUM}; ANALYZE")
    for name in HOT:
        await keep_generic_plan(ours, name)
    await connection.execute(CROWD)
    assert {name: read_whole(await generic_plan(ours, name)) for name in HOT} == {name: set() for name in HOT}


@SHAPES
async def test_what_runs_in_a_users_transaction_does_not_need_our_settings(connection: Connection, shape: str) -> None:
    await connection.execute(shape)
    for world, script in WORLDS.items():
        await connection.execute(script)
        for name, arguments in IN_A_USERS_TRANSACTION.items():
            # Of partitions only the rest is large here.
            read = read_whole(await custom_plan(connection, name, arguments))
            whole = {each for each in read if not re.search(r"_(before|\d{8}t\d{4})", each)}
            assert (world, name, whole) == (world, name, set()) or world.startswith("empty")


FILTERS: dict[str, tuple[JobFilter, set[str], set[str]]] = {
    "failed": (JobFilter(status="failed"), {"finished_badly", "job_pkey"}, {"ready", "running"}),
    "cancelled, with a text": (JobFilter(status="cancelled", error="x"), {"finished_badly", "failure_job"}, {"ready"}),
    "ids": (JobFilter(ids=SOME), {"finished_pkey", "ready_pkey", "scheduled_pkey", "running_pkey"}, set()),
    "pending in a queue": (JobFilter(status="pending", queue="a"), {"ready_order", "finished_badly"}, {"running"}),
    "running": (JobFilter(status="running"), {"finished_badly"}, {"ready", "scheduled", "held"}),
}
"""What a filter must use, and what it must not touch. Of ``finished`` an empty part of an index is looked at."""
SOME_FAILED = "UPDATE litestar_jobs.finished SET status = 'failed' WHERE id IN (SELECT id FROM crowd WHERE n < 500)"


@pytest.mark.skipif(IS_PARTITIONED, reason="indexes of partitions have other names")
@pytest.mark.parametrize("which", FILTERS)
async def test_a_filter_reads_only_the_tables_of_its_status_and_uses_the_indexes_there_are(
    ours: Connection, connection: Connection, which: str
) -> None:
    asked, used, spared = FILTERS[which]
    await connection.execute(f"{CROWD}; {SOME_FAILED}; ANALYZE")
    plan = await custom_plan(ours, "matching", asked.arguments(asked.among(tuple(JobStatus), "found")))
    assert used <= {node["Index Name"] for node in plan if "Index Name" in node}
    assert not spared & {node["Relation Name"] for node in plan if "Relation Name" in node}
    assert not {"finished", "finished_pkey", "finished_badly"} & read_whole(plan)


async def test_a_claim_reads_ready_in_its_order(ours: Connection, connection: Connection) -> None:
    for script in (NO_AUTOVACUUM, "ANALYZE", WORLDS["a backlog, statistics of far too much"]):
        await connection.execute(script)
        await keep_generic_plan(ours, "claim")
        for plan in (await custom_plan(ours, "claim", HOT["claim"]), await generic_plan(ours, "claim")):
            (reading,) = [node for node in plan if node["Node Type"] == "LockRows"]
            assert [node["Node Type"] for node in nodes(reading)] == ["LockRows", "Index Scan"]
            assert reading["Plans"][0]["Index Name"] == "ready_order"
        await ours.execute("DEALLOCATE kept_claim")


async def test_a_claim_under_a_held_snapshot_does_not_walk_over_what_was_claimed_before(
    ours: Connection, connection: Connection, dsn: str
) -> None:
    """Nothing may be vacuumed away then, so only the lower bound keeps a claim from reading all dead entries."""
    await connection.execute(CROWD)
    await connection.execute("INSERT INTO litestar_jobs.worker VALUES ($1, now(), 'infinity', 1, 'h', '{a}')", WORKER)
    holder = await asyncpg.connect(dsn)
    async with holder.transaction(isolation="repeatable_read"):
        await holder.fetch("SELECT count(*) FROM litestar_jobs.ready")
        bound: tuple[Any, ...] = (-32768, datetime(1, 1, 2, tzinfo=UTC), UUID(int=0))
        for _ in range(20):
            rows = await ours.fetch(SQL["claim"], ["a"], [1000], *([value] for value in bound), WORKER, "{}", 1000)
            bound = (rows[-1]["priority"], rows[-1]["run_at"], rows[-1]["id"])
        pages = {
            name: await _pages_read_in_order(ours, *([value] for value in lowest))
            for name, lowest in (("bound", bound), ("none", (-32768, datetime(1, 1, 2, tzinfo=UTC), UUID(int=0))))
        }
    await holder.close()
    assert pages["bound"] <= 20
    assert pages["none"] > 20 * pages["bound"]


async def test_a_hundred_thousand_waiting_steps_cost_a_claim_nothing(ours: Connection, connection: Connection) -> None:
    """They are held. Only the index on jobs is a level deeper."""
    waiting = """
        CREATE TABLE more AS SELECT gen_random_uuid() AS id, n FROM generate_series($first, $last) AS n;
        INSERT INTO litestar_jobs.job (id, run_at, created_at, max_retries, priority, queue, job_type, payload)
        SELECT id, now(), now(), 3, 0, 'a', 't', '{}' FROM more;
        INSERT INTO litestar_jobs.$table SELECT id, now(), 0, 0, 'a'$reason FROM more; DROP TABLE more; ANALYZE
    """
    await connection.execute("INSERT INTO litestar_jobs.worker VALUES ($1, now(), 'infinity', 1, 'h', '{a}')", WORKER)
    pages: list[int] = []
    for last, table, reason in ((100, "ready", ""), (100_000, "held", ", 'workflow'")):
        script = waiting.replace("$first", "1").replace("$last", str(last)).replace("$table", table)
        await connection.execute(script.replace("$reason", reason))
        sql = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {SQL['claim']}"
        bound = ([-32768], [datetime(1, 1, 2, tzinfo=UTC)], [UUID(int=0)])
        transaction = ours.transaction()
        await transaction.start()
        plan = plan_of(await ours.fetch(sql, ["a"], [10], *bound, WORKER, "{}", 1000))
        await transaction.rollback()
        pages.append(plan[0]["Shared Hit Blocks"] + plan[0]["Shared Read Blocks"])
    assert pages[1] <= pages[0] + 3 * 10


async def _pages_read_in_order(connection: Connection, *bound: Any) -> int:
    """Pages that a claim of ten reads of ``ready`` in its order."""
    transaction = connection.transaction()
    await transaction.start()
    sql = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {SQL['claim']}"
    plan = plan_of(await connection.fetch(sql, ["a"], [10], *bound, WORKER, "{}", 1000))
    await transaction.rollback()
    (scan,) = [node for node in plan if node.get("Index Name") == "ready_order"]
    pages: int = scan["Shared Hit Blocks"] + scan["Shared Read Blocks"]
    return pages
