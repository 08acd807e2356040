"""A job that follows the failure of another: enqueued with that, in one statement, once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from litestar import Litestar
from msgspec import Struct
from uuid_utils.compat import uuid7

from litestar_jobs import (
    Cancel,
    Every,
    Fail,
    FailedJob,
    Fixed,
    Job,
    JobContext,
    JobFilter,
    JobRequest,
    JobsClient,
    JobsConfig,
    JobsPlugin,
    JobStatus,
    Never,
    WorkerConfig,
    job,
)
from litestar_jobs.errors import DefinitionError
from litestar_jobs.outcome import Failure, Settlement
from litestar_jobs.request import NewJob
from litestar_jobs.select import follow_ups
from litestar_jobs.store import Claimed, Store
from litestar_jobs.testing import drained, ended, running, until

Connection = Any
told: list[tuple[FailedJob, str | None]] = []


@pytest.fixture(autouse=True)
def _nothing_told() -> None:
    told.clear()


class Order(Struct):
    number: int


@job(queue="alarms", priority=-3, max_retries=7)
async def tell_ops(payload: FailedJob, job: JobContext) -> None:
    told.append((payload, job.trace_id))


@asynccontextmanager
async def working(dsn: str, jobs: Sequence[Job[Any, Any]], **settings: Any) -> AsyncIterator[JobsClient]:
    """A worker that finds jobs only by being told of them."""
    config = WorkerConfig(**{"poll_interval": 3600} | settings)
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[tell_ops, *jobs], worker=config))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        yield plugin.client


async def followed(client: JobsClient, count: int = 1) -> list[FailedJob]:
    async def look() -> bool:
        return len(told) >= count

    await until(look, 10, "nobody was told")
    await drained(client)
    return [payload for payload, _ in told]


async def test_a_job_that_has_failed_for_good_is_told_of_once_with_all_that_is_known(dsn: str) -> None:
    @job(max_retries=2, retry=Fixed(0), on_failure=tell_ops)
    async def charge(payload: Order) -> None:
        raise ConnectionError("no route")

    async with working(dsn, [charge]) as client:
        job_id = await client.enqueue(charge(Order(7)))
        row = await ended(client, job_id)
        assert await followed(client) == [
            FailedJob(
                id=job_id,
                job_type="charge",
                queue="default",
                payload={"number": 7},
                attempts=3,
                error_type="ConnectionError",
                message="no route",
                trace_id=row.trace_id,
            )
        ]
        (follower,) = await client.find(JobFilter(job_type="tell_ops"))
        assert (follower.queue, follower.priority, follower.max_retries) == ("alarms", -3, 7)
        assert follower.trace_id == row.trace_id == told[0][1]
        assert follower.status is JobStatus.COMPLETED


BAD: dict[str, tuple[str, bool]] = {
    "Fail": ("Fail", True),
    "timeout": ("JobTimeout", True),
    "payload": ("PayloadError", True),
    "Never": ("KeyError", True),
    "Cancel": ("", False),
    "cancelled": ("", False),
    "retried": ("", False),
    "completed": ("", False),
}


@pytest.mark.parametrize("how", BAD)
async def test_every_way_to_fail_counts_and_no_other_end_does(dsn: str, how: str) -> None:
    begun = asyncio.Event()

    @job(
        max_retries=1,
        retry=Fixed(0) if how == "retried" else Never(),
        timeout=0.05 if how == "timeout" else None,
        on_failure=tell_ops,
    )
    async def end(payload: Order, job: JobContext) -> None:
        begun.set()
        match how:
            case "Fail":
                raise Fail("no")
            case "Cancel":
                raise Cancel("no")
            case "timeout" | "cancelled":
                await asyncio.Event().wait()
            case "Never":
                raise KeyError("x")
            case "retried" if job.attempt == 1:
                raise KeyError("x")

    async with working(dsn, [end]) as client:
        payload = b'"none"' if how == "payload" else b'{"number":1}'
        job_id = await client.enqueue(JobRequest(job_type="end", payload=payload))
        if how == "cancelled":
            await begun.wait()
            assert await client.cancel(job_id)
        await ended(client, job_id)
        error_type, is_told = BAD[how]
        await drained(client)
        assert [payload.error_type for payload, _ in told] == ([error_type] if is_told else [])
        assert len(await client.find(JobFilter(job_type="tell_ops"))) == is_told


@job(max_retries=0, on_failure=tell_ops)
async def quick(payload: Order) -> None:
    raise LookupError("no")


async def lost(store: Store, request: JobRequest, **columns: Any) -> UUID:
    """A job whose process is gone, in its last attempt."""
    worker_id = uuid7()
    await store.register(worker_id, "host", 1, ["default"], 3600)
    new = NewJob(uuid7(), request, **columns)
    await store.enqueue([new])
    (claimed,) = await store.claim({"default": 1}, {}, worker_id, "{}")
    assert claimed.id == new.id
    await store.renew(worker_id, 0)
    return new.id


async def test_a_job_whose_last_attempt_is_lost_with_its_process_is_told_of(dsn: str, store: Store) -> None:
    job_id = await lost(store, quick(Order(1)), trace_id="t1")
    async with working(dsn, [quick], lease=1) as client:
        (payload,) = await followed(client)
    assert (payload.id, payload.attempts, payload.payload, payload.trace_id) == (job_id, 1, {"number": 1}, "t1")
    assert (payload.error_type, payload.message) == ("WorkerLost", "the process that ran it stopped renewing its lease")
    assert told[0][1] == "t1"


async def test_many_that_rescue_at_once_tell_once(dsn: str, store: Store) -> None:
    await lost(store, quick(Order(1)))
    await asyncio.gather(*(store.rescue(3600, follow_ups({"quick": quick})) for _ in range(5)))
    assert len(await store.find(JobFilter(job_type="tell_ops"), 10)) == 1


async def test_an_end_that_was_written_and_not_acknowledged_is_told_of_once(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker writes it once more: it cannot know."""
    settle = Store.settle
    calls = 0

    async def unheard(self: Store, jobs: Sequence[tuple[Claimed, Settlement]], follow: str = "{}") -> set[UUID]:
        nonlocal calls
        calls += 1
        moved = await settle(self, jobs, follow)
        if calls == 1:
            raise TimeoutError
        return moved

    monkeypatch.setattr(Store, "settle", unheard)
    async with working(dsn, [quick]) as client:
        await client.enqueue(quick(Order(1)))

        async def twice() -> bool:
            return calls >= 2

        await until(twice)
        assert len(await followed(client)) == 1
        assert len(await client.find(JobFilter(job_type="tell_ops"))) == 1


