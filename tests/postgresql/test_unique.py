"""Unique jobs: of those with one key there is one at a time, whoever enqueues at the same moment and however."""

import asyncio
import json
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias, TypedDict
from uuid import UUID

import asyncpg
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar import Litestar
from litestar.serialization import encode_json
from msgspec import Struct
from msgspec import json as msgspec_json
from uuid_utils.compat import uuid7

from litestar_jobs import (
    FailedJob,
    JobId,
    JobRequest,
    Jobs,
    JobsClient,
    JobsConfig,
    JobsPlugin,
    Unique,
    WorkerConfig,
    gather,
    job,
)
from litestar_jobs.database import Database, Link
from litestar_jobs.errors import AlreadyEnqueued, DefinitionError, EnqueueError
from litestar_jobs.outcome import Failure, Settlement
from litestar_jobs.store import Claimed, Statements, Store
from litestar_jobs.telemetry import NoTracing
from litestar_jobs.testing import running, until
from litestar_jobs.worker.prune import Pruner
from test_enqueue_with import ALL, opened

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

SQL = Statements("litestar_jobs")
HOUR = 3600.0


class Sync(Struct):
    account: int
    note: str = ""


@job(unique=Unique(by=("account",)))
async def sync(payload: Sync) -> None: ...


@job(unique=Unique(by=("account",), until="started"))
async def sync_until_started(payload: Sync) -> None: ...


@job(unique=Unique(by=("account",), on_conflict="replace"))
async def replace(payload: Sync) -> None: ...


@job(unique=Unique(by=("account",), until="started", on_conflict="replace"))
async def replace_until_started(payload: Sync) -> None: ...


@job(unique=Unique(by=("account",), on_conflict="reschedule"))
async def reschedule(payload: Sync) -> None: ...


@job(unique=Unique(by=("account",), until="started", on_conflict="reschedule"))
async def reschedule_until_started(payload: Sync) -> None: ...


@job(unique=Unique(by=("account",), on_conflict="error"))
async def insist(payload: Sync) -> None: ...


@job(unique=Unique(by=("account",), within=HOUR))
async def hourly(payload: Sync) -> None: ...


@job(unique=Unique(by="job"))
async def alone() -> None: ...


@job
async def plain(payload: Sync) -> None: ...


async def a_client(dsn: str) -> JobsClient:
    client = JobsClient(SQL, NoTracing(lambda: None))
    await client.start(Database(dsn))
    return client


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[JobsClient]:
    client = await a_client(dsn)
    yield client
    await client.stop()


async def stored(connection: Connection) -> list[UUID]:
    return [row["id"] for row in await connection.fetch("SELECT id FROM litestar_jobs.job ORDER BY id")]


# The key.

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=10,
)


@job(unique=Unique())
async def of_anything(payload: Any) -> None: ...


def key_of(request: JobRequest) -> UUID:
    assert request.unique is not None
    return request.unique.key


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(VALUES)
def test_the_order_of_names_makes_no_other_key(value: Any) -> None:
    assert key_of(of_anything(value)) == key_of(of_anything(reordered(value)))


@given(VALUES, VALUES)
def test_another_payload_makes_another_key(one: Any, other: Any) -> None:
    alike = msgspec_json.encode(one, order="sorted") == msgspec_json.encode(other, order="sorted")
    assert (key_of(of_anything(one)) == key_of(of_anything(other))) is alike


def test_the_key_of_one_job_is_not_that_of_another() -> None:
    assert key_of(sync(Sync(1))) != key_of(hourly(Sync(1)))


class Renamed(Struct, rename="camel", omit_defaults=True):
    account_id: int
    day: str | None = None
    note: str = ""


@dataclass
class Data:
    account_id: int
    day: str | None = None
    note: str = ""


@attrs.define
class Attrs:
    account_id: int
    day: str | None = None
    note: str = ""


class Typed(TypedDict):
    account_id: int
    day: str | None
    note: str


@pytest.mark.parametrize("kind", [Renamed, Data, Attrs, Typed])
def test_a_key_can_be_some_fields_of_the_payload(kind: Any) -> None:
    async def by_fields(payload: kind) -> None: ...

    made = job(unique=Unique(by=("day", "account_id")))(by_fields)
    first = key_of(made(kind(account_id=1, day="monday", note="a")))
    assert key_of(made(kind(account_id=1, day="monday", note="b"))) == first
    assert key_of(made(kind(account_id=1, day="tuesday", note="a"))) != first
    assert key_of(made(kind(account_id=2, day="monday", note="a"))) != first


