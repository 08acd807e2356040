"""How a handler ends its own attempt, through to what is stored of it."""

from collections.abc import Callable
from typing import Any

import pytest
from litestar import Litestar

from litestar_jobs import (
    Cancel,
    Fail,
    Fixed,
    Job,
    JobContext,
    JobRow,
    JobsConfig,
    JobsPlugin,
    JobStatus,
    Never,
    RetryAfter,
    Snooze,
    job,
)
from litestar_jobs.errors import DefinitionError
from litestar_jobs.outcome import Cancelled, Failed, Retry, Snoozed
from litestar_jobs.signals import Signal
from litestar_jobs.telemetry import AttemptEnded, Event
from litestar_jobs.testing import ended, running


async def ran(dsn: str, asked: Job[None, Any]) -> tuple[JobRow, list[AttemptEnded]]:
    """How the job ended, and how each attempt did."""
    heard: list[Event] = []
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[asked], hooks=[heard.append]))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        row = await ended(plugin.client, await plugin.client.enqueue(asked()))
    return row, [event for event in heard if isinstance(event, AttemptEnded)]


MADE: list[tuple[Callable[[], Signal], JobStatus, int, str]] = [
    (lambda: Cancel("not needed"), JobStatus.CANCELLED, 1, "Cancel: not needed"),
    (lambda: Fail("no such order"), JobStatus.FAILED, 1, "Fail: no such order"),
    (lambda: RetryAfter(0, "not yet"), JobStatus.FAILED, 3, "RetryAfter: not yet"),
]


@pytest.mark.parametrize("returned", [False, True], ids=["raised", "returned"])
@pytest.mark.parametrize("kind", ["async", "thread", "loop"])
@pytest.mark.parametrize("made", MADE, ids=["Cancel", "Fail", "RetryAfter"])
async def test_a_handler_ends_its_attempt_and_its_reason_is_kept(
    dsn: str, made: tuple[Callable[[], Signal], JobStatus, int, str], kind: str, *, returned: bool
) -> None:
    make, status, attempts, error = made

    def signal() -> Signal:
        if returned:
            return make()
        raise make()

    async def asynchronous() -> Signal:
        return signal()

    asked: Any = {
        "async": lambda: job(max_retries=2, retry=Fixed(0))(asynchronous),
        "thread": lambda: job(max_retries=2, retry=Fixed(0))(signal),
        "loop": lambda: job(max_retries=2, retry=Fixed(0), sync_to_thread=False)(signal),
    }[kind]()
    row, _ = await ran(dsn, asked)
    assert (row.status, row.attempts, row.last_error) == (status, attempts, error)


async def test_the_delay_of_a_handler_replaces_the_policys_even_if_that_never_retries(dsn: str) -> None:
    @job(max_retries=1, retry=Never())
    async def busy() -> None:
        raise RetryAfter(0, "the other side is busy")

    row, ends = await ran(dsn, busy)
    assert row.attempts == 2
    first, last = (end.outcome for end in ends)
    assert isinstance(first, Retry)
    assert first.delay == 0
    assert isinstance(last, Failed)


async def test_hooks_hear_why_a_handler_cancelled_its_job(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    @job
    async def withdrawn() -> None:
        raise Cancel("not needed")

    with caplog.at_level("INFO", logger="litestar_jobs"):
        _, (end,) = await ran(dsn, withdrawn)
    assert isinstance(end.outcome, Cancelled)
    assert end.outcome.failure is not None
    assert end.outcome.failure.message == "not needed"
    assert "was cancelled: Cancel: not needed" in caplog.text


@pytest.mark.parametrize("delay", [-1, "soon", True, None])
def test_a_delay_that_is_none_is_refused_where_it_is_made(delay: Any) -> None:
    with pytest.raises(DefinitionError, match=r"RetryAfter\(delay\)"):
        RetryAfter(delay, "not yet")
    with pytest.raises(DefinitionError, match=r"Snooze\(delay\)"):
        Snooze(delay)


# Snoozing.


@pytest.mark.parametrize("returned", [False, True], ids=["raised", "returned"])
async def test_a_job_that_snoozes_waits_and_loses_no_attempt(
    dsn: str, caplog: pytest.LogCaptureFixture, *, returned: bool
) -> None:
    seen: list[int] = []

    @job(max_retries=0)
    async def look(*, job: JobContext) -> Snooze | None:
        seen.append(job.attempt)
        if len(seen) == 4:
            return None
        if returned:
            return Snooze(0.01, "not yet")
        raise Snooze(0.01, "not yet")

    with caplog.at_level("INFO", logger="litestar_jobs"):
        row, ends = await ran(dsn, look)
    assert (row.status, row.attempts, row.last_error) == (JobStatus.COMPLETED, 1, None)
    assert seen == [1, 1, 1, 1]
    assert [end.outcome for end in ends[:-1]] == [Snoozed(0.01, "not yet")] * 3
    assert "waits 0.01 s: not yet" in caplog.text


async def test_a_job_that_snoozes_without_end_fails_for_good_and_says_so(dsn: str) -> None:
    @job(max_retries=5, max_snoozes=3)
    async def look() -> None:
        raise Snooze(0)

    row, ends = await ran(dsn, look)
    assert (row.status, row.attempts) == (JobStatus.FAILED, 1)
    assert [type(end.outcome).__name__ for end in ends] == ["Snoozed", "Snoozed", "Snoozed", "Failed"]
    assert row.last_error == (
        "SnoozedTooOften: the job has snoozed 3 times, as often as it may: what does it wait for? "
        "@job(max_snoozes=...) sets how often"
    )


async def test_a_failed_attempt_does_not_give_snoozes_back_and_a_retry_by_hand_does(dsn: str) -> None:
    calls = 0

    @job(max_retries=1, retry=Fixed(0), max_snoozes=1)
    async def look() -> None:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise Snooze(0)
        raise LookupError("no")

    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[look]))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        job_id = await plugin.client.enqueue(look())
        for _ in range(2):
            row = await ended(plugin.client, job_id)
            assert row.last_error is not None
            assert row.last_error.startswith("SnoozedTooOften")
            assert (row.attempts, calls) == (2, 3)
            calls = 0
            assert await plugin.client.retry(job_id)
        await ended(plugin.client, job_id)


@pytest.mark.parametrize("most", [-1, 1.5, True, None, 10_001])
def test_a_number_of_snoozes_that_is_none_is_refused(most: Any) -> None:
    with pytest.raises(DefinitionError, match="max_snoozes"):
        job(max_snoozes=most)
