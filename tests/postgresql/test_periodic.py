"""Periodic jobs on a real database: each slot once, whoever fires, whoever dies, and whatever code runs beside it.

The database's clock cannot be turned. So a test sets a schedule's row back, and its slots are due.
"""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import msgspec
import pytest
from litestar import Litestar

from litestar_jobs import (
    Cron,
    Every,
    Job,
    JobContext,
    JobFilter,
    Jobs,
    JobsConfig,
    JobsPlugin,
    JobStatus,
    WorkerConfig,
    job,
)
from litestar_jobs.agenda import FORGOTTEN, NOBODYS, REFRESH, Agenda, Planned
from litestar_jobs.database import Database, Link
from litestar_jobs.schedule import decide, new_job
from litestar_jobs.store import Statements
from litestar_jobs.telemetry import Event, SlotEnqueued, SlotsSkipped
from litestar_jobs.testing import ended, running, until
from litestar_jobs.times import next_after
from litestar_jobs.trace import current_carrier, current_trace_id
from litestar_jobs.worker.fire import Firing

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

HOUR = timedelta(hours=1)


def hourly(away: int = 30, **options: Any) -> Job[None, Any]:
    """A job of every hour, whose next slot is so many minutes away: it is due only if its row is set back."""

    async def report() -> None: ...

    return job(schedules=[in_between(away, **options)])(report)


def in_between(away: int = 30, **options: Any) -> Cron:
    minute = (datetime.now(UTC).minute + away) % 60
    return Cron(f"{minute} * * * *", **options)


class Code:
    """A process with some jobs in its code, as far as schedules go, over a connection of its own."""

    def __init__(self, dsn: str, *jobs: Job[Any, Any]) -> None:
        self.events: list[Event] = []
        self.link = Link(Database(dsn))
        self.agenda = Agenda(self.link.fetch, Statements("litestar_jobs"))
        schedules = [schedule for each in jobs for schedule in each.schedules]
        self._firing = Firing(self.agenda, schedules, lambda _queues, _due: None, self.events.append)

    async def step(self) -> float:
        """Look once more, with a declaration, as after some seconds."""
        self._firing._declare_at = 0
        return await self._firing.step()

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


Run: TypeAlias = Callable[..., Code]


@pytest.fixture
async def run(dsn: str) -> AsyncIterator[Run]:
    codes: list[Code] = []

    def started(*jobs: Job[Any, Any]) -> Code:
        codes.append(Code(dsn, *jobs))
        return codes[-1]

    yield started
    for code in codes:
        await code.link.close()


async def set_back(connection: Connection, by: timedelta, column: str = "decided_until") -> None:
    """As if it were that much later."""
    await connection.execute(f"UPDATE litestar_jobs.schedule SET {column} = {column} - $1::interval", by)


async def fired(connection: Connection) -> list[datetime]:
    """The slots that have jobs, in the order of their writing."""
    rows = await connection.fetch("SELECT run_at, headers ->> 'slot' AS slot FROM litestar_jobs.job ORDER BY id")
    assert [row["run_at"] for row in rows] == [datetime.fromisoformat(row["slot"]) for row in rows]
    return [row["run_at"] for row in rows]


async def names(connection: Connection) -> list[str]:
    """The schedules that have a row."""
    return [row["name"] for row in await connection.fetch("SELECT name FROM litestar_jobs.schedule ORDER BY name")]


async def row_of(code: Code, name: str = "report") -> Planned:
    (row,) = [row for row in await code.agenda.planned([name]) if row.name == name]
    return row


# One slot, many processes.


async def test_a_new_schedule_is_not_due_for_the_past(run: Run, connection: Connection) -> None:
    code = run(hourly(missed="all"))
    pause = await code.step()
    assert await fired(connection) == []
    row = await row_of(code)
    assert (row.last_slot, row.in_code) == (None, True)
    assert row.now - row.decided_until < timedelta(minutes=1)
    assert pause == REFRESH


