"""Workflows: many jobs as one. What is promised of their steps, one promise a test."""

import asyncio
import os
import random
import signal
import sys
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeAlias
from uuid import UUID

import asyncpg
import pytest
from advanced_alchemy.extensions.litestar import SQLAlchemyAsyncConfig, SQLAlchemyPlugin
from hypothesis import given, settings
from hypothesis import strategies as st
from litestar import Litestar
from litestar.di import NamedDependency
from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from cli_app import quick
from litestar_jobs import (
    Fail,
    Finished,
    Job,
    JobContext,
    JobFilter,
    Jobs,
    JobsClient,
    JobsConfig,
    JobsPlugin,
    Never,
    Unique,
    WorkerConfig,
    Workflow,
    WorkflowRow,
    chain,
    course,
    group,
    job,
)
from litestar_jobs.course import Course
from litestar_jobs.database import Database, Link
from litestar_jobs.errors import ConnectionRefused, DefinitionError, EnqueueError, JobCancelled, PayloadRefused
from litestar_jobs.fit import misfit
from litestar_jobs.news import Bell
from litestar_jobs.outcome import Settlement
from litestar_jobs.records import Claimed, Walked
from litestar_jobs.store import Statements, Store
from litestar_jobs.telemetry import Event, NoTracing, StepSkipped
from litestar_jobs.testing import drained, running, until
from litestar_jobs.trace import current_trace_id
from litestar_jobs.workflow import RunWhen
from litestar_jobs.workflows import Workflows

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

SQL = Statements("litestar_jobs")
WORKER = UUID(int=1)
NO_POLLING = 3600.0


@asynccontextmanager
async def worker(dsn: str, jobs: Sequence[Job[Any, Any]], *plugins: Any, **settings: Any) -> AsyncIterator[JobsClient]:
    config = WorkerConfig(**{"poll_interval": NO_POLLING} | settings)
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=jobs, worker=config))
    async with running(Litestar(plugins=[plugin, *plugins], logging_config=None)):
        yield plugin.client


@asynccontextmanager
async def nobody(dsn: str) -> AsyncIterator[JobsClient]:
    """An application that runs no jobs."""
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[], worker=None))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        yield plugin.client


async def over(client: JobsClient, workflow_id: UUID, timeout: float = 10.0) -> WorkflowRow:
    """The workflow, once all its steps have ended."""
    seen: WorkflowRow | None = None

    async def look() -> WorkflowRow | None:
        nonlocal seen
        seen = await client.workflows.get(workflow_id)
        assert seen is not None
        return None if seen.status == "running" else seen

    return await until(look, timeout, lambda: f"it is {seen and statuses(seen)}")


def statuses(row: WorkflowRow) -> dict[str, str]:
    return {step.name: step.status for step in row.steps}


class Order(Struct):
    number: int


class Receipt(Struct):
    number: int
    paid: bool = True


@job
async def charge(payload: Order) -> Receipt:
    return Receipt(payload.number)


@job
async def ship(payload: Receipt) -> str:
    return f"parcel {payload.number}"


@job
async def note(payload: str) -> str:
    return payload


@job(retry=Never())
async def fail() -> None:
    raise LookupError("no such order")


@job(result=False)
async def nothing() -> None:
    pass


# Results flow.


async def test_each_result_of_a_chain_is_the_next_ones_payload(dsn: str) -> None:
    async with worker(dsn, [charge, ship, note]) as jobs:
        started = await jobs.workflows.start(chain(charge(Order(7)), ship, note))
        assert await jobs.result(started.last, of=note, timeout=10) == "parcel 7"
        row = await over(jobs, started.id)
    assert [(step.name, step.status, step.after) for step in row.steps] == [
        ("charge", "completed", []),
        ("ship", "completed", ["charge"]),
        ("note", "completed", ["ship"]),
    ]
    assert [step.job and step.job.payload for step in row.steps] == [
        {"number": 7},
        {"number": 7, "paid": True},
        "parcel 7",
    ]
    assert [step.id for step in row.steps] == list(started.steps.values())


async def test_the_callback_of_a_group_hears_how_all_ended_also_when_some_failed(dsn: str) -> None:
    heard: list[list[Finished]] = []

    @job
    async def then(payload: list[Finished]) -> int:
        heard.append(payload)
        return len(payload)

    async with worker(dsn, [charge, fail, note, then]) as jobs:
        started = await jobs.workflows.start(group([note("a"), fail(), note("b"), charge(Order(1))], then=then))
        assert await jobs.result(started.last, of=then, timeout=10) == 4
        row = await over(jobs, started.id)
    assert [(end.name, end.job_type, end.status, end.result, end.error) for end in heard[0]] == [
        ("note", "note", "completed", "a", None),
        ("fail", "fail", "failed", None, "LookupError: no such order"),
        ("note 2", "note", "completed", "b", None),
        ("charge", "charge", "completed", {"number": 1, "paid": True}, None),
    ]
    assert len(heard) == 1
    assert row.status == "failed"


