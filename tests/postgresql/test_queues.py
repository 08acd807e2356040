"""Queues at run time: what is said of one holds for all workers, at once, until somebody says something else."""

import asyncio
import os
import sys
import time
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import pytest
from litestar import Litestar

from cli_app import mark_and_hold
from litestar_jobs import Fixed, Job, JobsClient, JobsConfig, JobsPlugin, JobStatus, WorkerConfig, job
from litestar_jobs.database import Database, Link
from litestar_jobs.errors import DefinitionError
from litestar_jobs.filter import JobFilter
from litestar_jobs.queues import Queues
from litestar_jobs.store import Claimed, Statements, Store
from litestar_jobs.telemetry import Event, Hook, QueueLimited
from litestar_jobs.testing import drained, ended, running, until
from litestar_jobs.worker.claim import Claimer
from litestar_jobs.worker.promote import Promoter

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

NO_POLLING = 3600.0
AT_ONCE = 5.0
"""Seconds that are enough on a busy machine, and far from a poll."""


@job(queue="mail")
async def mail() -> None: ...


@job(queue="other")
async def other() -> None: ...


@asynccontextmanager
async def worker(
    dsn: str, jobs: Sequence[Job[Any, Any]] = (mail, other), hooks: Sequence[Hook] = (), **settings: Any
) -> AsyncIterator[JobsPlugin]:
    """An application with a worker that learns only by being told, unless it may poll."""
    config = WorkerConfig(**{"poll_interval": NO_POLLING} | settings)
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=jobs, worker=config, hooks=hooks))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        yield plugin


async def statuses(client: JobsClient, ids: Sequence[UUID]) -> Counter[str]:
    rows = [await client.get(job_id) for job_id in ids]
    return Counter(row.status for row in rows if row is not None)


async def follows(plugin: JobsPlugin, limits: dict[str, int]) -> None:
    """The worker of the application knows of these limits."""

    async def look() -> bool:
        return plugin.worker is not None and plugin.worker._claimer.limits == limits

    await until(look, AT_ONCE, f"the worker does not know of {limits}")


async def test_jobs_of_a_paused_queue_wait_and_those_of_others_run(dsn: str) -> None:
    async with worker(dsn) as plugin:
        client = plugin.client
        assert await client.queues.pause("mail")
        await follows(plugin, {"mail": 0})
        waiting = [await client.enqueue(mail()), *await client.enqueue_many([mail(), mail()])]
        for _ in range(3):
            assert (await ended(client, await client.enqueue(other()))).status is JobStatus.COMPLETED
        assert await statuses(client, waiting) == {"pending": 3}

        assert await client.queues.resume("mail")
        await drained(client, AT_ONCE)
        assert await statuses(client, waiting) == {"completed": 3}


async def test_jobs_of_a_paused_queue_become_due_and_may_be_cancelled(dsn: str, connection: Connection) -> None:
    async with worker(dsn) as plugin:
        client = plugin.client
        await client.queues.pause("mail")
        await follows(plugin, {"mail": 0})
        later, unwanted = await client.enqueue(mail(delay=0.05)), await client.enqueue(mail())

        async def is_due() -> Any:
            return await connection.fetchval("SELECT id FROM litestar_jobs.ready WHERE id = $1", later)

        await until(is_due, AT_ONCE)
        assert await client.cancel(unwanted)
        await client.queues.resume("mail")
        assert (await ended(client, later)).attempts == 1
        assert await statuses(client, [unwanted]) == {"cancelled": 1}


async def test_a_running_job_goes_on_when_its_queue_is_paused_and_its_retry_waits(dsn: str) -> None:
    entered, go = asyncio.Event(), asyncio.Event()

    @job(queue="mail", max_retries=1, retry=Fixed(0))
    async def fail_once() -> None:
        entered.set()
        await go.wait()
        raise RuntimeError

    async with worker(dsn, [fail_once, other]) as plugin:
        client = plugin.client
        job_id = await client.enqueue(fail_once())
        await entered.wait()
        await client.queues.pause("mail")
        await follows(plugin, {"mail": 0})
        assert await statuses(client, [job_id]) == {"running": 1}
        go.set()

        async def has_failed() -> bool:
            return await statuses(client, [job_id]) == {"pending": 1}

        await until(has_failed, AT_ONCE)
        await ended(client, await client.enqueue(other()))
        row = await client.get(job_id)
        assert row is not None
        assert (row.status, row.attempts) == (JobStatus.PENDING, 1)