async def test_however_many_processes_look_at_once_a_slot_has_one_job(run: Run, connection: Connection) -> None:
    codes = [run(hourly()) for _ in range(12)]
    await asyncio.gather(*(code.step() for code in codes))
    for _ in range(10):
        await set_back(connection, HOUR)
        await asyncio.gather(*(code.step() for code in codes))
        await asyncio.gather(*(code.step() for code in codes))
    slots = await fired(connection)
    assert len(slots) == 10
    told = [event for code in codes for event in code.of(SlotEnqueued)]
    assert sorted(str(event.job_id) for event in told) == sorted(
        str(row["id"]) for row in await connection.fetch("SELECT id FROM litestar_jobs.ready")
    )


async def test_many_missed_slots_are_made_up_for_once_by_all_together(run: Run, connection: Connection) -> None:
    codes = [run(hourly(missed="all")) for _ in range(8)]
    await codes[0].step()
    await set_back(connection, 48 * HOUR)
    await asyncio.gather(*(code.step() for code in codes))
    slots = await fired(connection)
    assert len(slots) == 48
    assert {later - earlier for earlier, later in pairwise(slots)} == {HOUR}


async def test_who_saw_an_earlier_turn_writes_nothing(run: Run, connection: Connection) -> None:
    """A process that is suspended between its look and its write comes too late, whatever happened meanwhile."""
    each = hourly()
    (schedule,) = each.schedules
    code = run(each)
    await code.step()
    await set_back(connection, HOUR)
    for meanwhile in (code.step, partial(code.agenda.pause, "report"), partial(code.agenda.resume, "report")):
        seen = await row_of(code)
        decision = decide(schedule, seen.decided_until - HOUR, seen.now)
        assert decision is not None
        await meanwhile()
        before = await fired(connection)
        assert await code.agenda.fire(schedule, seen, decision, [new_job(schedule, decision.slots[-1])]) is None
        assert await fired(connection) == before


async def test_a_crash_between_the_look_and_the_commit_leaves_the_slot_to_others(
    run: Run, connection: Connection, dsn: str
) -> None:
    each = hourly()
    (schedule,) = each.schedules
    code = run(each)
    await code.step()
    await set_back(connection, HOUR)
    seen = await row_of(code)
    decision = decide(schedule, seen.decided_until, seen.now)
    assert decision is not None

    dying = await asyncpg.connect(dsn)
    await dying.execute("BEGIN")
    agenda = Agenda(dying.fetch, Statements("litestar_jobs"))
    assert await agenda.fire(schedule, seen, decision, [new_job(schedule, decision.slots[-1])]) is False
    waiting = asyncio.create_task(code.step())
    await until(lambda: _somebody_waits(connection))
    dying.terminate()
    await waiting
    assert await fired(connection) == decision.slots


async def _somebody_waits(connection: Connection) -> bool:
    return bool(await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))


# Missed slots and overlaps.


@pytest.mark.parametrize(("missed", "jobs"), [("skip", 0), ("latest", 1), ("all", 5)])
async def test_after_a_downtime_the_policy_decides(run: Run, connection: Connection, missed: str, jobs: int) -> None:
    await run(hourly(missed=missed)).step()
    await set_back(connection, 5 * HOUR)
    after = run(hourly(missed=missed))
    await after.step()
    assert len(await fired(connection)) == jobs
    skipped = after.of(SlotsSkipped)
    assert [(event.slots, event.reason) for event in skipped] == ([(5 - jobs, "missed")] if jobs < 5 else [])
    await after.step()
    assert len(await fired(connection)) == jobs


async def test_one_that_does_not_overlap_waits_for_its_job_to_finish(run: Run, connection: Connection) -> None:
    code = run(hourly(overlap="skip"))
    await code.step()
    await set_back(connection, HOUR)
    await code.step()
    (first,) = await fired(connection)

    await set_back(connection, HOUR)
    await code.step()
    assert await fired(connection) == [first]
    assert [(event.reason, event.slots) for event in code.of(SlotsSkipped)] == [("overlap", 1)]

    job_id = await connection.fetchval("DELETE FROM litestar_jobs.ready RETURNING id")
    await connection.execute(
        "INSERT INTO litestar_jobs.scheduled VALUES ($1, now() + interval '1 hour', 0, 1, 'default')", job_id
    )  # its first attempt failed
    await set_back(connection, HOUR)
    await code.step()
    assert len(await fired(connection)) == 1

    await connection.execute("DELETE FROM litestar_jobs.scheduled")
    await connection.execute(
        "INSERT INTO litestar_jobs.finished (id, finished_at, attempts, status) VALUES ($1, now(), 1, 'failed')", job_id
    )
    await set_back(connection, HOUR)
    await code.step()
    assert len(await fired(connection)) == 2


