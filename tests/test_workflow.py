"""Workflows: many jobs as one. What is promised of their steps, one promise a test."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from litestar import Litestar
from msgspec import Struct

from litestar_jobs import (
    Fail,
    Finished,
    Fixed,
    Job,
    JobContext,
    Jobs,
    JobsClient,
    JobsConfig,
    JobsPlugin,
    Never,
    WorkerConfig,
    Workflow,
    WorkflowRow,
    chain,
    group,
    job,
)
from litestar_jobs.testing import running, until

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
    assert [step.job and step.job.payload for step in row.steps] == [{"number": 7}, {"number": 7, "paid": True}, "parcel 7"]
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
