"""What a running job may know about itself, and tell of itself."""

from collections.abc import Awaitable, Callable, Generator
from contextvars import ContextVar
from datetime import datetime
from typing import Protocol, TypeAlias
from uuid import UUID

import msgspec

from litestar_jobs.outcome import storable

__all__ = ("JobContext", "Report", "current_attempt", "current_job", "current_report")

MOST_SAID = 500


class _OneTurn:
    """Awaiting it lets the event loop turn once; so may be left out."""

    def __await__(self) -> Generator[None]:
        yield


ONE_TURN = _OneTurn()


class JobContext(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for it with a parameter ``job: JobContext``."""

    id: UUID
    job_type: str
    queue: str
    attempt: int
    """From 1."""
    max_retries: int
    trace_id: str | None
    enqueued_at: datetime
    schedule: str | None = None
    """Of a periodic job, the schedule that enqueued it."""
    scheduled_for: datetime | None = None
    """The slot for which it did, in UTC. None for a job that somebody ran by hand."""
    workflow: UUID | None = None
    """Of a step, its workflow."""
    token: int = 0
    """Of this attempt: no two attempts of any jobs have the same."""

    @property
    def is_last_attempt(self) -> bool:
        """Whether a failure of this attempt is final."""
        return self.attempt > self.max_retries

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for this attempt any more: its job was cancelled, its timeout is over, or the worker
        stops. For synchronous handlers, which nothing can interrupt, to look at now and then; an async one gets
        ``CancelledError``. Outside of a worker, in a unit test, it is False."""
        return (attempt := current_attempt.get()) is not None and attempt.is_cancelled

    def progress(self, part: float, message: str | None = None) -> Awaitable[None]:
        """Tell how far this attempt has come, from 0 to 1, for ``JobRow.progress`` and ``jobs.watch(id)``.

        Cheap to call often: the worker writes the latest values of all its jobs together, a few times a second. In
        an async handler await it, so that the event loop may go on; in a synchronous one just call it. Outside of a
        worker, in a unit test, it does nothing.
        """
        if not 0 <= part <= 1:
            raise ValueError(f"progress goes from 0 to 1, not {part!r}")
        if (report := current_report.get()) is not None:
            report(self, float(part), None if message is None else storable(message, MOST_SAID))
        return ONE_TURN


class Cancellable(Protocol):
    """An attempt, as far as its job may know it."""

    @property
    def is_cancelled(self) -> bool: ...


Report: TypeAlias = Callable[[JobContext, float, str | None], None]


current_job: ContextVar[JobContext | None] = ContextVar("litestar_jobs_current_job", default=None)
"""The job that runs in this context, its tasks and its threads."""

current_report: ContextVar[Report | None] = ContextVar("litestar_jobs_current_report", default=None)
"""Where jobs of this context's worker tell their progress."""

current_attempt: ContextVar[Cancellable | None] = ContextVar("litestar_jobs_current_attempt", default=None)
"""The attempt that runs in this context."""