async def test_nothing_begins_after_a_pause_in_full_flow_and_what_was_at_hand_goes_back_uncounted(
    dsn: str, connection: Connection
) -> None:
    total = 4_000
    begun = 0

    @job(queue="mail")
    async def quick() -> None:
        nonlocal begun
        begun += 1

    async with worker(dsn, [quick, other]) as plugin:
        client = plugin.client
        await client.enqueue_many(quick() for _ in range(total))

        async def in_full_flow() -> bool:
            return begun > total // 10

        await until(in_full_flow)
        await client.queues.pause("mail")
        await follows(plugin, {"mail": 0})
        begun_then = begun

        async def nothing_runs() -> bool:
            return not await connection.fetchval("SELECT count(*) FROM litestar_jobs.running WHERE queue = 'mail'")

        await until(nothing_runs)
        for _ in range(3):
            await ended(client, await client.enqueue(other()))
        assert begun <= begun_then + 10 < total  # whose tasks were there, one in each slot
        rows = await connection.fetch("SELECT attempts, count(*) AS jobs FROM litestar_jobs.ready GROUP BY attempts")
        assert [(row["attempts"], row["jobs"]) for row in rows] == [(0, total - begun)]

        await client.queues.resume("mail")
        await drained(client, 30)
    assert begun == total
    assert await connection.fetchval("SELECT max(attempts) FROM litestar_jobs.finished") == 1