async def test_an_end_that_is_refused_tells_nobody(store: Store) -> None:
    await lost(store, quick(Order(1)))
    worker_id = uuid7()
    await store.register(worker_id, "host", 1, ["default"], 3600)
    await store.enqueue([NewJob(uuid7(), quick(Order(2)))])
    (claimed,) = await store.claim({"default": 1}, {}, worker_id, "{}")
    assert await store.cancel(claimed.id)
    failed = Settlement("failed", failure=Failure("E", "m", "t"))
    assert not await store.settle([(claimed, failed)], follow_ups({"quick": quick}))
    assert await store.find(JobFilter(job_type="tell_ops"), 10) == []


@pytest.mark.parametrize("headers", ["null", "5", '"x"', "[]", '["schedule"]', '{"a": {"b": 1}}', '{"schedule": "s"}'])
async def test_headers_of_any_kind_do_not_stop_it(store: Store, connection: Connection, headers: str) -> None:
    """Any program can have written them; what a schedule said of its job alone is not inherited."""
    job_id = await lost(store, quick(Order(1)))
    await connection.execute("UPDATE litestar_jobs.job SET headers = $1::text::jsonb WHERE id = $2", headers, job_id)
    await store.rescue(3600, follow_ups({"quick": quick}))
    inherited = await connection.fetchval("SELECT headers FROM litestar_jobs.job WHERE job_type = 'tell_ops'")
    assert inherited == {'{"a": {"b": 1}}': '{"a": {"b": 1}}', '{"schedule": "s"}': "{}"}.get(headers)


async def test_ids_that_the_database_makes_are_like_those_that_the_library_makes(connection: Connection) -> None:
    ids = [
        UUID(str(row[0]))
        for row in await connection.fetch("SELECT litestar_jobs.new_id() FROM generate_series(1, 500)")
    ]
    assert len(set(ids)) == 500
    assert {(made.version, made.variant) for made in ids} == {(7, "specified in RFC 4122")}
    at = datetime.fromtimestamp((ids[0].int >> 80) / 1000, UTC)
    assert abs(at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_job_that_follows_may_be_followed_itself(dsn: str) -> None:
    @job(max_retries=0, on_failure=tell_ops)
    async def mail_ops(payload: FailedJob) -> None:
        raise ConnectionError("no mail")

    @job(max_retries=0, on_failure=mail_ops)
    async def work() -> None:
        raise LookupError("no")

    async with working(dsn, [work, mail_ops]) as client:
        job_id = await client.enqueue(work())
        (payload,) = await followed(client)
    assert (payload.job_type, payload.error_type, payload.payload["id"]) == ("mail_ops", "ConnectionError", str(job_id))


async def test_a_job_of_a_schedule_is_told_of_as_itself(dsn: str) -> None:
    seen: list[str | None] = []

    @job
    async def tell(payload: FailedJob, job: JobContext) -> None:
        seen.append(job.schedule)

    @job(max_retries=0, on_failure=tell, schedules=[Every(1)])
    async def tick() -> None:
        raise LookupError("no")

    async with working(dsn, [tick, tell], poll_interval=1) as client:

        async def look() -> bool:
            return bool(seen)

        await until(look, 10)
        assert seen[0] is None
        assert client is not None


# At definition.


@job
async def takes_something_else(payload: Order) -> None: ...


@job
async def takes_nothing() -> None: ...


async def no_job(payload: FailedJob) -> None: ...


@pytest.mark.parametrize("wrong", [takes_something_else, takes_nothing, no_job, "tell_ops", 5])
def test_only_a_job_that_takes_a_failed_job_can_follow(wrong: Any) -> None:
    with pytest.raises(DefinitionError, match=r"on_failure must be a job, .* whose payload is a FailedJob"):

        @job(on_failure=wrong)
        async def work() -> None: ...


def test_a_job_that_would_follow_itself_is_refused() -> None:
    @job(name="second", on_failure=tell_ops)
    async def second(payload: FailedJob) -> None: ...

    with pytest.raises(DefinitionError, match="'tell_ops' would follow its own failure"):

        @job(name="tell_ops", on_failure=second)
        async def first(payload: FailedJob) -> None: ...
