"""What a running job may know about itself."""

from contextvars import ContextVar
from datetime import datetime
from uuid import UUID

import msgspec

__all__ = ("JobContext", "current_job")


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

    @property
    def is_last_attempt(self) -> bool:
        """Whether a failure of this attempt is final."""
        return self.attempt > self.max_retries


current_job: ContextVar[JobContext | None] = ContextVar("litestar_jobs_current_job", default=None)
"""The job that runs in this context, its tasks and its threads."""