async def test_a_diamond_joins_and_its_last_step_asks_for_the_results_before_it(dsn: str) -> None:
    told: dict[str, Any] = {}

    @job
    async def join(*, job: JobContext, jobs: Jobs) -> None:
        told.update({name: end.result for name, end in (await jobs.workflows.results_of(job)).items()})

    order = Workflow("diamond")
    top = order.add("top", note("top"))
    left, right = order.add("left", note, after=top), order.add("right", note("right"), after=top)
    order.add("bottom", join, after=[left, right])
    async with worker(dsn, [note, join]) as jobs:
        row = await over(jobs, (await jobs.workflows.start(order)).id)
    assert (row.status, row.name) == ("completed", "diamond")
    assert told == {"left": "top", "right": "right"}


async def test_a_result_that_is_null_is_handed_over_too(dsn: str) -> None:
    @job
    async def perhaps() -> str | None:
        return None

    @job
    async def take(payload: str | None) -> bool:
        return payload is None

    async with worker(dsn, [perhaps, take]) as jobs:
        started = await jobs.workflows.start(chain(perhaps(), take))
        assert await jobs.result(started.last, of=take, timeout=10) is True


async def test_results_that_are_too_large_together_fail_the_one_that_takes_them_and_nothing_else(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @job
    async def then(payload: list[Finished]) -> None:
        raise AssertionError

    monkeypatch.setattr(course, "MOST_HANDED_OVER", 20)
    async with worker(dsn, [note, then]) as jobs:
        started = await jobs.workflows.start(group([note("x" * 10), note("y" * 10)], then=then))
        row = await over(jobs, started.id)
    assert statuses(row) == {"note": "completed", "note 2": "completed", "then": "failed"}
    last = row.steps[-1]
    assert last.error is not None
    assert "PayloadError" in last.error
    assert last.job is not None
    assert last.job.payload == "the results before this step have 24 bytes together, and at most 20 are handed over"


# What fails, and what is cancelled.


def order_of(*steps: tuple[str, Any, list[str]], ended: Sequence[str] = ()) -> Workflow:
    workflow = Workflow("order")
    for name, what, after in steps:
        workflow.add(name, what, after=after, run_when="ended" if name in ended else "completed")
    return workflow


async def test_steps_that_need_one_that_failed_are_cancelled_and_so_on_and_the_others_run(dsn: str) -> None:
    happened: list[StepSkipped] = []

    def hear(event: Event) -> None:
        if isinstance(event, StepSkipped):
            happened.append(event)

    workflow = order_of(
        ("pay", fail(), []),
        ("pack", note("pack"), []),
        ("ship", note("ship"), ["pay", "pack"]),
        ("tell", note("tell"), ["ship"]),
        ("count", note("count"), ["pack"]),
        ("tidy", note("tidy"), ["tell", "count"]),
        ("report", nothing(), ["tidy"]),
        ended=["tidy"],
    )
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[fail, note, nothing], hooks=[hear]))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        started = await plugin.client.workflows.start(workflow)
        row = await over(plugin.client, started.id)
        with pytest.raises(JobCancelled):
            await plugin.client.result(started.steps["tell"], timeout=10)
        told = await plugin.client.get(started.steps["tell"])
        assert told is not None
        assert told.last_error == "StepCancelled: step 'ship' was cancelled"
    assert {step.name: (step.status, step.error) for step in row.steps} == {
        "pay": ("failed", "LookupError: no such order"),
        "pack": ("completed", None),
        "ship": ("cancelled", "step 'pay' failed"),
        "tell": ("cancelled", "step 'ship' was cancelled"),
        "count": ("completed", None),
        "tidy": ("completed", None),
        "report": ("completed", None),
    }
    assert row.status == "failed"
    assert {(event.job_id, event.reason) for event in happened} == {
        (started.steps["ship"], "step 'pay' failed"),
        (started.steps["tell"], "step 'ship' was cancelled"),
    }
    assert {event.trace_id for event in happened} == {row.trace_id}


async def test_a_step_that_is_retried_by_hand_and_completes_lets_those_run_that_were_cancelled_because_of_it(
    dsn: str,
) -> None:
    shop_is_open = False

    @job(retry=Never())
    async def pay(payload: Order) -> Receipt:
        if not shop_is_open:
            raise Fail("closed")
        return Receipt(payload.number)

    workflow = Workflow("order")
    workflow.add("pay", pay(Order(3)))
    workflow.add("ship", ship, after="pay")
    workflow.add("tell", note, after="ship")
    workflow.add("log", nothing(), after=["tell"], run_when="ended")
    async with worker(dsn, [pay, ship, note, nothing]) as jobs:
        started = await jobs.workflows.start(workflow)
        first = await over(jobs, started.id)
        assert statuses(first) == {"pay": "failed", "ship": "cancelled", "tell": "cancelled", "log": "completed"}
        shop_is_open = True
        assert await jobs.retry(started.steps["pay"])

        async def completed() -> WorkflowRow | None:
            row = await jobs.workflows.get(started.id)
            return row if row and row.status == "completed" else None

        row = await until(completed)
    assert [step.job and step.job.result for step in row.steps] == [
        {"number": 3, "paid": True},
        "parcel 3",
        "parcel 3",
        None,
    ]
    assert [step.error for step in row.steps][1:] == [None, None, None]
    assert row.steps[3].job == first.steps[3].job, "what ran because all had ended does not run again"