def test_a_key_can_be_fields_of_a_payload_that_is_one_of_several() -> None:
    class Mail(Struct, tag=True):
        account: int

    class Letter(Struct, tag=True):
        account: int
        stamp: str

    @job(unique=Unique(by=("account",)))
    async def either(payload: Letter | Mail | None) -> None: ...

    assert key_of(either(Mail(1))) == key_of(either(Letter(1, "x")))
    assert key_of(either(None)) != key_of(either(Mail(1)))


def test_a_key_can_be_what_a_function_makes_of_the_payload() -> None:
    @job(unique=Unique(by=lambda payload: {payload.note.lower(), "x"}))
    async def by_function(payload: Sync) -> None: ...

    assert key_of(by_function(Sync(1, "A"))) == key_of(by_function(Sync(2, "a")))
    assert key_of(by_function(Sync(1, "A"))) != key_of(by_function(Sync(1, "b")))


def test_what_a_function_makes_of_the_payload_must_be_something_that_json_has() -> None:
    @job(unique=Unique(by=lambda payload: object()))
    async def by_function(payload: Sync) -> None: ...

    with pytest.raises(DefinitionError, match="unique job 'by_function' must give something that JSON has"):
        by_function(Sync(1))


def test_the_key_of_the_job_alone_does_not_look_at_its_payload() -> None:
    @job(unique=Unique(by="job"))
    async def whatever(payload: Sync) -> None: ...

    assert key_of(whatever(Sync(1))) == key_of(whatever(Sync(2)))


async def of_struct(payload: Sync) -> None: ...
async def of_number(payload: int) -> None: ...
async def of_dict(payload: dict[str, int]) -> None: ...
async def of_nothing() -> None: ...


@pytest.mark.parametrize(
    ("options", "function", "said"),
    [
        ({"until": "done"}, of_struct, "until must be one of started, finished, not 'done'"),
        ({"on_conflict": "wait"}, of_struct, "on_conflict must be one of skip, replace, reschedule, error, not 'wait'"),
        ({"within": -1}, of_struct, "within"),
        ({"within": "1h"}, of_struct, "within"),
        ({"by": "account"}, of_struct, "by must be .* not 'account'"),
        ({"by": ()}, of_struct, "by must be"),
        ({"by": (1,)}, of_struct, "by must be"),
        ({"by": ("acount",)}, of_struct, "of_struct.*its payload has no field 'acount', but account, note"),
        ({"by": ("account",)}, of_number, "of_number.*its payload has no named fields"),
        ({"by": ("account",)}, of_dict, "of_dict.*its payload has no named fields"),
        ({"by": ("account",)}, of_nothing, 'of_nothing.*takes no payload, so by can only be "job"'),
        ({"by": len}, of_nothing, 'of_nothing.*takes no payload, so by can only be "job"'),
    ],
)
def test_what_makes_no_sense_is_an_error_at_definition(
    options: dict[str, Any], function: Callable[..., Any], said: str
) -> None:
    with pytest.raises(DefinitionError, match=said):
        job(unique=Unique(**options))(function)


def test_only_unique_says_that_a_job_is_unique() -> None:
    with pytest.raises(DefinitionError, match=r"unique must be Unique\(...\), not True"):
        job(unique=True)(of_struct)  # type: ignore[call-overload]


def test_a_periodic_job_is_told_how_to_not_overlap() -> None:
    with pytest.raises(DefinitionError, match=r'of_nothing.* is periodic.*overlap="skip"'):
        job(unique=Unique(by="job"), every=60)(of_nothing)


def test_a_job_that_follows_a_failure_cannot_be_unique() -> None:
    @job(unique=Unique(by="job"))
    async def tell(payload: FailedJob) -> None: ...

    with pytest.raises(DefinitionError, match=r"on_failure cannot be <Job 'tell'.*unique"):
        job(on_failure=tell)(of_nothing)


# What the caller is told.


