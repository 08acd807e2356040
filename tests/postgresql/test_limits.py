"""Limits and rates, with workers: no more at once, no more in a time, in order, each key in its turn.

What the statements promise, whatever moves, is in ``test_limit_moves.py``.
"""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any, TypedDict
from uuid import UUID

import asyncpg
import pytest
from litestar import Litestar
from msgspec import Struct
from uuid_utils.compat import uuid7

import limits_app
from conftest import NO_AUTOVACUUM
from limited import INSTRUMENT, Connection, most_at_once, starts, too_close, wait_at
from limits_app import pull
from litestar_jobs import (
    Every,
    FailedJob,
    Fixed,
    Job,
    JobContext,
    JobFilter,
    JobsClient,
    JobsConfig,
    JobsPlugin,
    JobStatus,
    Limit,
    Rate,
    Unique,
    job,
)
from litestar_jobs.database import SETTINGS
from litestar_jobs.errors import ConfigurationError, DefinitionError
from litestar_jobs.gates import BEGINNING, Gates
from litestar_jobs.request import Limited
from litestar_jobs.store import Statements, Store
from litestar_jobs.testing import drained, ended, running, until
from test_enqueue_with import ALL, opened
from test_worker import Gate, worker


class Order(Struct):
    customer: str
    number: int = 0


@asynccontextmanager
async def workers(count: int, dsn: str, jobs: Sequence[Job[Any, Any]], **settings: Any) -> AsyncIterator[JobsClient]:
    """So many workers, each with connections of its own; they find jobs only by being told of them."""
    async with AsyncExitStack() as stack:
        plugins = [await stack.enter_async_context(worker(dsn, jobs, **settings)) for _ in range(count)]
        yield plugins[0].client


# At once.


async def test_no_more_run_at_once_than_the_limit_says_over_all_workers(dsn: str, connection: Connection) -> None:
    await connection.execute(INSTRUMENT)
    gate = Gate()

    @job(limit=Limit(3))
    async def pull(payload: int) -> None:
        await gate.pass_through()

    async with workers(3, dsn, [pull]) as client:
        await client.enqueue_many([pull(number) for number in range(12)])
        for _ in range(3):
            await gate.entered.acquire()
        gate.open()
        await drained(client)
    assert gate.most_inside == 3
    assert await most_at_once(connection) == {"pull": 3}


async def test_jobs_of_a_key_run_in_order(dsn: str) -> None:
    """Of their priority, then of their time."""
    ran: dict[str, list[int]] = defaultdict(list)

    @job(limit=Limit(1, by="customer"))
    async def bill(payload: Order) -> None:
        ran[payload.customer].append(payload.number)

    async with workers(2, dsn, [bill]) as client:
        late = [bill(Order(customer, 100 + n), priority=5) for n in range(5) for customer in "ab"]
        await client.enqueue_many([*late, *(bill(Order(customer, n)) for n in range(20) for customer in "abc")])
        await drained(client)
    numbers = list(range(20))
    rest = [100, 101, 102, 103, 104]
    first_of_a = ran["a"].index(0)  # whoever came first may have begun before the others were there
    assert first_of_a <= 1
    assert [n for n in ran["a"] if n < 100] == [n for n in ran["b"] if n < 100] == ran["c"] == numbers
    assert [n for n in ran["a"] if n >= 100] == [n for n in ran["b"] if n >= 100] == rest
    assert ran["a"][-4:] == rest[-4:]


async def test_a_key_with_many_jobs_keeps_no_other_waiting(dsn: str) -> None:
    gate = Gate()
    done: list[Order] = []

    @job(limit=Limit(1, by="customer"))
    async def bill(payload: Order) -> None:
        if payload.customer == "big":
            await gate.pass_through()
        done.append(payload)

    async with workers(1, dsn, [bill]) as client:
        await client.enqueue_many([bill(Order("big", n)) for n in range(500)])
        await gate.entered.acquire()
        small = await client.enqueue_many([bill(Order("small", n)) for n in range(20)])
        for job_id in small:
            await ended(client, job_id)
        assert done == [Order("small", n) for n in range(20)]
        gate.open()


