"""What the scenarios share: a database, jobs in it, a worker, and lines of a table.

Nearly every figure is a ratio against a *floor*, measured in turn with it: a bare asyncpg loop over the same tables
with the same statements, without decoding, tasks or contexts. Machines are noisy; ratios are less so.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec
from litestar import Litestar
from uuid_utils.compat import uuid7

from litestar_jobs import Job, JobsConfig, JobsPlugin, Retention, WorkerConfig, job, migrate
from litestar_jobs.database import SETTINGS, Database, Link
from litestar_jobs.store import LARGEST, Lowest, Statements

SQL = Statements("litestar_jobs")
TEXT = "x" * 88
CHUNK = 50_000
PARTITIONED = """
SELECT litestar_jobs.partition_tables('6 hours');
DROP TABLE litestar_jobs.job_before, litestar_jobs.finished_before, litestar_jobs.failure_before, litestar_jobs.limited_before;
SELECT litestar_jobs.add_partition(at, at + interval '6 hours')
  FROM generate_series(date_bin('6 hours', now(), 'epoch') - interval '54 hours', now(), '6 hours') AS at
"""
"""Eleven and the rest, two of them made ahead: as many as there would be where jobs are kept for two days."""
LEFT = (
    "SELECT EXISTS (SELECT FROM litestar_jobs.running) "
    "OR EXISTS (SELECT FROM litestar_jobs.ready WHERE queue = 'default')"
)
"""Cheap however long the history is."""


class Hundred(msgspec.Struct):
    """A payload of a hundred bytes of JSON."""

    text: str


PAYLOAD = msgspec.json.encode(Hundred(TEXT)).decode()


class Counter:
    """Counts calls of handlers, and tells when there were enough."""

    def __init__(self) -> None:
        self.calls = 0
        self._enough = asyncio.Event()
        self._wanted = 0

    def add(self) -> None:
        self.calls += 1
        if self.calls == self._wanted:
            self._enough.set()

    async def reach(self, wanted: int) -> None:
        self._wanted = wanted
        if self.calls < wanted:
            self._enough.clear()
            await self._enough.wait()


counter = Counter()


@job(name="noop")
async def noop(payload: Hundred) -> None:
    """Nothing, which is what is measured."""
    counter.add()


class Measured(msgspec.Struct):
    """A line of the table. ``ratio`` is the value over the floor's, ``target`` what it should be."""

    name: str
    value: float
    unit: str
    floor: float | None = None
    ratio: float | None = None
    target: str = ""


def compared(name: str, unit: str, pairs: Sequence[tuple[float, float]], target: str = "") -> Measured:
    """Medians over runs of (value, floor), and the median of their ratios."""
    return Measured(
        name,
        statistics.median(value for value, _ in pairs),
        unit,
        statistics.median(floor for _, floor in pairs),
        statistics.median(value / floor for value, floor in pairs),
        target,
    )