async def test_a_step_that_was_cancelled_by_hand_stays_so_when_the_one_before_it_is_retried(dsn: str) -> None:
    outcome = "fail"

    @job(retry=Never())
    async def pay() -> None:
        if outcome == "fail":
            raise Fail("closed")

    async with worker(dsn, [pay, nothing]) as jobs:
        started = await jobs.workflows.start(order_of(("pay", pay(delay=0.5), []), ("ship", nothing(), ["pay"])))
        assert await jobs.cancel(started.steps["ship"])
        await over(jobs, started.id)
        outcome = "complete"
        assert await jobs.retry(started.steps["pay"])

        async def completed() -> bool:
            row = await jobs.workflows.get(started.id)
            return row is not None and row.steps[0].status == "completed"

        await until(completed)
        await asyncio.sleep(0)
        row = await over(jobs, started.id)
    assert statuses(row) == {"pay": "completed", "ship": "cancelled"}


async def test_a_step_that_is_retried_by_hand_runs_whatever_became_of_those_before_it(dsn: str) -> None:
    async with worker(dsn, [fail, note]) as jobs:
        started = await jobs.workflows.start(
            order_of(("pay", fail(), []), ("ship", note("ship"), ["pay"]), ("tell", note("tell"), ["ship"]))
        )
        await over(jobs, started.id)
        assert await jobs.retry(started.steps["ship"])

        async def told() -> bool:
            row = await jobs.workflows.get(started.id)
            return row is not None and statuses(row) == {"pay": "failed", "ship": "completed", "tell": "completed"}

        await until(told)


async def test_a_cancelled_workflow_runs_nothing_more_not_even_what_needs_no_success(dsn: str) -> None:
    entered = asyncio.Event()

    @job
    async def wait() -> None:
        entered.set()
        await asyncio.Event().wait()

    workflow = order_of(
        ("runs", wait(), []),
        ("later", note("x", delay=3600), []),
        ("waits", note("x"), ["runs"]),
        ("then", nothing(), ["waits", "later"]),
        ended=["then"],
    )
    async with worker(dsn, [wait, note, nothing]) as jobs:
        started = await jobs.workflows.start(workflow)
        await entered.wait()
        assert await jobs.workflows.cancel(started.id) == 4
        assert await jobs.workflows.cancel(started.id) == 0
        row = await over(jobs, started.id)
    assert set(statuses(row).values()) == {"cancelled"}
    assert row.status == "cancelled"


async def test_cancelling_steps_leads_on_at_once_one_by_one_and_by_filter(dsn: str) -> None:
    async with nobody(dsn) as jobs:
        for way in ("one", "many"):
            started = await jobs.workflows.start(
                order_of(
                    ("a", note("a"), []),
                    ("b", note("b"), ["a"]),
                    ("c", note("c"), ["b"]),
                    ("d", nothing(), ["c"]),
                    ended=["d"],
                )
            )
            if way == "one":
                assert await jobs.cancel(started.steps["a"])
            else:
                assert await jobs.cancel_all(JobFilter(ids=[started.steps["a"]])) == 1
            row = await jobs.workflows.get(started.id)
            assert row is not None
            assert statuses(row) == {"a": "cancelled", "b": "cancelled", "c": "cancelled", "d": "pending"}


async def test_delays_of_steps_count_from_when_they_wait_no_more(dsn: str) -> None:
    moment = datetime.now(UTC) + timedelta(hours=1)
    async with worker(dsn, [note]) as jobs:
        started = await jobs.workflows.start(
            order_of(
                ("a", note("a", delay=0.3), []),
                ("b", note("b", delay=0.3), ["a"]),
                ("c", note("c", run_at=moment), ["b"]),
            )
        )

        async def waits() -> WorkflowRow | None:
            row = await jobs.workflows.get(started.id)
            return row if row and row.steps[2].status == "pending" else None

        a, b, c = [step.job for step in (await until(waits)).steps]
    assert a is not None
    assert b is not None
    assert c is not None
    assert a.finished_at is not None
    assert b.started_at is not None
    assert 0.3 <= (b.started_at - a.finished_at).total_seconds() < 2
    assert c.run_at == moment


async def test_a_step_may_be_moved_while_it_waits(dsn: str) -> None:
    async with worker(dsn, [note], queues=["default", "other"]) as jobs:
        started = await jobs.workflows.start(order_of(("a", note("a", delay=3600), []), ("b", note("b"), ["a"])))
        assert await jobs.move_all(JobFilter(ids=[started.steps["b"]]), queue="other") == 1
        row = await jobs.workflows.get(started.id)
        assert row is not None
        assert (row.steps[1].status, row.steps[1].job and row.steps[1].job.queue) == ("waiting", "other")
        await jobs.store.wake([])
        assert await jobs.cancel(started.steps["a"])
        assert statuses(await over(jobs, started.id))["b"] == "cancelled"


