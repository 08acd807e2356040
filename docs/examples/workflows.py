from uuid import UUID

import msgspec
from litestar import Litestar, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath, JSONBody

from litestar_jobs import (
    Finished,
    JobContext,
    Jobs,
    JobsPlugin,
    Workflow,
    WorkflowRow,
    chain,
    group,
    job,
)


class Order(msgspec.Struct):
    number: int
    amount: int = 10


class Receipt(msgspec.Struct):
    order: int


@job
async def charge(order: Order) -> Receipt:
    return Receipt(order.number)


@job
async def pack(order: Order) -> str:
    return f"parcel {order.number}"


@job
async def send_receipt(receipt: Receipt) -> None: ...


@job
async def ship(*, job: JobContext, jobs: Jobs) -> str:
    before = await jobs.workflows.results_of(job)
    return f"{before['pack'].result} has left"


@job
async def close(steps: list[Finished]) -> dict[str, str]:
    return {step.name: step.status for step in steps}


def order_workflow(order: Order) -> Workflow:
    workflow = Workflow(f"order {order.number}")
    workflow.add("charge", charge(order))
    workflow.add("pack", pack(order))
    workflow.add("receipt", send_receipt, after="charge")
    workflow.add("ship", ship, after=["charge", "pack"])
    workflow.add("close", close, after=["receipt", "ship"], run_when="ended")
    return workflow


@post("/orders")
async def place(data: JSONBody[Order], jobs: Jobs) -> dict[str, UUID]:
    started = await jobs.workflows.start(order_workflow(data))
    return {"workflow": started.id, "shipment": started.steps["ship"]}


@get("/orders/{workflow_id:uuid}")
async def look(workflow_id: FromPath[UUID], jobs: Jobs) -> WorkflowRow:
    found = await jobs.workflows.get(workflow_id)
    if found is None:
        raise NotFoundException
    return found


@post("/charges")
async def charge_all(
    data: JSONBody[list[Order]], jobs: Jobs
) -> dict[str, UUID]:
    one_by_one = chain(charge(data[0]), send_receipt)
    beside_each_other = group([charge(order) for order in data], then=close)
    await jobs.workflows.start(one_by_one)
    started = await jobs.workflows.start(beside_each_other)
    return {"closing": started.last}


app = Litestar([place, look, charge_all], plugins=[JobsPlugin()])