async def test_jobs_that_name_a_key_share_it_whatever_their_queue(dsn: str, connection: Connection) -> None:
    await connection.execute(INSTRUMENT)

    @job(queue="emails", limit=Limit(2, key="smtp"))
    async def send(payload: int) -> None:
        await asyncio.sleep(0.01)

    @job(queue="newsletters", limit=Limit(2, key="smtp"))
    async def send_many(payload: int) -> None:
        await asyncio.sleep(0.01)

    async with workers(2, dsn, [send, send_many]) as client:
        await client.enqueue_many([one for n in range(10) for one in (send(n), send_many(n))])
        await drained(client)
    assert await most_at_once(connection) == {"smtp": 2}


async def test_a_job_that_waits_for_its_retry_has_no_slot_and_comes_back_through_the_gate(
    dsn: str, connection: Connection
) -> None:
    await connection.execute(INSTRUMENT)
    order: list[tuple[int, int]] = []

    @job(limit=Limit(1), max_retries=1, retry=Fixed(0.2))
    async def pull(payload: int, job: JobContext) -> None:
        order.append((payload, job.attempt))
        if job.attempt == 1 and payload == 0:
            raise ValueError(payload)

    async with workers(1, dsn, [pull]) as client:
        ids = await client.enqueue_many([pull(number) for number in range(3)])
        for job_id in ids:
            assert (await ended(client, job_id)).status is JobStatus.COMPLETED
    assert order == [(0, 1), (1, 1), (2, 1), (0, 2)]
    assert await most_at_once(connection) == {"pull": 1}


async def test_a_cancelled_job_gives_its_slot_back_without_anybody_telling(dsn: str) -> None:
    ran: list[int] = []

    @job(limit=Limit(1))
    async def pull(payload: int) -> None:
        ran.append(payload)

    @job
    async def block() -> None:
        await gate.pass_through()

    gate = Gate()
    async with workers(1, dsn, [pull, block], concurrency=1) as client:
        await client.enqueue(block())
        await gate.entered.acquire()
        first, second = await client.enqueue_many([pull(1), pull(2)])
        await until(lambda: _is_ready(client, first))
        assert await client.store.held(second) == "limit:pull"
        assert await client.cancel(first)
        await until(lambda: _is_ready(client, second))
        gate.open()
        await ended(client, second)
    assert ran == [2]


async def _is_ready(client: JobsClient, job_id: UUID) -> bool:
    return await client.store.held(job_id) is None


async def test_an_interrupted_job_is_the_first_of_its_key_again(dsn: str) -> None:
    order: list[int] = []

    @job(limit=Limit(1))
    async def pull(payload: int) -> None:
        order.append(payload)
        if order == [0]:
            await asyncio.Event().wait()

    async with worker(dsn, [pull], shutdown_timeout=0) as plugin:
        await plugin.client.enqueue_many([pull(number) for number in range(3)])
        await until(lambda: _begun(order))
    async with workers(1, dsn, [pull]) as client:
        await drained(client)
    assert order == [0, 0, 1, 2]


async def _begun(order: list[int]) -> bool:
    return bool(order)


# In a time.


async def test_no_more_start_in_any_stretch_of_time_than_the_rate_says(dsn: str, connection: Connection) -> None:
    await connection.execute(INSTRUMENT)
    per = timedelta(seconds=0.3)

    @job(rate=Rate(5, per=per))
    async def call(payload: int) -> None: ...

    async with workers(2, dsn, [call]) as client:
        begun = time.monotonic()
        await client.enqueue_many([call(number) for number in range(23)])
        await drained(client)
        took = time.monotonic() - begun
    seen = await starts(connection, "call")
    assert len(seen) == 23
    assert too_close(seen, 5, per) == []
    assert took < 4 * 0.3 + 3, "and they do start when they may"


async def test_each_attempt_is_a_start(dsn: str, connection: Connection) -> None:
    await connection.execute(INSTRUMENT)
    per = timedelta(seconds=0.2)

    @job(rate=Rate(1, per=per), max_retries=3, retry=Fixed(0))
    async def call() -> None:
        raise ValueError

    async with workers(1, dsn, [call]) as client:
        row = await ended(client, await client.enqueue(call()))
    assert row.attempts == 4
    assert too_close(await starts(connection, "call"), 1, per) == []