def test_the_id_of_a_job_is_a_uuid_for_everybody() -> None:
    plainly = uuid7()
    for is_new in (True, False):
        job_id = JobId(plainly.int, is_new=is_new)
        assert job_id == plainly
        assert plainly in {job_id: 1}
        assert (str(job_id), job_id.hex, job_id.version) == (str(plainly), plainly.hex, 7)
        assert sorted([job_id, UUID(int=0)]) == [UUID(int=0), plainly]
        assert encode_json({"id": job_id}) == msgspec_json.encode({"id": plainly})
        for copied in (pickle.loads(pickle.dumps(job_id)), deepcopy(job_id)):
            assert (type(copied), copied, copied.is_new) == (JobId, plainly, is_new)


async def test_the_id_of_a_job_is_taken_by_drivers(client: JobsClient, dsn: str) -> None:
    job_id = await client.enqueue(sync(Sync(1)))
    for kind in ALL:
        async with opened(kind, dsn) as own:
            if "+" not in kind:
                query = "SELECT id FROM litestar_jobs.job WHERE id = " + ("%s" if kind == "psycopg" else "$1")
                found = await (own.connection.execute if kind == "psycopg" else own.connection.fetch)(
                    query, [job_id] if kind == "psycopg" else job_id
                )
                assert found
                continue
            from sqlalchemy import Uuid, column, select, table

            jobs = table("job", column("id", Uuid), schema="litestar_jobs")
            found = own.connection.execute(select(jobs.c.id).where(jobs.c.id == job_id))
            rows = (await found if isinstance(found, Awaitable) else found).all()
            assert [row.id for row in rows] == [job_id]


async def test_the_caller_learns_the_id_and_whether_it_is_new(client: JobsClient, dsn: str) -> None:
    first = await client.enqueue(sync(Sync(1)))
    again = await client.enqueue(sync(Sync(1)))
    other = await client.enqueue(sync(Sync(2)))
    assert (again, other != first) == (first, True)
    assert (first.is_new, again.is_new, other.is_new) == (True, False, True)
    assert [each.is_new for each in await client.enqueue_many([sync(Sync(2)), plain(Sync(2)), sync(Sync(3))])] == [
        False,
        True,
        True,
    ]


# How long a key is held.

Stage: TypeAlias = Literal[
    "scheduled", "ready", "held", "running", "retrying", "completed", "failed", "cancelled", "deleted"
]
STAGES: list[Stage] = [
    "scheduled", "ready", "held", "running", "retrying", "completed", "failed", "cancelled", "deleted",
]  # fmt: skip
PENDING = ("scheduled", "ready", "held", "retrying")


async def bring(client: JobsClient, connection: Connection, job_id: UUID, stage: Stage) -> None:
    """Bring the job, which is the only one and ready, there."""
    store = client.store
    worker = uuid7()
    await store.register(worker, "host", 1, ["default"], HOUR)
    match stage:
        case "ready":
            return
        case "scheduled" | "held":
            moved = (
                "WITH gone AS (DELETE FROM litestar_jobs.ready WHERE id = $1 RETURNING *) INSERT INTO litestar_jobs."
            )
            if stage == "scheduled":
                moved += "scheduled SELECT id, run_at + interval '1 h', priority, attempts, queue FROM gone"
            else:
                moved += "held SELECT id, run_at, priority, attempts, queue, 'suspect' FROM gone"
            await connection.execute(moved, job_id)
        case "cancelled":
            assert await store.cancel(job_id)
        case _:
            (claimed,) = await store.claim({"default": 1}, {}, worker, "{}")
            assert claimed.id == job_id
            await proceed(store, claimed, stage)


async def proceed(store: Store, claimed: Claimed, stage: Stage) -> None:
    match stage:
        case "completed" | "deleted":
            await store.complete([claimed])
        case "failed":
            await store.settle([(claimed, Settlement("failed"))])
        case "retrying":
            await store.settle([(claimed, Settlement("retry", delay=HOUR, failure=Failure("E", "", None)))])
    if stage == "deleted":
        await store.delete_many([claimed.id], ["completed"])


@pytest.mark.parametrize("stage", STAGES)
async def test_a_key_is_held_until_its_job_has_finished(
    client: JobsClient, connection: Connection, stage: Stage
) -> None:
    first = await client.enqueue(sync(Sync(1)))
    await bring(client, connection, first, stage)
    second = await client.enqueue(sync(Sync(1)))
    is_held = stage in (*PENDING, "running")
    assert (second.is_new, second == first) == (not is_held, is_held)
    assert await client.enqueue(sync(Sync(1))) == second, "now that is the one"