async def test_one_that_does_not_overlap_waits_for_a_job_that_somebody_ran_by_hand(
    run: Run, connection: Connection
) -> None:
    each = hourly(overlap="skip")
    code = run(each)
    await code.step()
    assert await code.agenda.fire_now("report", new_job(each.schedules[0], None))
    await set_back(connection, HOUR)
    await code.step()
    assert await connection.fetchval("SELECT count(*) FROM litestar_jobs.job") == 1
    assert [event.reason for event in code.of(SlotsSkipped)] == ["overlap"]


async def test_a_job_that_was_deleted_is_not_waited_for(run: Run, connection: Connection) -> None:
    code = run(hourly(overlap="skip"))
    await code.step()
    await set_back(connection, HOUR)
    await code.step()
    await connection.execute("TRUNCATE litestar_jobs.job, litestar_jobs.ready")
    await set_back(connection, HOUR)
    await code.step()
    assert len(await fired(connection)) == 1


# Pauses.


async def test_a_pause_outlives_restarts_and_what_passed_by_is_not_made_up_for(
    run: Run, connection: Connection
) -> None:
    each = hourly(missed="all")
    first = run(each)
    await first.step()
    assert await first.agenda.pause("report")
    await set_back(connection, 3 * HOUR)
    restarted = run(each)
    assert await restarted.step() == REFRESH
    assert await fired(connection) == []
    assert (await row_of(restarted)).paused_at is not None

    assert await restarted.agenda.resume("report")
    await restarted.step()
    assert await fired(connection) == []
    await set_back(connection, HOUR)
    await restarted.step()
    assert len(await fired(connection)) == 1


async def test_resuming_what_is_not_paused_and_pausing_twice_change_nothing(run: Run, connection: Connection) -> None:
    code = run(hourly())
    await code.step()
    await set_back(connection, HOUR)
    assert await code.agenda.resume("report")
    await code.step()
    assert len(await fired(connection)) == 1

    await code.agenda.pause("report")
    since = (await row_of(code)).paused_at
    await code.agenda.pause("report")
    assert (await row_of(code)).paused_at == since
    assert not await code.agenda.pause("nobody")
    assert not await code.agenda.resume("nobody")


# Deploys.


async def test_changed_times_begin_now_and_old_code_beside_them_neither_fires_nor_changes_them_back(
    run: Run, connection: Connection
) -> None:
    before, after = hourly(30), hourly(20)
    old = run(before)
    await old.step()
    await set_back(connection, 5 * HOUR)
    new = run(after)
    await new.step()
    await old.step()
    assert await fired(connection) == []

    await set_back(connection, HOUR)
    await old.step()
    assert await fired(connection) == []
    await new.step()
    (slot,) = await fired(connection)
    assert (await row_of(old)).times == after.schedules[0].times
    assert next_after(after.schedules[0].times, slot - HOUR) == slot


async def test_when_newer_code_is_gone_the_older_takes_over_again(run: Run, connection: Connection) -> None:
    """A deploy that was stopped half-way leaves processes of the old code, which nobody starts again."""
    before, after = hourly(30), hourly(20)
    old, new = run(before), run(after)
    await old.step()
    await new.step()
    await set_back(connection, timedelta(seconds=NOBODYS - 5), "seen_at")
    await old.step()
    assert (await row_of(old)).times == after.schedules[0].times

    await set_back(connection, timedelta(seconds=NOBODYS), "seen_at")
    await old.step()
    assert (await row_of(old)).times == before.schedules[0].times
    await set_back(connection, HOUR)
    await old.step()
    assert len(await fired(connection)) == 1


