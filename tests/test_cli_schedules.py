"""``litestar jobs schedules``: what is enqueued by time, and the hand on it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import pytest
from click.testing import CliRunner, Result
from litestar.cli.main import litestar_group

from cli_app import create_app
from litestar_jobs import JobFilter, JobsPlugin, WorkerConfig
from litestar_jobs.store import Store
from litestar_jobs.testing import until

Schedules = Callable[..., Awaitable[Result]]
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
def schedules(monkeypatch: pytest.MonkeyPatch, dsn: str) -> Schedules:
    """Run ``litestar jobs schedules ...`` on the application of ``cli_app.py``."""
    monkeypatch.setenv("LITESTAR_APP", "cli_app:create_app")
    monkeypatch.setenv("LITESTAR_JOBS_DSN", dsn)
    monkeypatch.setattr(litestar_group, "_prepare_done", False)

    async def run(*arguments: str) -> Result:
        # In a thread: the commands have event loops of their own.
        return await asyncio.to_thread(CliRunner().invoke, litestar_group, ["jobs", "schedules", *arguments])

    return run


async def listed(schedules: Schedules) -> dict[str, Any]:
    result = await schedules("--json")
    assert result.exit_code == 0, result.output
    return {line["name"]: line for line in json.loads(result.stdout)["schedules"]}


async def with_worker(connection: Connection) -> None:
    """A worker of the application has started, declared its schedules, and stopped again."""
    app = create_app()
    (plugin,) = (plugin for plugin in app.plugins.init if isinstance(plugin, JobsPlugin))
    plugin.worker_config = WorkerConfig(queues=["nobodys"])

    async def declared() -> bool:
        return bool(await connection.fetchval("SELECT count(*) FROM litestar_jobs.schedule"))

    async with app.lifespan():
        await until(declared)


async def test_schedules_are_listed_with_their_last_and_next_run(schedules: Schedules, connection: Connection) -> None:
    await with_worker(connection)
    before = (await listed(schedules))["new_year"]
    assert (before["job_type"], before["times"], before["state"]) == ("new_year", "0 0 1 1 * Europe/Berlin", "active")
    assert (before["last_slot"], before["last_job"], before["paused_at"]) == (None, None, None)
    assert before["next_slot"].endswith("-12-31T23:00:00Z")

    await connection.execute("UPDATE litestar_jobs.schedule SET decided_until = now() - interval '1 year'")
    await with_worker(connection)

    async def fired() -> bool:
        return (await listed(schedules))["new_year"]["last_slot"] is not None

    await until(fired)
    after = (await listed(schedules))["new_year"]
    assert after["last_slot"].endswith("-12-31T23:00:00Z")
    assert after["last_slot"] < after["next_slot"] == before["next_slot"]
    assert UUID(after["last_job"]) == await connection.fetchval("SELECT id FROM litestar_jobs.job")

    output = (await schedules()).output
    assert "new_year  0 0 1 1 * Europe/Berlin" in output
    assert f"ago)  job {after['last_job']}" in output
    assert "  next " in output


async def test_a_schedule_that_no_live_worker_has_in_its_code_is_idle(
    schedules: Schedules, connection: Connection
) -> None:
    """Nothing is due then, and whoever looks should know."""
    assert (await listed(schedules))["new_year"]["state"] == "idle"
    await with_worker(connection)
    await connection.execute("UPDATE litestar_jobs.schedule SET seen_at = now() - interval '2 min'")
    idle = (await listed(schedules))["new_year"]
    assert (idle["state"], idle["next_slot"]) == ("idle", None)
    assert "idle: no live worker has it in its code" in (await schedules()).output


async def test_a_schedule_that_nobody_has_in_the_code_any_more_is_not_listed(
    schedules: Schedules, connection: Connection
) -> None:
    await with_worker(connection)
    await connection.execute("""
        INSERT INTO litestar_jobs.schedule (name, job_type, times, decided_until, seen_at)
        VALUES ('old', 'old', '{"kind": "every", "seconds": 90}', now(), now() - interval '2 min'),
               ('of_others', 'of_others', '{"kind": "every", "seconds": 90}', now(), now()),
               ('of_tomorrow', 'of_tomorrow', '{"kind": "sunset"}', now(), now())
    """)
    lines = await listed(schedules)
    assert set(lines) == {"new_year", "of_others", "of_tomorrow"}
    assert lines["of_others"]["times"] == "every 0:01:30"
    assert lines["of_tomorrow"]["times"] == "times of a newer version"


async def test_pause_and_resume_say_what_they_did_and_survive_the_worker(
    schedules: Schedules, connection: Connection
) -> None:
    await with_worker(connection)
    paused = await schedules("pause", "new_year")
    assert (paused.exit_code, paused.output) == (0, "new_year  is paused\n")
    await with_worker(connection)
    line = (await listed(schedules))["new_year"]
    assert (line["state"], line["next_slot"]) == ("paused", None)
    assert "paused since " in (await schedules()).output

    resumed = await schedules("resume", "new_year", "--json")
    assert json.loads(resumed.stdout) == {
        "schedules": [{"name": "new_year", "done": True, "job": None, "reason": None}]
    }
    assert (await listed(schedules))["new_year"]["state"] == "active"


async def test_a_schedule_may_be_paused_before_any_worker_has_started_with_it(
    schedules: Schedules, connection: Connection
) -> None:
    assert (await schedules("pause", "new_year")).exit_code == 0
    await connection.execute("UPDATE litestar_jobs.schedule SET decided_until = now() - interval '1 year'")
    await with_worker(connection)
    assert (await listed(schedules))["new_year"]["state"] == "paused"
    assert await connection.fetchval("SELECT count(*) FROM litestar_jobs.job") == 0


async def test_run_enqueues_the_job_beside_its_slots_paused_or_not(schedules: Schedules, store: Store) -> None:
    assert (await schedules("pause", "new_year")).exit_code == 0
    ran = json.loads((await schedules("run", "new_year", "--json")).stdout)["schedules"]
    (row,) = await store.find(JobFilter.everything(), 10)
    assert ran == [{"name": "new_year", "done": True, "job": str(row.id), "reason": None}]
    assert (row.job_type, row.payload, row.status, row.queue) == ("new_year", "everybody", "pending", "held")
    assert row.created_at - row.run_at < timedelta(seconds=1)
    line = (await listed(schedules))["new_year"]
    assert (line["last_job"], line["last_slot"], line["state"]) == (str(row.id), None, "paused")

    said = (await schedules("run", "new_year")).output
    assert said.startswith("new_year  is enqueued: job ")


async def test_what_does_not_exist_is_said_of_each_and_exits_with_1(schedules: Schedules) -> None:
    mixed = await schedules("pause", "new_year", "nobody")
    assert mixed.exit_code == 1
    assert mixed.output.splitlines() == ["new_year  is paused", "nobody  not done: there is no such schedule"]
    unknown = await schedules("run", "nobody", "--json")
    assert unknown.exit_code == 1
    (turned,) = json.loads(unknown.stdout)["schedules"]
    assert turned["reason"] == "the code of this application has no such schedule"
    assert (await schedules("pause")).exit_code == 2


async def test_without_tables_the_remedy_is_named(
    schedules: Schedules, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITESTAR_JOBS_DSN", empty_dsn)
    for arguments in ((), ("pause", "new_year")):
        result = await schedules(*arguments)
        assert result.exit_code == 1
        assert "litestar jobs upgrade" in " ".join(result.output.replace("│", " ").split())