async def test_jobs_of_a_claim_that_was_under_way_at_the_pause_go_back_uncounted(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed, answer = asyncio.Event(), asyncio.Event()
    claim = Store.claim

    async def answered_late(self: Store, *arguments: Any, **options: Any) -> list[Claimed]:
        jobs = await claim(self, *arguments, **options)
        if jobs and not claimed.is_set():
            claimed.set()
            await answer.wait()
        return jobs

    monkeypatch.setattr(Store, "claim", answered_late)
    async with worker(dsn) as plugin:
        client = plugin.client
        job_id = await client.enqueue(mail())
        await claimed.wait()
        await client.queues.pause("mail")
        await follows(plugin, {"mail": 0})
        answer.set()

        async def went_back() -> bool:
            row = await client.get(job_id)
            return row is not None and (row.status, row.attempts) == (JobStatus.PENDING, 0)

        await until(went_back, AT_ONCE)
        await client.queues.resume("mail")
        assert (await ended(client, job_id)).attempts == 1


async def test_a_change_that_comes_while_the_worker_looks_is_not_missed(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The statement under way, which its own clock had begun, has not seen it, and the next would be in an hour."""
    looked, answer = asyncio.Event(), asyncio.Event()
    promote, hear = Store.promote, Promoter.hear
    heard = 0

    async def answered_late(self: Store, at_most: int) -> Any:
        seen = await promote(self, at_most)
        moved, *_ = seen
        if moved:
            looked.set()
            await answer.wait()
        return seen

    def counted(self: Promoter, due_in: float) -> bool:
        nonlocal heard
        heard += looked.is_set() and due_in == 0
        return hear(self, due_in)

    async def told_twice() -> bool:
        return heard == 2

    monkeypatch.setattr(Store, "promote", answered_late)
    monkeypatch.setattr(Promoter, "hear", counted)
    async with worker(dsn) as plugin:
        await plugin.client.enqueue(other(delay=0.2))
        await looked.wait()
        await plugin.client.queues.pause("mail")
        await until(told_twice, AT_ONCE, "it was not told by the client and by the database")
        answer.set()
        await follows(plugin, {"mail": 0})


async def test_a_worker_that_is_not_told_follows_within_its_poll_interval(dsn: str, connection: Connection) -> None:
    async with worker(dsn, poll_interval=0.1) as plugin:
        await connection.execute("INSERT INTO litestar_jobs.queue (name, paused_at) VALUES ('mail', now())")
        await follows(plugin, {"mail": 0})
        await connection.execute("DELETE FROM litestar_jobs.queue")
        await follows(plugin, {})


async def test_a_change_is_in_force_within_a_second(dsn: str) -> None:
    async with worker(dsn) as here, worker(dsn) as there:
        for change in range(1, 6):
            begun = time.monotonic()
            await here.client.queues.resize("mail", change)
            await follows(here, {"mail": change})
            await follows(there, {"mail": change})
            assert time.monotonic() - begun < 1


async def test_a_change_that_nobody_heard_of_because_the_connection_broke_is_found_with_the_next_one(
    dsn: str, connection: Connection
) -> None:
    async with worker(dsn, lease=1) as plugin:
        await connection.execute("INSERT INTO litestar_jobs.queue (name, paused_at) VALUES ('mail', now())")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await follows(plugin, {"mail": 0})


async def test_a_name_is_a_name_and_no_pattern(dsn: str) -> None:
    async with worker(dsn) as plugin:
        limits = dict.fromkeys(("*", "%", "mai_", "MAIL", "nobody's"), 0)
        for name in limits:
            assert await plugin.client.queues.pause(name)
        assert {each.name for each in await plugin.client.queues.settings()} == set(limits)
        assert (await ended(plugin.client, await plugin.client.enqueue(mail()))).status is JobStatus.COMPLETED


async def test_periodic_jobs_are_enqueued_into_a_paused_queue_and_wait(dsn: str, store: Store) -> None:
    @job(queue="mail", every=1)
    async def tick() -> None: ...

    await store.pause_queue("mail")
    async with worker(dsn, [tick, other]) as plugin:

        async def ticked() -> list[UUID]:
            return [row.id for row in await plugin.client.find(JobFilter(queue="mail"))]

        ticks = await until(ticked)
        await ended(plugin.client, await plugin.client.enqueue(other()))
        assert await statuses(plugin.client, ticks) == {"pending": len(ticks)}
        await plugin.client.queues.resume("mail")
        await ended(plugin.client, ticks[0])


async def test_a_worker_says_once_what_limits_its_queues(dsn: str, store: Store) -> None:
    events: list[Event] = []
    await store.pause_queue("mail")
    await store.pause_queue("nobody's")
    async with worker(dsn, hooks=[events.append]) as plugin:
        await plugin.client.queues.resize("other", 2)
        await follows(plugin, {"mail": 0, "nobody's": 0, "other": 2})
        await plugin.client.queues.resume("nobody's")
        await plugin.client.queues.resume("mail")
        await follows(plugin, {"other": 2})
    said = [event for event in events if isinstance(event, QueueLimited)]
    assert said == [QueueLimited("mail", 0), QueueLimited("other", 2), QueueLimited("mail", None)]


async def test_a_pause_holds_for_every_worker_and_for_those_that_start_later(dsn: str) -> None:
    async with worker(dsn) as one, worker(dsn) as two:
        await one.client.queues.pause("mail")
        await follows(one, {"mail": 0})
        await follows(two, {"mail": 0})
        job_id = await two.client.enqueue(mail())
    async with worker(dsn) as restarted:
        await ended(restarted.client, await restarted.client.enqueue(other()))
        assert await statuses(restarted.client, [job_id]) == {"pending": 1}
        await restarted.client.queues.resume("mail")
        await ended(restarted.client, job_id)


@pytest.fixture
async def start(dsn: str) -> AsyncIterator[Callable[[], Any]]:
    """Start ``litestar jobs worker`` as a process."""
    processes: list[Process] = []

    async def started() -> None:
        tests = str(Path(__file__).parent.parent)
        words = ("-m", "litestar", "--app-dir", tests, "--app", "cli_app:create_app", "jobs", "worker")
        surroundings = {**os.environ, "LITESTAR_JOBS_DSN": dsn}
        processes.append(
            await create_subprocess_exec(sys.executable, *words, stdout=DEVNULL, stderr=DEVNULL, env=surroundings)
        )

    yield started
    for process in processes:
        process.kill()
        await process.wait()


async def test_processes_follow_what_another_one_says(
    dsn: str, start: Callable[[], Any], store: Store, tmp_path: Path
) -> None:
    """Two processes with ten slots each: at most one job in each while the queue has size one, all of them without."""
    await store.resize_queue("held", 1)
    await start()
    await start()

    async def both_live() -> bool:
        return len(await store.workers()) == 2

    await until(both_live, 30)
    async with worker(dsn, [mail]) as plugin:
        client, queues = plugin.client, plugin.client.queues
        await client.enqueue_many([mark_and_hold(str(tmp_path)) for _ in range(8)])

        async def begun(count: int) -> None:
            async def look() -> bool:
                return len(list(tmp_path.glob("*-*"))) >= count

            await until(look, 30, f"{count} jobs have not begun")

        await begun(2)
        assert Counter(path.name.partition("-")[0] for path in tmp_path.glob("*-*")).most_common(1)[0][1] == 1
        await queues.resize("held", 2)
        await begun(4)
        assert set(Counter(path.name.partition("-")[0] for path in tmp_path.glob("*-*")).values()) == {2}
        await queues.resize("held", None)
        await begun(8)
        tmp_path.joinpath("go").touch()
        await drained(client, 30)


async def test_a_resized_queue_runs_at_most_so_many_at_once_and_leaves_the_other_slots_to_others(dsn: str) -> None:
    inside, most = 0, 0

    @job(queue="mail")
    async def slow() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.001)
        inside -= 1

    async with worker(dsn, [slow, other], concurrency=10) as plugin:
        client = plugin.client
        await client.queues.resize("mail", 3)
        await follows(plugin, {"mail": 3})
        await client.enqueue_many([slow() for _ in range(300)] + [other() for _ in range(300)])
        await drained(client, 30)
        assert most == 3
        await client.queues.resize("mail", None)
        await follows(plugin, {})
        await client.enqueue_many([slow() for _ in range(100)])
        await drained(client, 30)
        assert most == 10


async def test_a_full_queue_is_not_asked_again_until_one_of_its_jobs_ends(store: Store) -> None:
    claimer = Claimer(store, ["mail", "other"], "{}")
    here: dict[str, int] = {"mail": 2}
    assert claimer.limit({"mail": 2, "other": 0, "nobody's": 1}, lambda: here) == {"mail", "other"}
    assert claimer.pause() is None
    assert await claimer.claim(uuid4(), 10) == []
    here["mail"] = 1
    assert claimer.pause() == 0
    assert claimer.limit({"mail": 2, "other": 0, "nobody's": 5}, lambda: here) == set()


async def test_a_suspect_of_a_paused_queue_keeps_no_other_waiting(dsn: str, connection: Connection) -> None:
    """Released, it would wait in its queue, and the suspects of all queues for it."""
    async with worker(dsn) as plugin:
        client = plugin.client
        await client.queues.pause("mail")
        await follows(plugin, {"mail": 0})
    async with worker(dsn, queues=["nobodys"]) as plugin:
        ids = await plugin.client.enqueue_many([mail(), other()])
    await connection.execute(
        "WITH gone AS (DELETE FROM litestar_jobs.ready RETURNING id, run_at, priority, attempts, queue) "
        "INSERT INTO litestar_jobs.held SELECT *, 'suspect' FROM gone"
    )
    async with worker(dsn) as plugin:
        await ended(plugin.client, ids[1], AT_ONCE)
        assert await plugin.client.store.held(ids[0]) == "suspect"


async def test_of_many_who_change_a_queue_at_once_one_does_it(dsn: str) -> None:
    links = [Link(Database(dsn)) for _ in range(8)]
    queues = [Queues(Store(link.fetch, Statements("litestar_jobs"))) for link in links]
    for _ in range(5):
        assert sum(await asyncio.gather(*(each.resize("mail", 3) for each in queues))) == 1
        assert sum(await asyncio.gather(*(each.pause("mail") for each in queues))) == 1
        assert [(each.name, each.concurrency) for each in await queues[0].settings()] == [("mail", 3)]
        assert sum(await asyncio.gather(*(each.resume("mail") for each in queues))) == 1
        assert sum(await asyncio.gather(*(each.resize("mail", None) for each in queues))) == 1
        assert await queues[0].settings() == []
    for link in links:
        await link.close()


async def test_what_makes_no_sense_is_refused(dsn: str) -> None:
    async with worker(dsn) as plugin:
        for size in (0, -1, 10_001, True, 1.5):
            with pytest.raises(DefinitionError, match="concurrency must be a whole number from 1 to 10000"):
                await plugin.client.queues.resize("mail", size)  # type: ignore[arg-type]
        with pytest.raises(DefinitionError, match="a queue's name must be text"):
            await plugin.client.queues.pause("")


async def test_drained_says_that_a_queue_is_paused(dsn: str) -> None:
    async with worker(dsn) as plugin:
        await plugin.client.queues.pause("mail")
        await follows(plugin, {"mail": 0})
        await plugin.client.enqueue(mail())
        with pytest.raises(TimeoutError, match=r"1 waiting in queue 'mail' \(paused\)"):
            await drained(plugin.client, timeout=1)
