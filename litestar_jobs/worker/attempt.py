"""An attempt: a claimed job on its way through this process, the span that it runs in, and its timeout."""

import asyncio
import time
from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from uuid import UUID

import msgspec

from litestar_jobs.context import JobContext, current_attempt, current_job
from litestar_jobs.errors import JobDeadline, JobTimeout
from litestar_jobs.logs import bind_structlog
from litestar_jobs.outcome import Outcome
from litestar_jobs.schedule import OF_A_SCHEDULE, SCHEDULE, SLOT
from litestar_jobs.store import Claimed
from litestar_jobs.trace import accept, current_carrier, current_trace_id
from litestar_jobs.workflow import WORKFLOW

__all__ = ("Attempt", "Limit", "context_of", "enter_span")

OF_THE_JOB_ALONE = (*OF_A_SCHEDULE, WORKFLOW)
"""What headers say of a job, and not of those that it enqueues."""

decode_headers = msgspec.json.Decoder(dict[str, str]).decode


class Attempt:
    """A claimed job on its way through this process."""

    __slots__ = (
        "claimed",
        "committing",
        "ending",
        "given_up",
        "limit",
        "outcome",
        "overdue_since",
        "started",
        "stopped_with",
        "task",
        "unawaited",
        "until",
    )

    def __init__(self, claimed: Claimed) -> None:
        self.claimed = claimed
        self.task: asyncio.Task[None] | None = None
        self.started = 0.0
        self.until: float | None = None
        """When its timeout is over, by the clock of the loop, or when it was cancelled."""
        self.overdue_since: float | None = None
        """When somebody first saw it running after that. A process that was suspended sees it long after."""
        self.ending = False
        """The handler has returned and its transaction is being committed: too late to be cancelled."""
        self.committing = False
        """What it has written, with the end of the job in it, was sent to be committed."""
        self.stopped_with: Outcome | None = None
        """Set before the task is cancelled: what that means."""
        self.given_up = False
        """It has its outcome, although the handler goes on: nobody is to hear of its late end."""
        self.outcome: Outcome | None = None
        self.limit: Limit | None = None
        """Its timeout, once that counts."""
        self.unawaited = False
        """Its thread goes on, and nobody waits for that."""

    @property
    def is_cancelled(self) -> bool:
        """What ``JobContext.is_cancelled`` says. Read in any thread."""
        return self.stopped_with is not None or self.unawaited or (self.limit is not None and self.limit.is_over)

    @property
    def seconds_left(self) -> float | None:
        """Until the deadline of the whole job; None without one."""
        return None if self.claimed.deadline is None else self.claimed.deadline - time.monotonic()


class Limit:
    """The timeout of an attempt, or the deadline of its job if that is sooner. Unlike :func:`asyncio.timeout` it also fails
    a handler that swallows the cancellation, and never takes a ``TimeoutError`` of the handler's own for its own."""

    __slots__ = ("_attempt", "_is_deadline", "_seconds", "_timeout")

    def __init__(self, attempt: Attempt, seconds: float | None) -> None:
        left = attempt.seconds_left
        self._attempt = attempt
        self._is_deadline = left is not None and (seconds is None or left <= seconds)
        self._seconds = left if self._is_deadline else seconds
        self._timeout = asyncio.timeout(self._seconds)

    @property
    def is_over(self) -> bool:
        """Whether it ended the attempt."""
        return self._timeout.expired()

    @property
    def error(self) -> JobTimeout | JobDeadline:
        """With which it ends the attempt."""
        if self._is_deadline:
            return JobDeadline("the deadline of the job was over while it ran")
        return JobTimeout(self._seconds or 0)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._attempt.limit = self
        self._attempt.until = self._timeout.when()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as expired:
            raise self.error from expired
        if error is None and self._timeout.expired():
            raise self.error


def enter_span(attempt: Attempt) -> JobContext:
    """Make this context the job's: whatever logs or enqueues in it does so in the job's trace."""
    claimed = attempt.claimed
    headers = _headers(claimed)
    context = _context(claimed, headers)
    if context.schedule is not None or context.workflow is not None:
        headers = {name: value for name, value in headers.items() if name not in OF_THE_JOB_ALONE}
    current_job.set(context)
    current_attempt.set(attempt)
    current_trace_id.set(context.trace_id)
    current_carrier.set(headers or None)
    bind_structlog()
    return context


def context_of(claimed: Claimed) -> JobContext:
    """What the job may know about itself."""
    return _context(claimed, _headers(claimed))


def _headers(claimed: Claimed) -> dict[str, str]:
    """Nothing where they are no headers: any program can have written them."""
    try:
        return {} if claimed.headers is None else decode_headers(claimed.headers)
    except (msgspec.DecodeError, RecursionError):
        return {}


def _context(claimed: Claimed, headers: Mapping[str, str]) -> JobContext:
    return JobContext(
        id=claimed.id,
        job_type=claimed.job_type,
        queue=claimed.queue,
        attempt=claimed.attempt,
        max_retries=claimed.max_retries,
        trace_id=accept(claimed.trace_id),
        enqueued_at=claimed.created_at,
        schedule=headers.get(SCHEDULE),
        scheduled_for=_moment(headers.get(SLOT)),
        workflow=_id(headers.get(WORKFLOW)),
        token=claimed.token,
    )


def _moment(slot: str | None) -> datetime | None:
    try:
        return None if slot is None else datetime.fromisoformat(slot)
    except ValueError:
        return None


def _id(text: str | None) -> UUID | None:
    try:
        return None if text is None else UUID(text)
    except ValueError:
        return None
