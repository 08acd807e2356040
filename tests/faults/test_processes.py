"""Faults of processes: killed, suspended, told to stop."""

import asyncio
import random
import signal
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest

from litestar_jobs.testing import until

from .app import Held, Work, failing, held, plain, transacted
from .conftest import World
from .fleet import COMMANDS, WorkerProcess
from .oracle import settled
from .proxy import CLAIM, COMMIT, COMPLETE, SETTLE


async def started(world: World, job_id: UUID, worker: WorkerProcess | None = None) -> None:
    """Return when the job is in its handler, in this process if one is named."""
    pid = None if worker is None else worker.pid

    async def look() -> bool:
        return bool(world.events.of("AttemptStarted", pid=pid, job_id=job_id))

    await until(look, 30, f"job {job_id} does not start")


async def failures(world: World, job_id: UUID) -> list[Any]:
    connection = await asyncpg.connect(world.dsn)
    rows = await connection.fetch("SELECT attempt, error_type FROM litestar_jobs.failure WHERE id = $1", job_id)
    await connection.close()
    return [tuple(row) for row in rows]


async def test_nothing_is_lost_or_doubled_without_any_fault(world: World) -> None:
    await world.fleet.start_all(2)
    await world.load.begin_rolling_back()
    await world.load.backlog(500, 0.01)
    found = await world.judged()
    assert found.counts["jobs completed"] == 500
    assert found.counts["attempts"] == found.counts["starts"] == 500
    assert found.counts["rolled_back"] > 0


async def test_workers_that_are_killed_ten_times_lose_and_double_nothing(world: World) -> None:
    await world.fleet.start_all(3)
    world.load.begin(4, lambda n: (plain, transacted)[n % 2](Work(0.05)))
    await world.load.begin_rolling_back()
    for _ in range(10):
        victim = random.choice(world.fleet.alive)
        starting = asyncio.create_task(world.fleet.start())
        await world.busy(30)
        await victim.kill()
        await starting
    found = await world.judged()
    assert found.counts["failure WorkerLost"] == found.counts["failures"] > 0


async def test_a_handler_killed_in_its_midst_runs_again_and_its_effect_is_there_once(
    world: World, tmp_path: Path
) -> None:
    await world.fleet.start_all(2)
    job_id = await world.load.put(held(Held(str(tmp_path / "go"))))
    await started(world, job_id)
    (beginning,) = world.events.of("AttemptStarted", job_id=job_id)
    victim = next(worker for worker in world.fleet.alive if worker.pid == beginning.pid)
    await victim.kill()
    (tmp_path / "go").touch()
    await world.judged()
    assert await failures(world, job_id) == [(1, "WorkerLost")]


async def test_a_worker_killed_between_a_commit_and_its_acknowledgement_loses_and_doubles_nothing(
    world: World,
) -> None:
    """The server has committed a claim, a finish, a session's transaction, a settlement, and the process is gone before
    it hears of it."""
    for words in (CLAIM, COMPLETE, COMMIT, SETTLE):
        worker = await world.fleet.start()
        trap = world.proxy.swallow(words, cut=False)
        for _ in range(3):
            await world.load.put(plain(Work()))
            await world.load.put(transacted(Work()))
            await world.load.put(failing())
        async with asyncio.timeout(10):
            await trap.sprung.wait()
        await worker.kill()
        world.proxy.cut()
    await world.fleet.start()
    found = await world.judged()
    assert found.counts["jobs completed"] == 24