# In somebody's transaction, in a trace.


async def test_a_workflow_is_started_with_the_callers_transaction_or_not_at_all(
    dsn: str, connection: Connection
) -> None:
    alchemy = SQLAlchemyAsyncConfig(connection_string=dsn.replace("postgresql://", "postgresql+asyncpg://"))
    async with worker(dsn, [charge, ship], SQLAlchemyPlugin(config=alchemy)) as jobs:
        ids: list[UUID] = []
        for commits in (True, False):
            async with alchemy.get_session() as session:
                started = await jobs.workflows.start_with(session, chain(charge(Order(1)), ship))
                ids.append(started.id)
                await (session.commit() if commits else session.rollback())
            own = await asyncpg.connect(dsn)
            transaction = own.transaction()
            await transaction.start()
            ids.append((await jobs.workflows.start_with(own, chain(charge(Order(2)), ship))).id)
            await (transaction.commit() if commits else transaction.rollback())
            await own.close()
        for committed in ids[:2]:
            assert (await over(jobs, committed)).status == "completed"
        assert [await jobs.workflows.get(rolled_back) for rolled_back in ids[2:]] == [None, None]
    for table, rows in (("workflow", 2), ("step", 4), ("edge", 2), ("job", 4)):
        assert await connection.fetchval(f"SELECT count(*) FROM litestar_jobs.{table}") == rows


async def test_start_with_refuses_what_enqueue_with_refuses(dsn: str) -> None:
    async with nobody(dsn) as jobs:
        own = await asyncpg.connect(dsn)
        with pytest.raises(ConnectionRefused, match="not in a transaction"):
            await jobs.workflows.start_with(own, chain(nothing()))
        await own.close()


async def test_all_steps_have_the_trace_of_the_start_and_what_they_enqueue_is_no_step(dsn: str) -> None:
    seen: list[tuple[str, str | None, UUID | None]] = []

    @job
    async def look(*, job: JobContext, jobs: Jobs) -> None:
        seen.append((job.job_type, job.trace_id, job.workflow))
        if job.workflow is not None:
            await jobs.enqueue(other())

    @job
    async def other(*, job: JobContext, jobs: Jobs) -> None:
        seen.append((job.job_type, job.trace_id, job.workflow))
        assert await jobs.workflows.results_of(job) == {}

    async with worker(dsn, [look, other]) as jobs:
        current_trace_id.set("trace-7")
        with_trace = await jobs.workflows.start(chain(look(), look()))
        await over(jobs, with_trace.id)
        await drained(jobs)
        assert sorted(seen, key=str) == sorted(
            [("look", "trace-7", with_trace.id)] * 2 + [("other", "trace-7", None)] * 2, key=str
        )
        seen.clear()
        current_trace_id.set(None)
        without = await over(jobs, (await jobs.workflows.start(chain(look(), look()))).id)
        await drained(jobs)
    assert without.trace_id is not None
    assert {trace for _, trace, _ in seen} == {without.trace_id}


# Handlers that finish in their session's transaction, crashes, and many at once.


async def test_steps_that_finish_in_their_sessions_transaction_lead_on(dsn: str, connection: Connection) -> None:
    @job
    async def write(payload: int, db_session: NamedDependency[AsyncSession]) -> int:
        await db_session.execute(text("INSERT INTO written VALUES (:n)"), {"n": payload})
        return payload + 1

    await connection.execute("CREATE TABLE written (n int)")
    alchemy = SQLAlchemyAsyncConfig(connection_string=dsn.replace("postgresql://", "postgresql+asyncpg://"))
    async with worker(dsn, [write], SQLAlchemyPlugin(config=alchemy)) as jobs:
        started = await jobs.workflows.start(chain(write(1), write, write))
        assert await jobs.result(started.last, of=write, timeout=10) == 4
    assert [row["n"] for row in await connection.fetch("SELECT n FROM written ORDER BY n")] == [1, 2, 3]


async def test_an_end_that_led_to_nothing_is_found_by_a_worker_that_looks(dsn: str, store: Store) -> None:
    """A process died between the end and what follows, or is older than workflows; or its job was deleted before."""
    async with nobody(dsn) as jobs:
        plain = await jobs.workflows.start(order_of(("a", nothing(), []), ("b", nothing(), ["a"])))
        retried = await jobs.workflows.start(order_of(("a", nothing(), []), ("b", nothing(), ["a"])))
        deleted = await jobs.workflows.start(order_of(("a", nothing(), []), ("b", nothing(), ["a"])))
        assert await jobs.cancel(retried.steps["a"])
        assert await jobs.retry(retried.steps["a"])
    for _ in range(3):
        await store.register(UUID(int=1), "host", 1, ["default"], 60)
        claimed = await store.claim({"default": 10}, {}, UUID(int=1), "{}")
        await store.complete(claimed)
        await store.deregister(UUID(int=1))
    assert await store.delete_many([deleted.steps["a"]], ["completed"])
    async with worker(dsn, [nothing]) as jobs:
        assert statuses(await over(jobs, plain.id)) == {"a": "completed", "b": "completed"}
        assert statuses(await over(jobs, retried.id)) == {"a": "completed", "b": "completed"}
        assert statuses(await over(jobs, deleted.id)) == {"a": "cancelled", "b": "cancelled"}


