"""What type checkers make of workflows. Never run: each line that must not pass says with which error it fails."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from collections.abc import Mapping
from typing import assert_type
from uuid import UUID

from litestar import post
from litestar.di import NamedDependency
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncSession

from litestar_jobs import (
    Finished,
    JobContext,
    Jobs,
    JobStatus,
    StartedWorkflow,
    StepRow,
    Workflow,
    WorkflowRow,
    chain,
    group,
    job,
)


class Order(Struct):
    number: int


@job
async def charge(payload: Order) -> int:
    return payload.number


@job
async def ship(payload: int, *, job: JobContext, jobs: Jobs) -> None:
    assert_type(job.workflow, UUID | None)
    for name, step in (await jobs.workflows.results_of(job)).items():
        assert_type(name, str)
        assert_type(step.status, JobStatus)


@job
async def close(payload: list[Finished]) -> None: ...


@post("/")
async def handler(jobs: Jobs, db_session: NamedDependency[AsyncSession]) -> None:
    order = Workflow("order")
    assert_type(order.add("charge", charge(Order(1))), str)
    order.add("ship", ship, after="charge")
    order.add("close", close, after=["charge", "ship"], run_when="ended")
    started = await jobs.workflows.start(order)
    assert_type(started, StartedWorkflow)
    assert_type(started.steps, Mapping[str, UUID])
    assert_type(await jobs.result(started.last, of=charge), int)
    assert_type(
        await jobs.workflows.start_with(db_session, chain(charge(Order(1)), ship, close, name="order")), StartedWorkflow
    )
    await jobs.workflows.start(group((charge(Order(n)) for n in range(3)), then=close))
    found = await jobs.workflows.get(started.id)
    assert_type(found, WorkflowRow | None)
    assert_type([] if found is None else found.steps, list[StepRow])
    assert_type(await jobs.workflows.cancel(started.id), int)

    order.add("ship", ship, run_when="failed")  # type: ignore[arg-type]
    order.add("ship", ship.fn)  # type: ignore[arg-type]
    chain(ship)  # type: ignore[arg-type]
    group([ship])  # type: ignore[list-item]
    group(ship)  # type: ignore[arg-type]
    await jobs.workflows.start(charge(Order(1)))  # type: ignore[arg-type]
