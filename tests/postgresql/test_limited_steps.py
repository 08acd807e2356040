"""Steps of workflows that have a limit or a rate: both promises hold, those of workflows and those of limits."""

from collections import Counter
from datetime import timedelta

import pytest
from msgspec import Struct

from limited import INSTRUMENT, Connection, most_at_once, starts, too_close
from litestar_jobs import Finished, Job, JobFilter, Limit, Rate, Workflow, chain, group, job
from litestar_jobs.errors import DefinitionError
from litestar_jobs.testing import drained
from test_limits import workers
from test_worker import Gate
from test_workflow import over, statuses


class Call(Struct):
    customer: str
    number: int = 0


@job
async def count(payload: list[Finished]) -> int:
    return sum(each.result for each in payload)


async def test_jobs_of_a_group_share_their_limit_and_what_comes_then_waits_for_all(
    dsn: str, connection: Connection
) -> None:
    await connection.execute(INSTRUMENT)
    gate = Gate()

    @job(limit=Limit(2))
    async def pull(payload: int) -> int:
        await gate.pass_through()
        return payload

    async with workers(2, dsn, [pull, count]) as client:
        started = await client.workflows.start(group([pull(number) for number in range(8)], then=count))
        for _ in range(2):
            await gate.entered.acquire()
        row = await client.workflows.get(started.id)
        assert row is not None
        assert Counter(statuses(row).values()) == {"running": 2, "pending": 6, "waiting": 1}
        gate.open()
        assert await client.result(started.last, of=count, timeout=10) == 28
        await drained(client)
    assert await most_at_once(connection) == {"pull": 2}


async def test_a_rate_holds_for_steps_that_are_let_go(dsn: str, connection: Connection) -> None:
    await connection.execute(INSTRUMENT)
    per = timedelta(seconds=0.3)

    @job(rate=Rate(2, per=per, key="calls"))
    async def call(payload: int) -> int:
        return payload + 1

    @job
    async def seed(payload: int) -> int:
        return payload

    async with workers(2, dsn, [seed, call, count]) as client:
        workflow = Workflow("rated")
        workflow.add("seed", seed(1))
        names = [workflow.add(f"call {n}", call, after="seed") for n in range(5)]
        workflow.add("then", count, after=names)
        started = await client.workflows.start(workflow)
        assert await client.result(started.last, of=count, timeout=20) == 10
    seen = await starts(connection, "calls")
    assert len(seen) == 5
    assert too_close(seen, 2, per) == []


async def test_a_limited_step_takes_over_what_came_before_and_fails_and_is_retried_as_others_do(
    dsn: str, connection: Connection
) -> None:
    is_broken = True

    @job
    async def find(payload: int) -> Call:
        return Call("ada", payload)

    @job(limit=Limit(1, key="sap"), max_retries=0)
    async def book(payload: Call) -> int:
        if is_broken:
            raise OSError
        return payload.number

    async with workers(1, dsn, [find, book]) as client:
        started = await client.workflows.start(chain(find(7), book))
        assert statuses(await over(client, started.id)) == {"find": "completed", "book": "failed"}
        is_broken = False
        assert await client.retry(started.last)
        assert await client.result(started.last, of=book, timeout=10) == 7
    key = await connection.fetchval("SELECT key FROM litestar_jobs.limited WHERE id = $1", started.last)
    assert key == "sap"


async def test_a_delayed_limited_step_waits_for_both(dsn: str, connection: Connection) -> None:
    await connection.execute(INSTRUMENT)

    @job(limit=Limit(1, by="customer"))
    async def call(payload: Call) -> int:
        return payload.number

    async with workers(2, dsn, [call, count]) as client:
        calls = [call(Call(customer, 1), delay=0.05) for customer in "aabb"]
        started = await client.workflows.start(group(calls, then=count))
        async with connection.transaction():
            other = await client.workflows.start_with(connection, chain(call(Call("a", 1)), call(Call("a", 2))))
        assert await client.result(started.last, of=count, timeout=10) == 4
        assert await client.result(other.last, of=call, timeout=10) == 2
    assert await most_at_once(connection) == {"call:a": 1, "call:b": 1}


async def test_cancelling_a_limited_step_cancels_those_after_it_and_frees_its_slot(dsn: str) -> None:
    gate = Gate()

    @job(limit=Limit(1))
    async def pull(payload: int) -> int:
        await gate.pass_through()
        return payload

    async with workers(1, dsn, [pull]) as client:
        workflow = Workflow("w")
        for name, after in (("first", ()), ("second", ()), ("third", ("second",))):
            workflow.add(name, pull(1), after=after)
        started = await client.workflows.start(workflow)
        await gate.entered.acquire()
        runs = await client.find(JobFilter(status="running"))
        waits = "second" if runs[0].id == started.steps["first"] else "first"
        assert await client.cancel(started.steps[waits])
        gate.open()
        ends = statuses(await over(client, started.id))
        assert ends == {
            "first": "completed" if waits == "second" else "cancelled",
            "second": "cancelled" if waits == "second" else "completed",
            "third": "cancelled" if waits == "second" else "completed",
        }
        await client.result(await client.enqueue(pull(5)), of=pull, timeout=10)


@job(limit=Limit(1, by="customer"))
async def by_customer(payload: Call) -> Call:
    return payload


@job(rate=Rate(1, per=1, by=lambda call: call.number), limit=Limit(3))
async def by_number(payload: Call) -> Call:
    return payload


@pytest.mark.parametrize("limited", [by_customer, by_number])
def test_a_limit_by_a_payload_that_is_not_known_yet_is_refused(limited: Job[Call, Call]) -> None:
    with pytest.raises(
        DefinitionError, match="takes its payload from the steps before it, but the limit or rate of job"
    ):
        chain(by_customer(Call("a")), limited)
    assert chain(by_customer(Call("a")), limited(Call("b"))).steps