async def test_a_limit_and_a_rate_hold_both(dsn: str, connection: Connection) -> None:
    await connection.execute(INSTRUMENT)
    per = timedelta(seconds=0.1)

    @job(limit=Limit(2, by="customer"), rate=Rate(3, per=per))
    async def call(payload: Order) -> None:
        await asyncio.sleep(0.02)

    async with workers(2, dsn, [call]) as client:
        await client.enqueue_many([call(Order(customer, n)) for n in range(8) for customer in "ab"])
        await drained(client)
    assert set((await most_at_once(connection)).values()) <= {1, 2}
    assert too_close(await starts(connection, "call"), 3, per) == []


# Whatever happens.


async def _process(dsn: str, log: Path) -> Process:
    words = (
        "-m",
        "litestar",
        "--app-dir",
        str(Path(__file__).parent.parent),
        "--app",
        "limits_app:create_app",
        "jobs",
        "worker",
    )
    with log.open("wb") as file:
        surroundings = {**os.environ, "LITESTAR_JOBS_DSN": dsn}
        return await create_subprocess_exec(
            sys.executable, *words, stdin=DEVNULL, stdout=file, stderr=file, env=surroundings
        )


async def test_processes_that_are_killed_leave_no_slot_taken_and_none_is_taken_twice(
    dsn: str, connection: Connection, store: Store, tmp_path: Path
) -> None:
    """Three processes share two limits. One is killed and replaced again and again, while it has jobs."""
    await connection.execute(INSTRUMENT)
    processes: dict[int, Process] = {}

    async def start() -> None:
        process = await _process(dsn, tmp_path / f"{len(processes)}.log")
        processes[process.pid] = process

    async def all_work() -> bool:
        alive = {pid for pid, process in processes.items() if process.returncode is None}
        return alive <= {row["pid"] for row in await connection.fetch("SELECT pid FROM litestar_jobs.worker")}

    async def busy() -> int | None:
        pid: int | None = await connection.fetchval(
            "SELECT pid FROM litestar_jobs.running r JOIN litestar_jobs.worker w ON w.id = r.worker_id "
            "WHERE expires_at > now() AND pid = ANY($1) LIMIT 1",
            [pid for pid, process in processes.items() if process.returncode is None],
        )
        return pid

    async def all_completed() -> bool:
        """Those that were lost twice are held for a moment, as suspects, so a queue may look drained before."""
        count = "SELECT count(*) FROM litestar_jobs.finished WHERE status = 'completed'"
        return bool(await connection.fetchval(count) == 200)

    try:
        for _ in range(3):
            await start()
        await until(all_work, 60)
        plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[pull], worker=None))
        async with running(Litestar(plugins=[plugin], logging_config=None)):
            for _ in range(2):
                await plugin.client.enqueue_many([pull(limits_app.Order(name)) for _ in range(50) for name in "ab"])
                victim = processes[await until(busy, 60)]
                victim.kill()
                await victim.wait()
                await start()
                await until(all_work, 60)
            await until(all_completed, 60)
    finally:
        for process in processes.values():
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await process.wait()
    assert await connection.fetchval("SELECT count(*) FROM litestar_jobs.failure WHERE error_type = 'WorkerLost'") > 0
    assert await most_at_once(connection) == {"pull:a": 2, "pull:b": 2}