async def test_a_rollback_is_a_deploy(run: Run, connection: Connection) -> None:
    before, after = hourly(30), hourly(20)
    old, new = run(before), run(after)
    await old.step()
    await new.step()
    rolled_back = run(before)
    await rolled_back.step()
    await new.step()
    assert (await row_of(new)).times == before.schedules[0].times


async def test_a_schedule_that_was_removed_is_fired_by_old_code_as_long_as_that_lives_then_it_is_gone(
    run: Run, connection: Connection
) -> None:
    old, new = run(hourly()), run(elsewhere())
    await old.step()
    await new.step()
    await set_back(connection, HOUR)
    await asyncio.gather(new.step(), old.step())
    assert [event.schedule for event in old.of(SlotEnqueued) + new.of(SlotEnqueued)] == ["report"]

    await set_back(connection, timedelta(seconds=NOBODYS), "seen_at")  # the old code has ended
    await new.step()
    assert [row.name for row in await new.agenda.planned(["elsewhere"])] == ["elsewhere"]

    await set_back(connection, timedelta(seconds=FORGOTTEN), "seen_at")
    await new.step()
    assert await names(connection) == ["elsewhere"]
    again = run(hourly(missed="all"))
    await again.step()
    assert (await row_of(again)).last_slot is None


def elsewhere() -> Job[None, Any]:
    """One of another name."""
    return job(name="elsewhere", every=100_000_000)(hourly().fn)


async def test_a_process_without_schedules_forgets_those_of_others_too_but_no_pause(
    run: Run, connection: Connection
) -> None:
    old = run(hourly(), elsewhere())
    await old.step()
    await old.agenda.pause("report")
    await set_back(connection, timedelta(seconds=FORGOTTEN + 1), "seen_at")
    assert await run().step() > 60
    assert await names(connection) == ["report"]


async def test_times_that_only_a_newer_version_knows_are_left_to_it(run: Run, connection: Connection) -> None:
    code = run(hourly())
    await code.step()
    await set_back(connection, HOUR)
    await connection.execute("""UPDATE litestar_jobs.schedule SET times = '{"kind": "sunset", "city": "Berlin"}'""")
    await code.step()
    assert await fired(connection) == []
    assert (await row_of(code)).times is None


# A whole worker.


@asynccontextmanager
async def worker(dsn: str, *jobs: Job[Any, Any], **settings: Any) -> AsyncIterator[JobsPlugin]:
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=jobs, **{"worker": WorkerConfig(poll_interval=3600)} | settings))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        yield plugin


async def test_a_job_runs_at_each_slot_and_knows_it(dsn: str) -> None:
    contexts: list[JobContext] = []
    carriers: list[Any] = []
    follow_ups: list[UUID] = []

    @job
    async def follow_up() -> None: ...

    @job(every=1)
    async def tick(*, job: JobContext, jobs: Jobs) -> None:
        contexts.append(job)
        carriers.append(current_carrier.get())
        follow_ups.append(await jobs.enqueue(follow_up()))

    async def seen() -> bool:
        return len(follow_ups) >= 3

    current_trace_id.set("of-the-request")
    current_carrier.set({"traceparent": "of-the-request"})
    async with worker(dsn, tick, follow_up) as plugin:
        await until(seen)
        rows = [await ended(plugin.client, context.id) for context in contexts]
        followed = [await ended(plugin.client, job_id) for job_id in follow_ups]
        headers = await plugin.client.store._fetch("SELECT headers FROM litestar_jobs.job WHERE job_type = 'follow_up'")

    slots = [context.scheduled_for for context in contexts if context.scheduled_for is not None]
    assert len(slots) == len(contexts)
    assert {slot.microsecond for slot in slots} == {0}
    assert slots == sorted(set(slots))
    assert {context.schedule for context in contexts} == {"tick"}
    assert [row.run_at for row in rows] == slots
    assert all(timedelta(0) <= row.created_at - row.run_at < timedelta(seconds=1) for row in rows[1:])

    traces = [context.trace_id for context in contexts]
    assert len(set(traces)) == len(traces)
    assert "of-the-request" not in traces
    assert [carrier["traceparent"].split("-")[1] for carrier in carriers] == traces
    assert [row.trace_id for row in followed] == traces, "follow-up jobs are in the trace of their slot"
    assert [set(msgspec.json.decode(row["headers"])) for row in headers] == [{"traceparent"}] * len(headers)