@pytest.mark.parametrize("other", ["still runs it", "has finished it"])
async def test_a_zombie_writes_nothing_and_learns_what_it_is(world: World, tmp_path: Path, other: str) -> None:
    """Suspended beyond its lease in the middle of its transaction, and woken while another runs the job, or after."""
    zombie = await world.fleet.start()
    job_id = await world.load.put(held(Held(str(tmp_path / "go"))))
    await started(world, job_id, zombie)
    successor = await world.fleet.start()
    await world.load.backlog(200, 0.01)
    zombie.signal(signal.SIGSTOP)
    await started(world, job_id, successor)
    if other == "has finished it":
        (tmp_path / "go").touch()
        await world.events.wait_for_end(job_id)
        zombie.signal(signal.SIGCONT)
        await world.events.wait_for_end(job_id, zombie.pid)
    else:
        zombie.signal(signal.SIGCONT)
        await world.events.wait_for("LeaseEnded", pid=zombie.pid)
        await world.events.wait_for_end(job_id, zombie.pid)
        (tmp_path / "go").touch()
    await world.judged()
    assert [end.outcome for end in world.events.of("AttemptEnded", pid=zombie.pid, job_id=job_id)] == ["Lost"]
    assert [end.outcome for end in world.events.of("AttemptEnded", pid=successor.pid, job_id=job_id)] == ["Committed"]
    assert await failures(world, job_id) == [(1, "WorkerLost")]


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_worker_told_to_stop_lets_short_jobs_end_and_hands_long_ones_back(
    world: World, command: str, tmp_path: Path
) -> None:
    world.fleet.settings = msgspec.structs.replace(world.fleet.settings, patience=1.0)
    worker = await world.fleet.start(command)
    long = await world.load.put(held(Held(str(tmp_path / "go"))))
    await started(world, long)
    world.load.begin(2, lambda n: (plain, transacted)[n % 2](Work(0.05)))
    await world.busy(30)
    worker.signal(signal.SIGTERM)
    assert await worker.ended() in STOPPED[command], world.output()
    await world.load.end()
    assert [end.outcome for end in world.events.of("AttemptEnded", job_id=long)] == ["Interrupted"]
    (tmp_path / "go").touch()
    await world.fleet.start()
    found = await world.judged()
    assert found.counts["failures"] == 0
    assert world.events.outcomes()["Interrupted"] == 1


STOPPED = {"litestar jobs worker": {0}, "litestar run": {0, -signal.SIGTERM, 143}, "uvicorn": {0, -signal.SIGTERM, 143}}
"""Exit codes. Newer versions of uvicorn raise the signal again once they have stopped."""


async def test_a_second_sigterm_hands_everything_back_at_once(world: World, tmp_path: Path) -> None:
    worker = await world.fleet.start()
    long = await world.load.put(held(Held(str(tmp_path / "go"))))
    await world.load.backlog(100, 0.2)
    await started(world, long)
    worker.signal(signal.SIGTERM)
    await until(lambda: asyncio.sleep(0, "Stopping." in worker.output.read_text()), 10)
    worker.signal(signal.SIGTERM)
    assert await worker.ended(within=8) == 128 + signal.SIGTERM  # its patience is 10 s
    (tmp_path / "go").touch()
    await world.fleet.start()
    found = await world.judged()
    assert found.counts["failures"] == 0
    assert found.counts["handed_back"] > 0


async def test_a_rolling_restart_under_load_fails_and_counts_nothing(world: World) -> None:
    """Three workers, each replaced while the others and those who enqueue go on; some handlers are too long for their
    worker's patience."""
    world.fleet.settings = msgspec.structs.replace(world.fleet.settings, patience=0.5)
    olds = await world.fleet.start_all(3)
    world.load.begin(4, lambda n: (plain, transacted)[n % 2](Work(1.5 if n % 20 == 0 else 0.02)))
    await world.busy(50)
    for old in olds:
        await world.fleet.start()
        old.signal(signal.SIGTERM)
        assert await old.ended() == 0
        await world.busy(20)
    await world.load.end()
    await settled(world.dsn)
    found = await world.judged()
    assert found.counts["failures"] == 0
    assert found.counts["attempts"] == len(world.load.committed)
    assert world.events.of("JobRescued", "LeaseEnded", "OutcomeRefused", "AttemptAbandoned") == []
