"""A storm of enqueues: a thousand tasks at once, some with rows that PostgreSQL refuses, some cancelled.

Looked at from outside: each caller gets its own answer, what was accepted is there once, and nothing else is.
"""

import asyncio
import gc
from uuid import UUID

import pytest
from litestar import Litestar

from litestar_jobs import JobFilter, JobRequest, JobsClient, JobsConfig, JobsPlugin
from litestar_jobs.errors import EnqueueError, PayloadRefused
from litestar_jobs.store import Store
from litestar_jobs.telemetry import NoTracing
from litestar_jobs.testing import running
from litestar_jobs.trace import current_carrier

CALLERS = 1_000


def request_of(number: int) -> JobRequest:
    """Every tenth one holds what jsonb cannot."""
    payload = rb'"\u0000"' if number % 10 == 3 else str(number).encode()
    return JobRequest(job_type="note", payload=payload)


async def storm(client: JobsClient, turn: int) -> tuple[dict[UUID, int], int, set[int]]:
    """What was accepted, how many were refused, and who was cancelled (some before they began, some in the midst)."""
    first = turn * CALLERS
    calls = [asyncio.create_task(client.enqueue(request_of(first + number))) for number in range(CALLERS)]
    for number in range(5, CALLERS, 20):
        calls[number].cancel()
    await asyncio.sleep(0)
    for number in range(15, CALLERS, 20):
        calls[number].cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    accepted: dict[UUID, int] = {}
    cancelled: set[int] = set()
    refused = 0
    for number, answer in enumerate(answers, first):
        match answer:
            case UUID():
                accepted[answer] = number
            case PayloadRefused():
                assert number % 10 == 3
                refused += 1
            case asyncio.CancelledError():
                cancelled.add(number)
            case _:
                raise AssertionError(f"call {number} was answered {answer!r}")
    return accepted, refused, cancelled


async def test_in_a_storm_each_caller_gets_its_own_answer_and_what_was_accepted_is_there_once(
    dsn: str, store: Store
) -> None:
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[], worker=None))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        tasks = asyncio.all_tasks()
        accepted, refused, cancelled = await storm(plugin.client, 0)
        assert (refused, len(cancelled)) == (CALLERS // 10, CALLERS // 10)
        assert len(accepted) == CALLERS * 8 // 10
        assert asyncio.all_tasks() == tasks
    rows = await store.find(JobFilter.everything(), 10_000)
    written = {row.id: row.payload for row in rows}
    assert len(written) == len(rows)
    assert accepted.items() <= written.items()
    assert {written[job_id] for job_id in written.keys() - accepted.keys()} <= cancelled, "they may have been sent"


async def test_after_storms_nothing_is_left_of_them(dsn: str) -> None:
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[], worker=None))
    plugin.client._tracing = NoTracing(current_carrier.get)  # spans that other tests collect are not meant
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        objects: list[int] = []
        for turn in range(4):
            await storm(plugin.client, turn)
            gc.collect()
            objects.append(len(gc.get_objects()))
    assert objects[-1] - objects[1] < CALLERS, objects


@pytest.mark.parametrize("ending", ["stopped", "cut off"])
async def test_a_storm_in_which_the_application_ends_or_its_connection_leaves_no_caller_without_an_answer(
    dsn: str, store: Store, ending: str
) -> None:
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[], worker=None))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        await plugin.client.enqueue(request_of(0))
        calls = [asyncio.create_task(plugin.client.enqueue(request_of(number * 10 + 1))) for number in range(CALLERS)]
        await asyncio.sleep(0)
        if ending == "cut off":
            plugin.client._writes._connection.terminate()  # type: ignore[union-attr]
            async with asyncio.timeout(10):
                await asyncio.wait(calls)
    answers = await asyncio.gather(*calls, return_exceptions=True)
    written = {row.id for row in await store.find(JobFilter.everything(), 10_000)}
    accepted = {answer for answer in answers if isinstance(answer, UUID)}
    uncertain = {answer.job_id for answer in answers if hasattr(answer, "job_id")}
    refused = [answer for answer in answers if isinstance(answer, EnqueueError)]
    assert len(accepted) + len(uncertain) + len(refused) == CALLERS
    assert accepted <= written
    assert len(written - accepted - uncertain) == 1, "the first one"