class Bench:
    """A database for scenarios, and how much of everything."""

    def __init__(self, dsn: str, runs: int, jobs: int, expired: int = 0, *, partitioned: bool = False) -> None:
        self.dsn = dsn
        self.runs = runs
        self.jobs = jobs
        self.expired = expired
        self.partitioned = partitioned

    async def connect(self) -> "asyncpg.Connection[asyncpg.Record]":
        """A connection with the settings that the library's own have."""
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(self.dsn, server_settings=SETTINGS)
        return connection

    async def fresh(self) -> None:
        """New tables, and nothing left to write of what was before."""
        connection = await self.connect()
        await connection.execute("DROP SCHEMA IF EXISTS litestar_jobs CASCADE")
        link = Link(Database(self.dsn))
        await migrate.upgrade(link, "litestar_jobs")
        await link.close()
        if self.partitioned:
            await connection.execute(PARTITIONED)
        await connection.execute("CHECKPOINT")
        await connection.close()

    async def settle(self) -> None:
        """Leave nothing for the server to do later with what was filled in."""
        connection = await self.connect()
        await connection.execute("VACUUM (ANALYZE)")
        await connection.execute("CHECKPOINT")
        await connection.close()

    async def fill(self, count: int, *, state: str = "ready", queue: str = "default", name: str = "noop") -> None:
        """Jobs in a state, as the library would have written them."""
        connection = await self.connect()
        now, later = await connection.fetchrow("SELECT now(), now() + interval '1 day'")  # type: ignore[misc]
        columns, values = {
            "ready": (["run_at", "priority", "attempts", "queue"], (now, 0, 0, queue)),
            "scheduled": (["run_at", "priority", "attempts", "queue"], (later, 0, 0, queue)),
            "finished": (["started_at", "finished_at", "attempts", "status"], (now, now, 1, "completed")),
        }[state]
        asked = ["id", "run_at", "created_at", "max_retries", "priority", "queue", "job_type", "payload"]
        for start in range(0, count, CHUNK):
            ids = [uuid7() for _ in range(min(CHUNK, count - start))]
            async with connection.transaction():
                await connection.copy_records_to_table(
                    "job",
                    schema_name="litestar_jobs",
                    columns=asked,
                    records=[(job_id, now, now, 3, 0, queue, name, PAYLOAD) for job_id in ids],
                )
                await connection.copy_records_to_table(
                    state,
                    schema_name="litestar_jobs",
                    columns=["id", *columns],
                    records=[(job_id, *values) for job_id in ids],
                )
        await connection.close()

    @asynccontextmanager
    async def application(
        self, jobs: Sequence[Job[Any, Any]] = (noop,), worker: WorkerConfig | None = None, **app: Any
    ) -> AsyncGenerator[JobsPlugin]:
        """An application in this event loop."""
        retention = app.pop("retention", Retention())
        plugin = JobsPlugin(JobsConfig(dsn=self.dsn, jobs=jobs, worker=worker, migrate="never", retention=retention))
        plugins = [*app.pop("plugins", []), plugin]
        async with Litestar(plugins=plugins, logging_config=None, **app).lifespan():
            yield plugin

    async def begun(self) -> None:
        """Return when a job runs."""
        connection = await self.connect()
        while not await connection.fetchval("SELECT EXISTS (SELECT FROM litestar_jobs.running)"):
            await asyncio.sleep(0.005)
        await connection.close()

    async def drained(self) -> None:
        """Return when no job is ready in the queue, and none runs."""
        connection = await self.connect()
        while await connection.fetchval(LEFT):
            await asyncio.sleep(0.005)
        await connection.close()


async def claimed_in_turn(bench: Bench, batch: int = 200) -> AsyncGenerator[list[asyncpg.Record]]:
    """Claims of a worker that only claims, until there is nothing more."""
    connection = await bench.connect()
    worker_id = uuid7()
    await connection.execute(SQL["register"], worker_id, "floor", 1, ["default"], 3600.0)
    claim, lowest = await connection.prepare(SQL["claim"]), Lowest()
    while rows := await claim.fetch(
        ["default"], [batch], [lowest.priority], [lowest.run_at], [lowest.id], worker_id, "{}", LARGEST
    ):
        last = rows[-1]
        lowest = Lowest(last["priority"], last["run_at"], last["id"])
        yield rows
    await connection.close()


async def floor_drain(bench: Bench) -> None:
    """Claim and finish in turn, until there is nothing more."""
    connection = await bench.connect()
    complete = await connection.prepare(SQL["complete"])
    async for rows in claimed_in_turn(bench):
        await complete.fetch([row["id"] for row in rows], [row["token"] for row in rows])
    await connection.close()


async def timed(work: Callable[[], Awaitable[Any]]) -> float:
    """How long it takes, in seconds."""
    begun = time.perf_counter()
    await work()
    return time.perf_counter() - begun
