"""A job as it is stored, for those who look."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec

__all__ = ("FailedJob", "JobFailure", "JobRow", "JobStatus")


class JobStatus(StrEnum):
    """What a user sees. ``pending`` covers jobs that may run now and jobs that may run later (see ``run_at``)."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the view ``jobs``. All times are aware, from the database's clock."""

    id: UUID
    queue: str
    job_type: str
    payload: Any
    """As text, if it is nested deeper or has larger numbers than Python reads."""
    status: JobStatus
    attempts: int
    """Attempts begun that count: an attempt that a shutdown interrupted does not."""
    max_retries: int
    priority: int
    run_at: datetime
    """Of a pending job, when it may run; of any other, when it was asked to run."""
    started_at: datetime | None
    """Start of the last attempt."""
    locked_until: datetime | None
    """Of a running job, when its worker's lease ends unless it is renewed."""
    finished_at: datetime | None
    last_error: str | None
    """Type and message of the last failed attempt; all of them are in the table ``failure``."""
    trace_id: str | None
    created_at: datetime
    result: Any = None
    """What the handler of a completed job returned, as JSON has it; ``jobs.result(id, of=...)`` gives it its type."""
    progress: float | None = None
    """How far the attempt that runs has come, from 0 to 1, if it says so."""
    progress_message: str | None = None
    expires_at: datetime | None = None
    """Until when its first attempt must have begun."""
    deadline_at: datetime | None = None
    """Until when it must have completed, over all attempts."""
    snoozes: int = 0
    """How often its handler has said that it waits."""

    @property
    def has_ended(self) -> bool:
        """Whether it is completed, failed or cancelled."""
        return self.status not in (JobStatus.PENDING, JobStatus.RUNNING)


class JobFailure(msgspec.Struct, frozen=True, kw_only=True):
    """One failed attempt."""

    attempt: int
    failed_at: datetime
    error_type: str
    message: str
    traceback: str | None


class FailedJob(msgspec.Struct, frozen=True, kw_only=True):
    """The payload of a job that follows another one which has failed for good: ``@job(on_failure=...)``."""

    id: UUID
    job_type: str
    queue: str
    payload: Any
    """As JSON has it."""
    attempts: int
    error_type: str
    message: str
    """Of its last attempt."""
    trace_id: str | None = None