async def test_100_000_jobs_behind_one_blocked_key_cost_the_others_nothing(
    direct_dsn: str, connection: Connection
) -> None:
    """Neither claims, nor admits at other gates, nor a look at the blocked one, nor promoting, with stale statistics."""
    ours = await asyncpg.connect(direct_dsn, server_settings=SETTINGS)
    store, gates = Store(ours.fetch, Statements("litestar_jobs")), Gates(ours.fetch, Statements("litestar_jobs"))
    await connection.execute(NO_AUTOVACUUM)
    worker_id = uuid7()
    await store.register(worker_id, "host", 1, ["default"], 3600)

    async def round_of_work() -> None:
        """Two jobs of a key that is free, from the gate to their end, and a look at the blocked one."""
        await wait_at(connection, Limited("free", None, 2), 2)
        await gates.admit([("limit", "free"), ("limit", "blocked")], [], None, 0, "{}")
        claimed = await store.claim({"default": 10}, {}, worker_id, "{}")
        assert len(claimed) == 2
        await store.complete(claimed)
        await gates.admit([], [job.id for job in claimed], BEGINNING, 100, "{}")
        await store.promote(100)

    async def looked_at() -> int:
        """Pages, by everybody so far. A time would say more of the machine."""
        for each in (ours, connection):
            await each.execute("SELECT pg_stat_force_next_flush()")
        pages: int = await connection.fetchval(
            "SELECT blks_hit + blks_read FROM pg_stat_database WHERE datname = current_database()"
        )
        return pages

    async def cost() -> float:
        before = await looked_at()
        for _ in range(20):
            await round_of_work()
        return (await looked_at() - before) / 20

    await wait_at(connection, Limited("blocked", None, 1), 2)
    await gates.admit([("limit", "blocked")], [], None, 0, "{}")
    (blocking,) = await store.claim({"default": 10}, {}, worker_id, "{}")
    await cost()
    before = await cost()
    for _ in range(10):
        await wait_at(connection, Limited("blocked", None, 1), 10_000)
    after = await cost()
    assert after < before * 1.5, f"{before} pages before, {after} behind them"
    await store.complete([blocking])
    await gates.admit([], [blocking.id], None, 0, "{}")
    assert len(await store.claim({"default": 10}, {}, worker_id, "{}")) == 1
    await ours.close()


async def test_without_limits_no_statement_is_about_them(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    async def admit(*arguments: object) -> list[object]:
        asked.append(arguments)
        return []

    @job
    async def plain() -> None: ...

    @job(limit=Limit(1))
    async def limited() -> None: ...

    monkeypatch.setattr(Gates, "admit", admit)
    async with workers(1, dsn, [plain]) as client:
        await client.enqueue_many([plain() for _ in range(10)])
        await drained(client)
    assert asked == []
    async with workers(1, dsn, [limited]):
        await until(lambda: _true(asked))


async def _true(asked: list[object]) -> bool:
    return bool(asked)


async def test_a_worker_that_no_notification_reaches_finds_jobs_at_gates_where_it_promotes(
    dsn: str, connection: Connection
) -> None:
    @job(name="note")
    async def note() -> None: ...

    async with workers(1, dsn, [note], poll_interval=0.2) as client:
        ids = await wait_at(connection, Limited("any", None, 1), 3)
        for job_id in ids:
            await ended(client, job_id)


# The ways in.


@job(limit=Limit(1), rate=Rate(1000, per=1))
async def both(payload: int) -> None: ...


@pytest.mark.parametrize("how", ["alone", "together", "many", "later", *ALL])
async def test_every_way_in_leads_to_the_gate_and_wakes_who_admits(dsn: str, connection: Connection, how: str) -> None:
    await connection.execute(INSTRUMENT)
    async with workers(1, dsn, [both]) as client:
        match how:
            case "alone":
                ids: Sequence[UUID] = [await client.enqueue(both(1))]
            case "together":
                ids = await asyncio.gather(*(client.enqueue(both(number)) for number in range(10)))
            case "many":
                ids = await client.enqueue_many([both(number) for number in range(10)])
            case "later":
                ids = [await client.enqueue(both(1, delay=0.05))]
            case _:
                async with opened(how, dsn) as own:
                    ids = [await client.enqueue_with(own.connection, both(1))]
                    await own.commit()
        for job_id in ids:
            await ended(client, job_id)
    assert await most_at_once(connection) == {"both": 1}
    assert len(await starts(connection, "both")) == len(ids)


async def test_a_periodic_job_has_its_limit_too(dsn: str, connection: Connection) -> None:
    await connection.execute(INSTRUMENT)

    @job(schedules=[Every(1, name=name) for name in "abc"], limit=Limit(1))
    async def tick() -> None:
        await asyncio.sleep(0.05)

    async def ticked() -> bool:
        return bool(await connection.fetchval("SELECT count(*) >= 4 FROM litestar_jobs.finished"))

    async with workers(1, dsn, [tick]):
        await until(ticked)
    assert await most_at_once(connection) == {"tick": 1}


async def test_a_retried_job_goes_through_the_gate_again(dsn: str, connection: Connection) -> None:
    await connection.execute(INSTRUMENT)

    @job(limit=Limit(1), max_retries=0)
    async def fail(payload: int) -> None:
        raise ValueError

    async with workers(1, dsn, [fail]) as client:
        ids = await client.enqueue_many([fail(number) for number in range(5)])
        await drained(client)
        assert await client.retry(ids[0])
        await ended(client, ids[0])
        assert await client.retry_all(JobFilter(status="failed")) == 5
        await drained(client)
    assert await most_at_once(connection) == {"fail": 1}
    assert await connection.fetchval("SELECT count(*) FROM seen WHERE what = 'start'") == 11


async def test_a_deleted_job_leaves_nothing_behind(dsn: str, connection: Connection) -> None:
    async with workers(1, dsn, [both]) as client:
        await client.enqueue_many([both(number) for number in range(5)])
        await drained(client)
        assert await client.delete_all(JobFilter.everything()) == 5
        assert await connection.fetchval("SELECT count(*) FROM litestar_jobs.limited") == 0


async def test_the_numbers_are_those_of_the_code_that_runs_the_jobs(dsn: str, connection: Connection) -> None:
    """A backlog goes by the new numbers when workers with the new code have taken over."""
    await connection.execute(INSTRUMENT)

    def code(concurrency: int) -> Job[int, None]:
        @job(name="pull", limit=Limit(concurrency))
        async def pull(payload: int) -> None:
            await asyncio.sleep(0.02)

        return pull

    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[code(5)], worker=None))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        await plugin.client.enqueue_many([code(5)(number) for number in range(20)])
    async with workers(1, dsn, [code(2)]) as client:
        await drained(client)
    assert await most_at_once(connection) == {"pull": 2}