@pytest.mark.parametrize("stage", STAGES)
async def test_a_key_is_held_until_its_job_has_started_and_while_it_waits_for_a_retry(
    client: JobsClient, connection: Connection, stage: Stage
) -> None:
    first = await client.enqueue(sync_until_started(Sync(1)))
    await bring(client, connection, first, stage)
    second = await client.enqueue(sync_until_started(Sync(1)))
    is_held = stage in PENDING
    assert (second.is_new, second == first) == (not is_held, is_held)
    assert await client.enqueue(sync_until_started(Sync(1))) == second


@pytest.mark.parametrize("stage", STAGES)
async def test_a_key_is_held_within_its_time_in_any_case(
    client: JobsClient, connection: Connection, stage: Stage
) -> None:
    first = await client.enqueue(hourly(Sync(1)))
    await bring(client, connection, first, stage)
    again = await client.enqueue(hourly(Sync(1)))
    assert (again, again.is_new) == (first, False)

    await connection.execute("UPDATE litestar_jobs.unique_key SET kept_until = kept_until - interval '1 h'")
    later = await client.enqueue(hourly(Sync(1)))
    assert later.is_new is (stage not in (*PENDING, "running")), "a job that takes longer holds it for longer"


async def test_a_retried_job_has_its_key_again_unless_another_took_it(
    client: JobsClient, connection: Connection
) -> None:
    first = await client.enqueue(sync(Sync(1)))
    await bring(client, connection, first, "failed")
    assert await client.retry(first)
    assert await client.enqueue(sync(Sync(1))) == first

    assert await client.cancel(first)
    second = await client.enqueue(sync(Sync(1)))
    assert await client.retry(first), "somebody wants it to run, beside the other"
    assert second.is_new
    assert await client.enqueue(sync(Sync(1))) == second


# What becomes of another one.


async def row_of(client: JobsClient, job_id: UUID) -> tuple[Any, ...]:
    row = await client.get(job_id)
    assert row is not None
    return (row.payload["note"], row.priority, row.queue, row.max_retries)


@pytest.mark.parametrize("stage", STAGES)
async def test_replace_gives_the_pending_job_all_that_is_new(
    client: JobsClient, connection: Connection, stage: Stage
) -> None:
    first = await client.enqueue(replace(Sync(1, "old"), priority=1, max_retries=1))
    await bring(client, connection, first, stage)
    due = datetime.now(UTC) + timedelta(hours=2)
    second = await client.enqueue(replace(Sync(1, "new"), priority=2, queue="b", max_retries=2, run_at=due))
    if stage in PENDING:
        assert (second, second.is_new) == (first, False)
        assert await row_of(client, first) == ("new", 2, "b", 2)
        row = await client.get(first)
        assert row is not None
        assert (row.run_at, row.attempts) == (due, 0)
        assert await client.store.held(first) == ("suspect" if stage == "held" else None)
    elif stage == "running":
        assert (second, second.is_new) == (first, False)
        assert await row_of(client, first) == ("old", 1, "default", 1)
    else:
        assert second.is_new
        assert await row_of(client, second) == ("new", 2, "b", 2)


@pytest.mark.parametrize("stage", STAGES)
async def test_reschedule_changes_only_when_the_pending_job_runs(
    client: JobsClient, connection: Connection, stage: Stage
) -> None:
    first = await client.enqueue(reschedule(Sync(1, "old"), priority=1, max_retries=1))
    await bring(client, connection, first, stage)
    due = datetime.now(UTC) + timedelta(hours=2)
    second = await client.enqueue(reschedule(Sync(1, "new"), priority=2, queue="b", max_retries=2, run_at=due))
    if stage in (*PENDING, "running"):
        assert (second, second.is_new) == (first, False)
        assert await row_of(client, first) == ("old", 1, "default", 1)
        row = await client.get(first)
        assert row is not None
        assert (row.run_at == due) is (stage in PENDING)
        assert row.attempts == (stage in {"retrying", "running"})
    else:
        assert second.is_new
        assert await row_of(client, second) == ("new", 2, "b", 2)