async def test_a_job_that_no_schedule_enqueued_has_none(dsn: str) -> None:
    contexts: list[JobContext] = []

    @job(cron="0 0 1 1 *")
    async def new_year(*, job: JobContext) -> None:
        contexts.append(job)

    async with worker(dsn, new_year) as plugin:
        await ended(plugin.client, await plugin.client.enqueue(new_year()))
    assert [(context.schedule, context.scheduled_for) for context in contexts] == [(None, None)]


async def test_a_schedule_has_its_own_payload(dsn: str) -> None:
    payloads: list[int] = []

    @job(schedules=[Every(1, payload=1, name="one"), Cron("* * * * * *", payload=2, name="two")])
    async def tick(payload: int) -> None:
        payloads.append(payload)

    async def both() -> bool:
        return {1, 2} <= set(payloads)

    async with worker(dsn, tick):
        await until(both)


async def test_an_application_that_only_enqueues_fires_nothing(dsn: str, connection: Connection) -> None:
    async def tick() -> None: ...

    async with worker(dsn, job(every=1)(tick), worker=None):
        await asyncio.sleep(0)
    assert await connection.fetchval("SELECT count(*) FROM litestar_jobs.schedule") == 0


async def test_a_missed_slot_is_made_up_for_when_a_worker_starts(dsn: str, connection: Connection) -> None:
    ran: list[datetime | None] = []

    @job(schedules=[in_between()])
    async def report(*, job: JobContext) -> None:
        ran.append(job.scheduled_for)

    async def once() -> bool:
        return bool(ran)

    async def declared() -> bool:
        return bool(await connection.fetchval("SELECT count(*) FROM litestar_jobs.schedule"))

    async with worker(dsn, report):
        await until(declared)
    await set_back(connection, 5 * HOUR)
    async with worker(dsn, report) as plugin:
        await until(once)
        row = await until(lambda: _newest(plugin))
    assert ran == [row.run_at]
    assert row.status is JobStatus.COMPLETED


async def _newest(plugin: JobsPlugin) -> Any:
    return next(iter(await plugin.client.store.find(JobFilter(status="completed"), 1)), None)


# Real processes.


async def test_processes_that_are_killed_leave_no_slot_out_and_fire_none_twice(
    dsn: str, connection: Connection, tmp_path: Path
) -> None:
    """Three processes share a schedule of every second. One is killed and replaced again and again."""
    processes: list[Process] = []

    async def start() -> None:
        processes.append(await _start(dsn, tmp_path / f"{len(processes)}.log"))

    async def all_work() -> bool:
        pids = {row["pid"] for row in await connection.fetch("SELECT pid FROM litestar_jobs.worker")}
        return {process.pid for process in processes[-3:]} <= pids

    async def fired_since(since: int) -> bool:
        return bool(await connection.fetchval("SELECT count(*) >= $1 + 2 FROM litestar_jobs.job", since))

    try:
        for _ in range(3):
            await start()
        await until(all_work, 60)
        for _ in range(3):
            since = await connection.fetchval("SELECT count(*) FROM litestar_jobs.job")
            await until(partial(fired_since, since), 60)
            processes[-3].send_signal(signal.SIGKILL)
            await start()
            await until(all_work, 60)
    finally:
        for process in processes:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        codes = [await process.wait() for process in processes]
    assert codes == [-signal.SIGKILL] * 3 + [0] * 3
    slots = await fired(connection)
    assert {later - earlier for earlier, later in pairwise(slots)} == {timedelta(seconds=1)}
    workers: Sequence[Any] = await connection.fetch("SELECT DISTINCT worker_id FROM litestar_jobs.finished")
    assert len(workers) > 1


async def _start(dsn: str, log: Path) -> Process:
    words = ("-m", "litestar", "--app-dir", str(Path(__file__).parent.parent), "--app", "periodic_app:create_app")
    with log.open("wb") as file:
        return await create_subprocess_exec(
            sys.executable,
            *words,
            "jobs",
            "worker",
            stdin=DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, "LITESTAR_JOBS_DSN": dsn},
        )