# Definitions.


ANY_LIMIT: Any = Limit
"""For those who do not check types."""


class Weekday(Enum):
    MONDAY = "mon"


class Address(TypedDict):
    city: str


@dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("limit", "payload", "key"),
    [
        (Limit(1), Order("a"), "note"),
        (Limit(1, key="all"), Order("a"), "all"),
        (Limit(1, by="customer"), Order("a b"), "note:a b"),
        (Limit(1, by="number"), Order("a", 5), "note:5"),
        (Limit(1, key="all", by=lambda order: order.customer.upper()), Order("a"), "all:A"),
        (Limit(1, by=lambda order: (order.customer, order.number)), Order("a", 5), 'note:["a",5]'),
        (Limit(1, by="x"), Point(7), "note:7"),
        (Limit(1, by="city"), Address(city="Bern"), "note:Bern"),
        (Limit(1, by=lambda day: day), Weekday.MONDAY, "note:mon"),
    ],
)
def test_a_key_is_the_name_of_the_job_or_one_of_its_own_and_behind_it_a_value_of_the_payload(
    limit: Limit, payload: Any, key: str
) -> None:
    async def note(payload: Any) -> None: ...

    note.__annotations__["payload"] = type(payload) if not isinstance(payload, dict) else Address
    request = job(name="note", limit=limit, rate=Rate(3, per=timedelta(minutes=1), key=limit.key, by=limit.by))(note)(
        payload
    )
    assert request.limited == Limited(key, key, 1, 3, 60.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (lambda: {"limit": Limit(0)}, "concurrency of Limit must be a whole number from 1"),
        (lambda: {"limit": Limit(True)}, "concurrency of Limit must be a whole number"),
        (lambda: {"rate": Rate(0, per=1)}, "count of Rate must be a whole number from 1"),
        (lambda: {"rate": Rate(1, per=0)}, "per of Rate must lie between"),
        (lambda: {"rate": Rate(1, per=timedelta(days=400))}, "per of Rate must lie between"),
        (lambda: {"limit": Limit(1, key="")}, "key of Limit must be text of 1 to 100 characters"),
        (lambda: {"limit": Limit(1, key="a\nb")}, "must not contain control characters"),
        (lambda: {"limit": ANY_LIMIT(1, key=lambda order: order)}, "a function of the payload is by="),
        (lambda: {"limit": ANY_LIMIT(1, by=5)}, "by of Limit, unless it is a function"),
        (lambda: {"limit": Limit(1, by="custommer")}, "no such field: it has customer, number"),
        (lambda: {"limit": 5}, r"limit must be a Limit, such as Limit\(2\), not 5"),
        (lambda: {"rate": Limit(5)}, r"rate must be a Rate, such as Rate\(60, per=60\)"),
    ],
)
def test_what_makes_no_sense_is_an_error_at_definition(options: Callable[[], dict[str, Any]], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):

        @job(**options())
        async def bill(payload: Order) -> None: ...