@pytest.mark.parametrize("stage", STAGES)
async def test_error_names_the_job_that_has_the_key(client: JobsClient, connection: Connection, stage: Stage) -> None:
    first = await client.enqueue(insist(Sync(1)))
    await bring(client, connection, first, stage)
    if stage not in (*PENDING, "running"):
        assert (await client.enqueue(insist(Sync(1)))).is_new
        return
    with pytest.raises(AlreadyEnqueued, match="has the key of this unique job 'insist'") as alone:
        await client.enqueue(insist(Sync(1)))
    assert alone.value.job_id == first
    with pytest.raises(AlreadyEnqueued) as many:
        await client.enqueue_many([insist(Sync(2)), plain(Sync(1)), insist(Sync(1))])
    assert many.value.job_id == first
    assert await stored(connection) == [first], "of many all are enqueued or none"


async def test_a_caller_that_is_told_of_an_error_does_not_disturb_its_neighbours(client: JobsClient) -> None:
    requests = [insist(Sync(n % 5)) for n in range(20)]
    answers = await asyncio.gather(*map(client.enqueue, requests), return_exceptions=True)
    ids = {answer for answer in answers if isinstance(answer, JobId)}
    assert len(ids) == 5
    assert {answer.job_id for answer in answers if isinstance(answer, AlreadyEnqueued)} == ids


@pytest.mark.parametrize("kind", ALL)
async def test_an_error_leaves_the_callers_transaction_as_it_was(
    kind: str, dsn: str, client: JobsClient, connection: Connection
) -> None:
    first = await client.enqueue(insist(Sync(1)))
    async with opened(kind, dsn) as own:
        with pytest.raises(AlreadyEnqueued):
            await client.enqueue_with(own.connection, insist(Sync(1)))
        other = await client.enqueue_with(own.connection, insist(Sync(2)))
        await own.commit()
    assert await stored(connection) == [first, other]


# Races.


async def test_of_many_that_enqueue_one_key_at_once_one_is_new(dsn: str, connection: Connection) -> None:
    async with AsyncExitStack() as stack:
        clients = [await a_client(dsn) for _ in range(5)]
        for each in clients:
            stack.push_async_callback(each.stop)
        calls = asyncio.gather(*(each.enqueue(sync(Sync(n % 3))) for n in range(40) for each in clients))
        many = asyncio.gather(*(each.enqueue_many([sync(Sync(0))] * 10) for each in clients))
        ids = [*await calls, *(each for ids in await many for each in ids)]
    assert sorted(each for each in ids if each.is_new) == await stored(connection)
    assert len(set(ids)) == 3


@pytest.mark.parametrize("make", [sync, replace, reschedule])
async def test_many_of_one_key_in_one_statement_are_one(
    client: JobsClient, connection: Connection, make: Callable[..., JobRequest]
) -> None:
    """And the last one counts where it changes the job."""
    for is_new in (True, False):
        ids = await client.enqueue_many([make(Sync(1, str(n)), delay=60 + n) for n in range(1000)])
        first = ids[0]
        assert await stored(connection) == [first]
        assert set(ids) == {first}
        row = await client.get(first)
        assert row is not None
        delay = round((row.run_at - row.created_at).total_seconds())
        assert row.payload["note"] == ("999" if make is replace else "0")
        assert (delay >= 1059) is (make is not sync)
        assert [each.is_new for each in ids] == [is_new, *[False] * 999]


async def waits(dsn: str, call: "asyncio.Task[Any]") -> None:
    """Return once something waits for another transaction; fails if the call has its answer before."""
    connection = await asyncpg.connect(dsn)

    async def look() -> bool:
        assert not call.done(), call
        return bool(
            await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )

    await until(look)
    await connection.close()


WAYS = [
    *(
        (how, make)
        for how in ("enqueue", "many")
        for make in (sync, sync_until_started, replace, reschedule, insist, hourly)
    ),
    *((how, sync) for how in ALL if "Async" in how or "+" not in how),
]
"""All that do not block the event loop."""