async def test_a_worker_that_is_killed_between_an_end_and_what_follows_is_followed_by_another(
    dsn: str, connection: Connection, tmp_path: Path
) -> None:
    process = await start_process(dsn, tmp_path / "log")
    try:
        async with nobody(dsn) as jobs:
            started = await jobs.workflows.start(order_of(("a", quick(), []), ("b", quick(), ["a"])))
            async with connection.transaction():  # whoever leads on waits for this
                await connection.execute("SELECT FROM litestar_jobs.workflow FOR UPDATE")

                async def ended() -> bool:
                    row = await jobs.get(started.steps["a"])
                    return row is not None and row.status == "completed"

                await until(ended, 60)
                process.send_signal(signal.SIGKILL)
                assert await process.wait() == -signal.SIGKILL
            row = await jobs.workflows.get(started.id)
            assert row is not None
            assert statuses(row) == {"a": "completed", "b": "waiting"}
    finally:
        if process.returncode is None:
            process.kill()
    async with worker(dsn, [quick], lease=1) as jobs:
        assert (await over(jobs, started.id)).status == "completed"


async def start_process(dsn: str, log: Path) -> Process:
    words = (
        "-m",
        "litestar",
        "--app-dir",
        str(Path(__file__).parent.parent),
        "--app",
        "cli_app:create_app",
        "jobs",
        "worker",
    )
    with log.open("wb") as file:
        return await create_subprocess_exec(
            sys.executable,
            *words,
            stdin=DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, "LITESTAR_JOBS_DSN": dsn},
        )


async def test_a_thousand_steps_that_end_at_several_workers_at_once_lead_on_once(dsn: str) -> None:
    ran: list[int] = []

    @job
    async def part(payload: int) -> int:
        await asyncio.sleep(0)
        return payload

    @job
    async def then(payload: list[Finished]) -> int:
        ran.append(sum(end.result for end in payload))
        return ran[-1]

    async with (
        worker(dsn, [part, then], concurrency=20) as jobs,
        worker(dsn, [part, then], concurrency=20),
        worker(dsn, [part, then], concurrency=20),
    ):
        started = [await jobs.workflows.start(group([part(n) for n in range(1000)], then=then)) for _ in range(2)]
        for each in started:
            assert await jobs.result(each.last, of=then, timeout=60) == 499500
        await drained(jobs)
    assert ran == [499500] * 2


async def test_ends_of_the_same_workflows_that_are_followed_at_once_count_once_and_wait_for_each_other_in_no_circle(
    dsn: str, store: Store
) -> None:
    """Each of many followers leads on from overlapping ends of several workflows, in orders of their own."""
    links = [Link(Database(dsn)) for _ in range(8)]
    async with nobody(dsn) as jobs:
        started = [
            await jobs.workflows.start(
                group([nothing() for _ in range(40)], then=nothing())
                if n % 2
                else chain(nothing(), nothing(), nothing())
            )
            for n in range(10)
        ]
        await store.register(UUID(int=1), "host", 1, ["default"], 600)
        claimed = await store.claim({"default": 1000}, {}, UUID(int=1), "{}")
        assert await store.complete(claimed) == {each.id for each in claimed}
        ids = [each.id for each in claimed]

        async def follow(link: Link, seed: int) -> int:
            courses, free, order = Course(link, Statements("litestar_jobs")), 0, random.Random(seed)
            for _ in range(30):
                free += len((await courses.follow(order.sample(ids, 40))).free)
            return free + len((await courses.follow(ids)).free)

        counts = await asyncio.gather(*(follow(link, seed) for seed, link in enumerate(links)))
        assert sum(counts) == 10
        rows = [await jobs.workflows.get(each.id) for each in started]
        assert all(row and row.steps[-1].status == ("pending" if n % 2 else "waiting") for n, row in enumerate(rows))
    for link in links:
        await link.close()


