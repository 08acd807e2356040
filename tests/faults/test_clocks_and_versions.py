"""Workers whose clock is wrong, and tables that change under them."""

import time
from datetime import timedelta
from pathlib import Path

import asyncpg
import msgspec
import pytest

from litestar_jobs import migrate
from litestar_jobs.database import Database, Link

from .app import Work, plain, transacted
from .conftest import World

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime, Debian's package faketime")
async def test_an_hour_of_difference_between_clocks_changes_nothing(world: World) -> None:
    """One worker lives an hour ago and one an hour from now: times are the database's, leases and delays too."""
    world.fleet.settings = msgspec.structs.replace(world.fleet.settings, lease=5.0, poll=0.3)
    for offset in ("-1h", "+1h"):
        await world.fleet.start(LD_PRELOAD=str(FAKETIME), FAKETIME=offset, FAKETIME_DONT_FAKE_MONOTONIC="1")
    connection = await asyncpg.connect(world.dsn)
    now = await connection.fetchval("SELECT now()")
    for number in range(20):
        await world.load.put(plain(Work(), delay=1 + number / 20))
        await world.load.put(transacted(Work(0.1), run_at=now + timedelta(seconds=1 + number / 20)))
    await world.load.backlog(200, 0.02)
    assert await connection.fetchval("SELECT bool_and(expires_at - now() < '6 s') FROM litestar_jobs.worker")
    found = await world.judged(within=20)
    early = await connection.fetchval(
        "SELECT count(*) FROM mark JOIN litestar_jobs.job ON id = job_id WHERE at < run_at"
    )
    assert early == 0
    backwards = "SELECT count(*) FROM litestar_jobs.finished WHERE started_at > finished_at OR finished_at > now()"
    assert await connection.fetchval(backwards) == 0
    await connection.close()
    assert found.counts["jobs completed"] == 240
    assert world.events.of("JobRescued", "LeaseEnded", "OutcomeRefused") == [], world.output()
    clocks = {round((heard.at - time.time()) / 3600) for heard in world.events.all()}
    assert clocks == {-1, 1}, "their clocks were wrong"


TOMORROW = """
ALTER TABLE litestar_jobs.job ADD COLUMN tenant text;
ALTER TABLE litestar_jobs.ready ADD COLUMN weight int NOT NULL DEFAULT 1;
ALTER TABLE litestar_jobs.running ADD COLUMN progress jsonb;
CREATE INDEX ready_weight ON litestar_jobs.ready (queue, weight);
CREATE TABLE litestar_jobs.tomorrow (id uuid PRIMARY KEY);
INSERT INTO litestar_jobs.migration (version) VALUES ({version});
"""


async def test_workers_go_on_while_the_tables_of_a_later_version_arrive(world: World) -> None:
    await world.fleet.start_all(2)
    world.load.begin(4, lambda number: (plain, transacted)[number % 2](Work(0.005)), pause=0.02)
    await world.load.backlog(200, 0.005)
    link = Link(Database(world.dsn))
    await link.run(TOMORROW.format(version=migrate.LATEST + 1))
    await link.close()
    await world.load.backlog(200, 0.005)
    await world.fleet.start()
    found = await world.judged()
    assert found.counts["jobs completed"] > 400
    assert {heard.outcome for heard in world.events.of("AttemptEnded")} <= {"Completed", "Committed"}


async def test_workers_go_on_while_the_tables_go_back_and_come_again(world: World) -> None:
    """What they need of newer versions than the first is missing for a while; they say so and try again."""
    world.fleet.settings = msgspec.structs.replace(world.fleet.settings, lease=1.0)
    await world.fleet.start_all(2)
    world.load.begin(4, lambda number: (plain, transacted)[number % 2](Work(0.005)), pause=0.02)
    link = Link(Database(world.dsn))
    assert await migrate.downgrade(link, "litestar_jobs", 1) == (migrate.LATEST, 1)
    await world.load.backlog(200, 0.005)
    await world.events.wait_for("ChoreFailed")
    assert await migrate.upgrade(link, "litestar_jobs") == (1, migrate.LATEST)
    await link.close()
    await world.load.backlog(200, 0.005)
    found = await world.judged()
    assert found.counts["jobs completed"] > 400