@pytest.mark.parametrize(("how", "make"), WAYS)
@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_an_enqueue_waits_for_an_open_transaction_that_has_the_key(
    how: str, make: Callable[[Sync], JobRequest], end: str, dsn: str, client: JobsClient
) -> None:
    holder = await asyncpg.connect(dsn)
    transaction = holder.transaction()
    await transaction.start()
    first = await client.enqueue_with(holder, make(Sync(1, "first")))

    async def second() -> JobId:
        if how == "enqueue":
            return await client.enqueue(make(Sync(1, "second")))
        if how == "many":
            return (await client.enqueue_many([make(Sync(1, "second"))]))[0]
        async with opened(how, dsn) as own:
            answer = await client.enqueue_with(own.connection, make(Sync(1, "second")))
            await own.commit()
            return answer

    call = asyncio.create_task(second())
    await waits(dsn, call)
    await (transaction.commit() if end == "commit" else transaction.rollback())
    await holder.close()
    if end == "rollback":
        assert (await call).is_new
        assert await client.get(first) is None
        return
    if make is insist:
        with pytest.raises(AlreadyEnqueued):
            await call
    else:
        assert (await call, (await call).is_new) == (first, False)
    row = await client.get(first)
    assert row is not None
    assert row.payload["note"] == ("second" if make is replace else "first")


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_two_that_see_a_key_become_free_do_not_both_take_it(
    end: str, dsn: str, client: JobsClient, connection: Connection
) -> None:
    """The second one still sees the job that has ended when it gets the key, and not the first one's."""
    over = await client.enqueue(sync(Sync(1)))
    await bring(client, connection, over, "completed")
    holder = await asyncpg.connect(dsn)
    transaction = holder.transaction()
    await transaction.start()
    first = await client.enqueue_with(holder, sync(Sync(1)))
    call = asyncio.create_task(client.enqueue(sync(Sync(1))))
    await waits(dsn, call)
    await (transaction.commit() if end == "commit" else transaction.rollback())
    await holder.close()
    assert (await call).is_new is (end == "rollback")
    assert await stored(connection) == ([over, first] if end == "commit" else [over, await call])


async def test_plain_jobs_do_not_wait_for_the_transaction_that_a_unique_one_waits_for(
    dsn: str, client: JobsClient, connection: Connection
) -> None:
    holder = await asyncpg.connect(dsn)
    async with holder.transaction():
        await client.enqueue_with(holder, sync(Sync(1)))
        call = asyncio.create_task(client.enqueue(sync(Sync(1))))
        await waits(dsn, call)
        await asyncio.wait_for(client.enqueue(plain(Sync(1))), 5)
        assert not call.done()
    await call
    await holder.close()


async def test_other_unique_jobs_do_not_wait_for_a_transaction_that_one_waits_for(dsn: str, client: JobsClient) -> None:
    holder = await asyncpg.connect(dsn)
    async with holder.transaction():
        first = await client.enqueue_with(holder, sync(Sync(1)))
        waiting = [asyncio.create_task(client.enqueue(sync(Sync(1)))) for _ in range(2)]
        others = await asyncio.gather(*(client.enqueue(sync(Sync(n % 30 + 2))) for n in range(60)))
        assert len(set(others)) == 30
        assert not any(call.done() for call in waiting)
    assert [await call for call in waiting] == [first, first]
    await holder.close()


async def test_who_waits_too_long_for_a_transaction_is_told_that_nothing_was_enqueued(
    dsn: str, client: JobsClient, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gather, "PATIENCE", 0.3)
    holder = await asyncpg.connect(dsn)
    async with holder.transaction():
        first = await client.enqueue_with(holder, sync(Sync(1)))
        with pytest.raises(EnqueueError, match="a transaction that is open has had the key of unique job 'sync'"):
            await client.enqueue(sync(Sync(1)))
    assert await stored(connection) == [first]
    await holder.close()


async def test_a_savepoint_that_is_rolled_back_gives_the_key_back(dsn: str, client: JobsClient) -> None:
    own = await asyncpg.connect(dsn)
    async with own.transaction():
        savepoint = own.transaction()
        await savepoint.start()
        gone = await client.enqueue_with(own, sync(Sync(1)))
        assert await client.enqueue_with(own, sync(Sync(1))) == gone, "of the same transaction too"
        await savepoint.rollback()
        second = await client.enqueue_with(own, sync(Sync(1)))
        assert second.is_new
    await own.close()
    assert await client.get(gone) is None


Moved: TypeAlias = Literal["claimed", "promoted", "cancelled"]


