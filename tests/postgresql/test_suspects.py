"""Suspects: jobs that were lost with their process more than once are held, and run one at a time.

Here the statements, with a lease that ends at once; what becomes of real processes is in ``tests/faults/``.
"""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from uuid_utils.compat import uuid7

from litestar_jobs import JobRequest, JobStatus, migrate
from litestar_jobs.database import Database, Link
from litestar_jobs.outcome import Settlement
from litestar_jobs.request import NewJob
from litestar_jobs.store import NOTHING, Claimed, QueueCount, Statements, Store, UnknownType
from litestar_jobs.telemetry import Event, JobRescued, SuspectReleased
from litestar_jobs.worker.rescue import Rescuer

QUEUE = ["default"]
HOUR = 3600.0


async def enqueued(store: Store, count: int = 1, queue: str = "default", max_retries: int = 3) -> list[UUID]:
    jobs = [NewJob(uuid7(), JobRequest(job_type="note", queue=queue, max_retries=max_retries)) for _ in range(count)]
    await store.enqueue(jobs)
    return [job.id for job in jobs]


async def started(store: Store, queues: Sequence[str] = QUEUE, lease: float = HOUR) -> list[Claimed]:
    """All that may run is claimed by a new process."""
    worker_id = uuid7()
    await store.register(worker_id, "host", 1, queues, HOUR)
    claimed = await store.claim(dict.fromkeys(queues, 100), {}, worker_id, "{}")
    if lease != HOUR:
        assert await store.renew(worker_id, lease)
    return claimed


async def lost(store: Store, queues: Sequence[str] = QUEUE) -> set[UUID]:
    """All that may run is claimed by a process that dies."""
    claimed = await started(store, queues, lease=0)
    rescued = await store.rescue(HOUR)
    assert {job.id for job in rescued} == {job.id for job in claimed}
    return {job.id for job in claimed}


async def suspects(store: Store, count: int, queue: str = "default") -> list[UUID]:
    ids = await enqueued(store, count, queue)
    assert await lost(store, [queue]) == await lost(store, [queue]) == set(ids)
    return ids


async def released(store: Store, queues: Sequence[str] = QUEUE, patience: float = HOUR) -> UUID | None:
    _, job = await store.release(queues, patience)
    return None if job is None else job.id


async def test_a_job_that_is_lost_with_its_process_again_is_held_and_still_pending(store: Store) -> None:
    (job_id,) = await enqueued(store)
    await lost(store)
    assert await store.held(job_id) is None
    (claimed,) = await started(store, lease=0)
    (rescued,) = await store.rescue(HOUR)
    assert (rescued.suspect, rescued.was_last, claimed.attempt) == (True, False, 2)
    row = await store.get(job_id)
    assert row is not None
    assert (await store.held(job_id), row.status, row.attempts) == ("suspect", JobStatus.PENDING, 2)
    assert await store.count() == [QueueCount("default", "pending", 1, 0, None)]
    assert await store.unknown_types([]) == [UnknownType("note", 1)]
    assert await store.strays() == []
    assert await started(store) == []


async def test_one_that_is_lost_each_time_ends_as_failed_and_its_message_says_so(store: Store) -> None:
    (job_id,) = await suspects(store, 1)
    for _ in range(2):
        assert await released(store) == job_id
        assert await lost(store) == {job_id}
    row = await store.get(job_id)
    assert row is not None
    assert (row.status, row.attempts) == (JobStatus.FAILED, 4)
    assert row.last_error == "WorkerLost: its process ended while it ran, 4 times now: the job may be what ends it"
    assert [failure.error_type for failure in await store.failures(job_id)] == ["WorkerLost"] * 4
    assert await store.release(QUEUE, HOUR) == (False, None)


async def test_suspects_run_one_at_a_time_and_the_next_one_when_the_one_before_has_ended(store: Store) -> None:
    waiting = set(await suspects(store, 3))
    for _ in range(3):
        job_id = await released(store)
        assert job_id in waiting
        waiting.remove(job_id)
        assert await released(store) is None, "it waits for a slot"
        (claimed,) = await started(store)
        assert claimed.id == job_id
        assert await released(store) is None, "it runs"
        assert await store.complete([claimed]) == {job_id}
    assert await store.release(QUEUE, HOUR) == (False, None)


async def test_one_that_fails_and_waits_for_its_retry_does_not_keep_the_others_waiting(store: Store) -> None:
    await suspects(store, 2)
    first = await released(store)
    (claimed,) = await started(store)
    await store.settle([(claimed, Settlement("retry", delay=HOUR))])
    assert await released(store) not in {None, first}


