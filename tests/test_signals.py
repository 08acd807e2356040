"""How a handler ends its own attempt, through to what is stored of it."""

from collections.abc import Callable
from typing import Any

import pytest
from litestar import Litestar

from litestar_jobs import Cancel, Fail, Fixed, Job, JobRow, JobsConfig, JobsPlugin, JobStatus, Never, RetryAfter, job
from litestar_jobs.errors import DefinitionError
from litestar_jobs.outcome import Cancelled, Failed, Retry
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