@pytest.mark.parametrize("moved", ["claimed", "promoted", "cancelled"])
@pytest.mark.parametrize("make", [replace, replace_until_started, reschedule, reschedule_until_started])
async def test_a_job_that_is_moved_at_that_moment_is_changed_wholly_or_not_at_all(
    moved: Moved, make: Callable[..., JobRequest], dsn: str, client: JobsClient, connection: Connection
) -> None:
    """Somebody else has moved it and not committed yet: the change waits, and then looks anew."""
    first = await client.enqueue(make(Sync(1, "old")))
    if moved == "promoted":
        await bring(client, connection, first, "scheduled")
        await connection.execute("UPDATE litestar_jobs.scheduled SET run_at = now()")
    other = await asyncpg.connect(dsn)
    store = Store(other.fetch, SQL)
    worker = uuid7()
    await store.register(worker, "host", 1, ["default"], HOUR)
    transaction = other.transaction()
    await transaction.start()
    match moved:
        case "claimed":
            (claimed,) = await store.claim({"default": 1}, {}, worker, "{}")
            assert json.loads(claimed.payload or "")["note"] == "old"
        case "promoted":
            await store.promote(10)
        case "cancelled":
            await store.cancel(first)
    due = datetime.now(UTC) + timedelta(hours=1)
    call = asyncio.create_task(client.enqueue(make(Sync(1, "new"), run_at=due)))
    await waits(dsn, call)
    await transaction.commit()
    await other.close()
    answer = await call
    row = await client.get(first)
    assert row is not None
    is_changed = moved == "promoted"
    stays = is_changed or (moved == "claimed" and make in (replace, reschedule))
    assert (answer == first, answer.is_new) == (stays, not stays)
    assert (row.run_at == due) is is_changed
    assert row.payload["note"] == ("new" if is_changed and make in (replace, replace_until_started) else "old")
    if not stays:
        second = await client.get(answer)
        assert second is not None
        assert (second.payload["note"], second.run_at) == ("new", due)


async def test_a_job_that_is_being_replaced_is_not_claimed_before_that_is_over(dsn: str, client: JobsClient) -> None:
    first = await client.enqueue(replace(Sync(1, "old")))
    worker = uuid7()
    await client.store.register(worker, "host", 1, ["default"], HOUR)
    own = await asyncpg.connect(dsn)
    async with own.transaction():
        assert await client.enqueue_with(own, replace(Sync(1, "new"))) == first
        assert await client.store.claim({"default": 1}, {}, worker, "{}") == []
    await own.close()
    (claimed,) = await client.store.claim({"default": 1}, {}, worker, "{}")
    assert json.loads(claimed.payload or "")["note"] == "new"


# Waking.


async def test_nobody_is_woken_for_what_is_not_new(client: JobsClient, dsn: str, direct_dsn: str) -> None:
    heard: list[str] = []
    here: list[set[str]] = []
    ear = await asyncpg.connect(direct_dsn)
    for make in (sync, replace, reschedule):
        await client.enqueue(make(Sync(1)))
    await ear.add_listener("litestar_jobs", lambda *said: heard.append(str(said[-1])))
    client.listen(lambda ready, _: here.append(ready))

    await client.enqueue(sync(Sync(1)))
    await client.enqueue_many([sync(Sync(1))])
    for kind in ("asyncpg", "AsyncSession+asyncpg"):
        async with opened(kind, dsn) as own:
            await client.enqueue_with(own.connection, sync(Sync(1)))
            await own.commit()
    await client.enqueue(replace(Sync(1), queue="b"))
    await client.enqueue(reschedule(Sync(1), queue="b"))
    await client.enqueue(plain(Sync(1), queue="the end"))

    async def told() -> bool:
        await ear.fetch("SELECT 1")
        return "ready:the end" in heard

    await until(told)
    await ear.close()
    assert heard == ["ready:b", "ready:default", "ready:the end"], "a job that is changed may run elsewhere or sooner"
    assert here == [set(), {"b"}, {"default"}, {"the end"}]


# Forgetting keys.


async def test_who_prunes_forgets_keys_too(dsn: str, client: JobsClient, connection: Connection) -> None:
    await client.enqueue_many([sync(Sync(n)) for n in range(2500)])
    await connection.execute("DELETE FROM litestar_jobs.ready; DELETE FROM litestar_jobs.job")
    await client.enqueue(sync(Sync(0)))
    link = Link(Database(dsn))
    await Pruner(link, SQL, {}, lambda _: None).sweep()
    assert await connection.fetchval("SELECT count(*) FROM litestar_jobs.unique_key") == 1

    await connection.execute("DELETE FROM litestar_jobs.ready; DELETE FROM litestar_jobs.job")
    steps = Pruner(link, SQL, {"completed": HOUR}, lambda _: None)
    while await steps.step() < 1:
        pass
    assert await connection.fetchval("SELECT count(*) FROM litestar_jobs.unique_key") == 0
    await link.close()