async def test_one_that_is_handed_back_keeps_its_turn(store: Store) -> None:
    await suspects(store, 2)
    await released(store)
    (claimed,) = await started(store)
    await store.settle([(claimed, Settlement("release"))])
    assert await released(store) is None


async def test_one_that_is_lost_once_more_waits_for_its_turn_again(store: Store) -> None:
    await suspects(store, 2)
    first = await released(store)
    assert first is not None
    assert await lost(store) == {first}
    assert await store.held(first) == "suspect"
    assert await released(store) not in {None, first}


async def test_nobody_waits_longer_than_the_patience(store: Store) -> None:
    await suspects(store, 2)
    first = await released(store)
    assert await released(store, patience=HOUR) is None
    assert await released(store, patience=0) not in {None, first}


async def test_a_worker_lets_only_jobs_of_its_own_queues_run(store: Store) -> None:
    """Others would wait in ``ready``, and keep everybody waiting."""
    (job_id,) = await suspects(store, 1, queue="mail")
    assert await store.release(["default"], HOUR) == (False, None)
    assert await released(store, ["default", "mail"]) == job_id


async def test_of_many_that_release_at_once_one_does(dsn: str, store: Store) -> None:
    await suspects(store, 20)
    links = [Link(Database(dsn)) for _ in range(8)]
    try:
        for _ in range(10):
            answers = await asyncio.gather(
                *(released(Store(link.fetch, Statements("litestar_jobs"))) for link in links)
            )
            (job_id,) = [job_id for job_id in answers if job_id is not None]
            (claimed,) = await started(store)
            assert claimed.id == job_id
            await store.complete([claimed])
    finally:
        await asyncio.gather(*(link.close() for link in links))


async def test_one_that_is_held_can_be_cancelled(store: Store) -> None:
    (job_id,) = await suspects(store, 1)
    assert await store.cancel(job_id)
    assert await store.held(job_id) is None
    row = await store.get(job_id)
    assert row is not None
    assert row.status is JobStatus.CANCELLED


async def test_an_attempt_far_past_its_timeout_does_not_make_a_suspect(
    store: Store, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """That process lives: its job was taken from it."""
    (job_id,) = await enqueued(store)
    await lost(store)
    await started(store)
    await connection.execute("UPDATE litestar_jobs.running SET deadline = now() - interval '2 h'")
    (rescued,) = await store.rescue(HOUR)
    assert (rescued.overdue, rescued.suspect) == (True, False)
    assert await store.held(job_id) is None


async def test_without_the_table_what_was_held_may_run(store: Store, link: Link) -> None:
    (job_id,) = await suspects(store, 1)
    await migrate.downgrade(link, "litestar_jobs", 1)
    (row,) = await link.fetch("SELECT id, attempts FROM litestar_jobs.ready")
    assert (row["id"], row["attempts"]) == (job_id, 2)
    assert (await link.fetch("SELECT status FROM litestar_jobs.jobs"))[0]["status"] == "pending"
    await migrate.upgrade(link, "litestar_jobs")
    assert [job.id for job in await started(store)] == [job_id]


@pytest.mark.parametrize("reason", ["", "a" * 101])
async def test_who_holds_a_job_says_why(connection: "asyncpg.Connection[asyncpg.Record]", reason: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(
            "INSERT INTO litestar_jobs.held VALUES (gen_random_uuid(), now(), 0, 0, 'default', $1)", reason
        )


async def test_the_dead_are_looked_for_often_what_is_rare_seldom_and_a_suspect_just_found_may_run_at_once(
    link: Link, store: Store
) -> None:
    sql, now = Statements("litestar_jobs"), 0.0
    names = {sql[name]: name for name in ("rescue", "undouble", "lapse", "release")}
    asked: list[str] = []
    events: list[Event] = []

    async def fetch(statement: str, *arguments: Any) -> Any:
        asked.append(names[statement])
        return await link.fetch(statement, *arguments)

    rescuer = Rescuer(
        Store(fetch, sql),
        lambda: QUEUE,
        15.0,
        events.append,
        follow_ups=NOTHING,
        ended=lambda _: None,
        clock=lambda: now,
    )

    async def asked_at(moment: float) -> list[str]:
        nonlocal now
        asked.clear()
        now = moment
        await rescuer.step()
        return list(asked)

    assert await asked_at(0) == ["rescue", "undouble", "lapse", "release"]
    assert await asked_at(5) == ["rescue"]
    await enqueued(store, 2)
    await lost(store)
    await started(store, lease=0)
    assert await asked_at(10) == ["rescue", "release"]
    assert [type(event) for event in events] == [JobRescued, JobRescued, SuspectReleased]
    assert await asked_at(10.25) == ["release"], "while one waits"
    assert await asked_at(15) == ["rescue", "undouble", "lapse", "release"]