async def test_an_end_whose_answer_nobody_heard_leads_on(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = True

    async def unheard(self: Store, jobs: Sequence[Any]) -> set[UUID]:
        nonlocal silent
        moved = await complete(self, jobs)
        if silent:
            silent = False
            raise ConnectionResetError("nobody heard it")
        return moved

    complete = Store.complete
    monkeypatch.setattr(Store, "complete", unheard)
    async with worker(dsn, [nothing]) as jobs:
        started = await jobs.workflows.start(chain(nothing(), nothing()))
        assert (await over(jobs, started.id)).status == "completed"
    assert not silent


async def test_a_step_that_is_lost_with_its_process_for_the_last_time_cancels_those_that_need_it(
    dsn: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def finds_nothing(*_: object) -> tuple[Walked, list[UUID]]:
        return Walked(0, None, 0), []

    monkeypatch.setattr(Course, "untold", finds_nothing)
    async with nobody(dsn) as jobs:
        started = await jobs.workflows.start(order_of(("a", nothing(max_retries=0), []), ("b", nothing(), ["a"])))
    await store.register(UUID(int=1), "host", 1, ["default"], 600)
    assert await store.claim({"default": 1}, {}, UUID(int=1), "{}")
    await store.deregister(UUID(int=1))
    async with worker(dsn, [nothing], lease=1) as jobs:
        row = await over(jobs, started.id)
    assert statuses(row) == {"a": "failed", "b": "cancelled"}
    assert row.steps[1].error == "step 'a' failed"


async def test_a_step_that_another_program_has_broken_keeps_no_other_from_going_on(
    dsn: str, connection: Connection, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    async with nobody(dsn) as jobs:
        broken, *others = [await jobs.workflows.start(chain(nothing(), nothing())) for _ in range(5)]
    await connection.execute(
        "INSERT INTO litestar_jobs.ready SELECT id, run_at, priority, attempts, 'elsewhere' FROM litestar_jobs.held WHERE id = $1",
        broken.last,
    )
    await store.register(WORKER, "host", 1, ["default"], 600)
    claimed = await store.claim({"default": 10}, {}, WORKER, "{}")
    assert len(await store.complete(claimed)) == 5
    async with worker(dsn, [nothing]) as jobs:
        for other in others:
            assert (await over(jobs, other.id)).status == "completed"
    assert f"what waits for job {broken.steps['nothing']} cannot go on" in caplog.text
    await connection.execute("DELETE FROM litestar_jobs.ready")


async def test_cancelling_a_workflow_waits_for_whoever_leads_on_from_it(dsn: str, connection: Connection) -> None:
    """Between looking at the steps and cancelling them none may have been let go."""
    async with nobody(dsn) as jobs:
        started = await jobs.workflows.start(chain(nothing(), nothing()))
        async with connection.transaction():
            await connection.execute("SELECT FROM litestar_jobs.workflow FOR UPDATE")
            cancelling = asyncio.create_task(jobs.workflows.cancel(started.id))

            async def waits() -> bool:
                return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))

            await until(waits)
            assert await connection.fetchval("SELECT count(*) FROM litestar_jobs.finished") == 0
        assert await cancelling == 2


@pytest.mark.timeout(300)
async def test_deep_and_wide_workflows_of_ten_thousand_steps_end(dsn: str) -> None:
    deep = Workflow("deep")
    last = deep.add("0", fail())
    for n in range(1, 10_000):
        last = deep.add(str(n), nothing(), after=last)
    wide = group([fail() if n == 0 else nothing() for n in range(9_999)], then=nothing())
    async with nobody(dsn) as jobs:
        started = [await jobs.workflows.start(deep), await jobs.workflows.start(wide)]
        with pytest.raises(DefinitionError, match="is too large: it may have 10000 steps"):
            deep.add("more", nothing())
    async with worker(dsn, [fail, nothing], concurrency=50) as jobs:
        rows = [await over(jobs, each.id, 120) for each in started]
    assert Counter(statuses(rows[0]).values()) == {"failed": 1, "cancelled": 9_999}
    assert Counter(statuses(rows[1]).values()) == {"failed": 1, "completed": 9_999}


# Random workflows with random outcomes.

Outcome: TypeAlias = Literal["completed", "failed", "cancelled"]
RandomStep: TypeAlias = tuple[list[int], RunWhen, Outcome]


@st.composite
def random_steps(draw: st.DrawFn) -> list[RandomStep]:
    """Of each step: those it comes after, when it runs, and how it ends if it runs."""
    steps: list[RandomStep] = []
    for n in range(draw(st.integers(1, 9))):
        after = draw(st.lists(st.integers(0, n - 1), unique=True, max_size=4)) if n else []
        ends: Outcome = draw(st.sampled_from(["completed", "completed", "failed", "cancelled"]))
        steps.append((sorted(after), draw(st.sampled_from(["completed", "ended"])), ends))
    return steps


def expected(steps: list[RandomStep]) -> list[str]:
    ends: list[str] = []
    for after, run_when, end in steps:
        runs = run_when == "ended" or all(ends[each] == "completed" for each in after)
        ends.append(end if runs else "cancelled")
    return ends


class Play:
    """A small worker of the test's own: it ends what runs, some at a time, and leads on at once, late, twice at the same
    time, or not at all until somebody looks."""

    def __init__(self, dsn: str) -> None:
        self.links = [Link(Database(dsn)) for _ in range(2)]
        self.store = Store(self.links[0].fetch, SQL)
        self.courses = [Course(link, SQL) for link in self.links]
        self.workflows = Workflows(self.courses[0], SQL, NoTracing(lambda: None), Bell(), lambda _: None)

    async def begin(self) -> None:
        await self.store.register(WORKER, "host", 1, ["default"], 3600)

    async def end(self) -> None:
        for link in self.links:
            await link.close()

    async def play(self, steps: list[RandomStep], order: random.Random) -> None:
        workflow = Workflow("random")
        for n, (after, run_when, _) in enumerate(steps):
            workflow.add(str(n), nothing(), after=[str(each) for each in after], run_when=run_when)
        started = await self.workflows.start(workflow)
        self.steps = {job_id: steps[int(name)] for name, job_id in started.steps.items()}
        self.ids = list(started.steps.values())
        self.ran: set[UUID] = set()
        self.untold: list[UUID] = []
        running: list[Claimed] = []
        while True:
            claimed = await self.store.claim({"default": order.randint(1, 3)}, {}, WORKER, "{}")
            for each in claimed:
                await self.check_start(each.id)
            running += claimed
            order.shuffle(running)
            number = order.randint(1, 3)
            await self.finish(running[:number])
            if not running:
                if not await self.lead_on("look"):
                    break
            else:
                await self.lead_on(order.choice(["now", "twice", "later", "look"]))
            del running[:number]
        row = await self.workflows.get(started.id)
        assert row is not None
        assert [step.status for step in row.steps] == expected(steps)
        assert row.status != "running"
        assert await self.store.strays() == []

    async def check_start(self, step: UUID) -> None:
        assert step not in self.ran, "a step runs once"
        self.ran.add(step)
        after, run_when, _ = self.steps[step]
        before = await self.store.get_all([self.ids[n] for n in after])
        assert len(before) == len(after)
        assert all(row.has_ended if run_when == "ended" else row.status == "completed" for row in before)

    async def finish(self, jobs: Sequence[Claimed]) -> None:
        for each in jobs:
            match self.steps[each.id][2]:
                case "completed":
                    assert await self.store.complete([each])
                case "failed" | "cancelled" as verdict:
                    assert await self.store.settle([(each, Settlement(verdict))])
            self.untold.append(each.id)

    async def lead_on(self, how: str) -> bool:
        """Whether anything came of it."""
        ids = list(self.untold)
        if how == "later":
            return False
        if how == "look":
            ids = (await self.courses[0].untold(UUID(int=0), 1_000))[1]
            assert set(ids) <= {*self.untold}
        followed = await asyncio.gather(*(course.follow(ids) for course in self.courses[: 2 if how == "twice" else 1]))
        self.untold.clear()
        free = [job_id for each in followed for job_id in each.free]
        assert len(free) == len(set(free))
        return bool(free)


def test_each_step_of_a_random_workflow_ends_as_the_rules_say_in_any_order_of_ends(own_loop_dsn: str) -> None:
    with asyncio.Runner() as runner:
        theatre = Play(own_loop_dsn)
        runner.run(theatre.begin())

        @settings(max_examples=150, deadline=None)
        @given(steps=random_steps(), seed=st.integers(0, 1_000_000))
        def plays(steps: list[RandomStep], seed: int) -> None:
            runner.run(theatre.play(steps, random.Random(seed)))

        plays()
        runner.run(theatre.end())


# What is kept, and for how long.


async def test_a_workflow_goes_with_the_last_of_its_jobs(dsn: str, connection: Connection) -> None:
    async with worker(dsn, [nothing, fail], lease=1) as jobs:
        whole = await jobs.workflows.start(chain(nothing(), nothing()))
        part = await jobs.workflows.start(order_of(("a", note("a"), []), ("b", fail(delay=3600), [])))
        await over(jobs, whole.id)
        assert await jobs.delete_all(JobFilter(ids=list(whole.steps.values())[:1])) == 1
        row = await jobs.workflows.get(whole.id)
        assert row is not None
        assert (row.status, [step.status for step in row.steps], row.steps[0].job) == (
            "completed",
            ["completed"] * 2,
            None,
        )
        assert await jobs.delete_all(JobFilter(status="completed")) == 1

        async def gone() -> bool:
            return await jobs.workflows.get(whole.id) is None

        await until(gone)
        row = await jobs.workflows.get(part.id)
        assert row is not None
        assert row.status == "running"
    assert await connection.fetchval("SELECT count(*) FROM litestar_jobs.step") == 2
    assert await connection.fetchval("SELECT count(*) FROM litestar_jobs.edge") == 0


async def test_results_wait_for_those_that_take_them_longer_than_their_jobs_are_kept(dsn: str) -> None:
    @job
    async def then(payload: list[Finished]) -> list[Any]:
        return [end.result for end in payload]

    async with worker(dsn, [note, then]) as jobs:
        started = await jobs.workflows.start(group([note("first"), note("last", delay=3600)], then=then))

        async def first() -> bool:
            row = await jobs.workflows.get(started.id)
            return row is not None and row.steps[0].status == "completed"

        await until(first)
        assert await jobs.delete_all(JobFilter(status="completed")) == 1
        assert await jobs.cancel(started.steps["note 2"])
        assert await jobs.result(started.last, of=then, timeout=10) == ["first", None]


# What is no workflow. What a request's job returns is known if one job alone has this name, as in an application.


@job(name="is silent")
async def silent() -> None:
    pass


@job(name="alone", unique=Unique())
async def alone() -> None:
    pass


@job(name="prices")
async def prices(payload: Order) -> Receipt:
    return Receipt(payload.number)


@job(name="speaks")
async def speaks() -> str:
    return "x"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Workflow(""), "a workflow's name must be text of 1 to 250 characters"),
        (lambda: Workflow("w").steps, "workflow 'w' has no steps"),
        (lambda: group([]), "a group needs at least one job"),
        (lambda: order_of(("a", nothing(), ["b"]), ("b", nothing(), ["a"])), "comes after 'b', which workflow 'order' does not"),
        (lambda: order_of(("a", nothing(), ["a"])), "comes after 'a', which workflow 'order' does not have yet"),
        (lambda: order_of(("a", nothing(), []), ("a", nothing(), [])), "has two steps named 'a'"),
        (lambda: Workflow("w").add("a", nothing(), run_when="always"), "run_when must be 'completed' or 'ended', not 'always'"),  # type: ignore[arg-type]
        (lambda: Workflow("w").add("a", "nothing"), "must be a job, whose payload is the result of the step before it, or a"),  # type: ignore[arg-type]
        (lambda: Workflow("w").add("a", charge), "is a job that takes a Order, but nothing before it gives one"),
        (lambda: order_of(("a", nothing(), []), ("b", nothing(), []), ("c", ship, ["a", "b"])), "takes a Receipt, but nothing"),
        (lambda: group([charge(Order(1))], then=ship), "or let the job take a list.Finished."),
        (lambda: chain(silent(), note), "the result of step 'is silent' cannot be the payload of step 'note': it returns nothing"),
        (lambda: chain(prices(Order(1)), note), "payload of step 'note': it is an object, not text"),
        (lambda: chain(speaks(), ship), "payload of step 'ship': it is text, not an object. They are the result of job "),
        (lambda: chain(alone()), "step 'alone' is a unique job, which steps cannot be"),
        (lambda: chain(silent(), alone), "step 'alone' is a unique job, which steps cannot be"),
        (lambda: chain(charge), "takes a Order, but nothing before it gives one"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_what_is_no_workflow_is_refused_where_it_is_written(make: Callable[[], Any], reason: str) -> None:
    with pytest.raises(DefinitionError, match=reason):
        make()


class Narrow(Struct):
    number: int


class Wide(Struct):
    number: int
    colour: str


class Node(Struct):
    next: "Node | None" = None


class Other(Struct):
    next: "Other | None" = None


@pytest.mark.parametrize(
    ("returned", "wanted", "reason"),
    [
        (int, int, None),
        (int, float, None),
        (int, str, "it is a number, not text"),
        (int | None, int, "it is null, not a number"),
        (int, int | None, None),
        (int | str, int | None, "it may be text"),
        (Any, int, None),
        (str, datetime, None),
        (int, Decimal, None),
        (Wide, Narrow, None),
        (Narrow, Wide, "it has no 'colour'"),
        (dict[str, int], Wide, None),
        (list[Wide], list[Narrow], None),
        (list[Narrow], list[Wide], "an item of it has no 'colour'"),
        (tuple[int, str], list[int], None),
        (Node, Other, None),
    ],
)
def test_types_fit_unless_they_cannot(returned: Any, wanted: Any, reason: str | None) -> None:
    assert misfit(returned, wanted) == reason


async def test_what_cannot_be_started_is_refused_at_the_call(dsn: str) -> None:
    async with nobody(dsn) as jobs:
        with pytest.raises(EnqueueError, match="is not a workflow: make one with chain"):
            await jobs.workflows.start(nothing())  # type: ignore[arg-type]
        with pytest.raises(PayloadRefused, match="at most 1000000 are allowed"):
            await jobs.workflows.start(chain(note("x" * 1_000_000)))
        with pytest.raises(EnqueueError, match="payloads have 65000000 bytes together"):
            await jobs.workflows.start(group([note("x" * 999_998) for _ in range(65)]))
        assert await jobs.workflows.get(UUID(int=1)) is None
        assert await jobs.workflows.cancel(UUID(int=1)) == 0


# Tests of applications.


async def test_drained_waits_for_the_last_step_not_for_a_moment_in_which_none_runs(dsn: str) -> None:
    async with worker(dsn, [nothing]) as jobs:
        for _ in range(5):
            started = await jobs.workflows.start(chain(*[nothing() for _ in range(20)]))
            await drained(jobs)
            row = await jobs.workflows.get(started.id)
            assert row is not None
            assert row.status == "completed"
        started = await jobs.workflows.start(chain(nothing(delay=3600), nothing()))
        await drained(jobs)