@pytest.mark.parametrize("stage", STAGES)
async def test_the_key_of_a_job_that_has_ended_is_forgotten(
    client: JobsClient, connection: Connection, stage: Stage
) -> None:
    first = await client.enqueue(sync(Sync(1)))
    await bring(client, connection, first, stage)
    walked = await client.store.forget_keys(UUID(int=0), 10)
    is_over = stage not in (*PENDING, "running")
    assert (walked.seen, walked.gone) == (1, int(is_over))
    assert await connection.fetchval("SELECT count(*) FROM litestar_jobs.unique_key") == int(not is_over)


async def test_a_key_that_is_kept_for_a_time_or_taken_again_is_not_forgotten(
    dsn: str, client: JobsClient, connection: Connection
) -> None:
    kept = await client.enqueue(hourly(Sync(1)))
    await bring(client, connection, kept, "completed")
    assert (await client.store.forget_keys(UUID(int=0), 10)).gone == 0
    await connection.execute("DELETE FROM litestar_jobs.unique_key")

    first = await client.enqueue(sync(Sync(1)))
    await bring(client, connection, first, "completed")
    own = await asyncpg.connect(dsn)
    async with own.transaction():
        second = await client.enqueue_with(own, sync(Sync(1)))
        assert (await client.store.forget_keys(UUID(int=0), 10)).gone == 0, "and does not wait"
    await own.close()
    assert second.is_new
    assert (await client.store.forget_keys(UUID(int=0), 10)).gone == 0


async def test_keys_are_forgotten_in_slices(client: JobsClient, connection: Connection) -> None:
    await client.enqueue_many([sync(Sync(n)) for n in range(25)])
    await connection.execute("DELETE FROM litestar_jobs.ready; DELETE FROM litestar_jobs.job")
    seen, after = [], UUID(int=0)
    for _ in range(4):
        walked = await client.store.forget_keys(after, 10)
        seen.append((walked.seen, walked.gone))
        after = walked.last or after
    assert seen == [(10, 10), (10, 10), (5, 5), (0, 0)]


# All together.


@pytest.mark.parametrize("until_", ["started", "finished"])
async def test_while_jobs_run_there_is_never_a_second_one_of_a_key(
    until_: Literal["started", "finished"], dsn: str, connection: Connection
) -> None:
    """Whoever looks at any moment sees at most one."""
    ran: list[int] = []

    @job(unique=Unique(by=("account",), until=until_), name="work", result=False)
    async def work(payload: Sync, jobs: Jobs) -> None:
        ran.append(payload.account)

    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[work], worker=WorkerConfig(concurrency=5)))
    states = ("pending", "running") if until_ == "finished" else ("pending",)
    double = (
        "SELECT payload, count(*) FROM litestar_jobs.jobs WHERE status = ANY($1) GROUP BY payload HAVING count(*) > 1"
    )
    is_over = False

    async def enqueue(which: JobsClient) -> list[JobId]:
        ids: list[JobId] = []
        while not is_over:
            ids.append(await which.enqueue(work(Sync(len(ids) % 4))))
            ids += await which.enqueue_many([work(Sync(n % 4)) for n in range(8)])
        return ids

    async def look() -> int:
        looked = 0
        while not is_over:
            assert await connection.fetch(double, states) == []
            looked += 1
        return looked

    other = await a_client(dsn)
    async with running(Litestar([], plugins=[plugin])):
        calls = [asyncio.create_task(enqueue(each)) for each in (plugin.client, other, plugin.client)]
        looking = asyncio.create_task(look())

        async def enough() -> bool:
            return len(ran) > 200 or looking.done()

        await until(enough, 60)
        is_over = True
        ids = [each for call in calls for each in await call]
        assert await looking > 10
        new = [each for each in ids if each.is_new]
        assert sorted(new) == await stored(connection)

        async def all_ran() -> bool:
            return len(ran) == len(new)

        await until(all_ran)
    await other.stop()