def test_by_needs_a_payload_and_a_field_a_payload_with_fields() -> None:
    with pytest.raises(DefinitionError, match="by='customer', but the job takes no payload"):

        @job(limit=Limit(1, by="customer"))
        async def bare() -> None: ...

    with pytest.raises(DefinitionError, match="the payload, int, has no such field: it has no fields"):

        @job(rate=Rate(1, per=1, by="customer"))
        async def count(payload: int) -> None: ...


def test_a_key_that_cannot_be_made_is_an_error_at_the_call() -> None:
    @job(limit=Limit(1, by=lambda order: {}[order.customer]))
    async def bill(payload: Order) -> None: ...

    with pytest.raises(DefinitionError, match="cannot be made of its payload: KeyError") as caught:
        bill(Order("a"))
    assert isinstance(caught.value.__cause__, KeyError)

    @job(limit=Limit(1, by="customer"))
    async def ship(payload: Order) -> None: ...

    with pytest.raises(DefinitionError, match="must be text of 1 to 400 characters"):
        ship(Order("a" * 400))
    with pytest.raises(DefinitionError, match="must not contain control characters"):
        ship(Order("a\tb"))


def test_jobs_that_share_a_key_agree_on_its_numbers() -> None:
    @job(limit=Limit(2, key="smtp"))
    async def one() -> None: ...

    @job(limit=Limit(3, key="smtp"))
    async def two() -> None: ...

    @job(rate=Rate(3, per=1, key="smtp"))
    async def three() -> None: ...

    with pytest.raises(
        ConfigurationError, match="jobs share the limit 'smtp', but have different numbers for it: 2 and 3"
    ):
        Litestar(plugins=[JobsPlugin(JobsConfig(dsn="postgresql://nowhere/none", jobs=[one, two], worker=None))])
    Litestar(plugins=[JobsPlugin(JobsConfig(dsn="postgresql://nowhere/none", jobs=[one, three], worker=None))])


# Beside other features.


async def test_a_unique_job_that_is_replaced_waits_at_the_gate_of_what_it_became(
    dsn: str, connection: Connection
) -> None:
    await connection.execute(INSTRUMENT)

    @job(limit=Limit(1, by="customer"), unique=Unique(by=lambda order: order.number, on_conflict="replace"))
    async def bill(payload: Order) -> None: ...

    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[bill], worker=None))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        client = plugin.client
        first = await client.enqueue(bill(Order("a", 1)))
        assert await client.store.held(first) == "limit:bill:a"
        assert await client.enqueue(bill(Order("b", 1))) == first
        assert await client.store.held(first) == "limit:bill:b"
        assert await client.enqueue(bill(Order("c", 1), delay=0.05)) == first
        assert await client.store.held(first) is None
    async with workers(1, dsn, [bill]) as client:
        row = await ended(client, first)
    assert row.payload == {"customer": "c", "number": 1}
    assert await most_at_once(connection) == {"bill:c": 1}


async def test_a_running_job_that_is_cancelled_makes_room(dsn: str) -> None:
    gate = Gate()
    ran: list[int] = []

    @job(limit=Limit(1))
    async def pull(payload: int) -> None:
        ran.append(payload)
        if payload == 1:
            await gate.pass_through()

    async with workers(1, dsn, [pull]) as client:
        first, second = await client.enqueue_many([pull(1), pull(2)])
        await gate.entered.acquire()
        assert await client.cancel(first)
        await ended(client, second)
    assert ran == [1, 2]


def test_what_follows_a_failure_has_no_limit() -> None:
    @job(limit=Limit(1))
    async def tell(payload: FailedJob) -> None: ...

    with pytest.raises(DefinitionError, match="which has unique, limit, rate"):

        @job(on_failure=tell)
        async def work() -> None: ...
