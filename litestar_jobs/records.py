"""What statements answer, besides jobs as users see them."""

from datetime import UTC, datetime
from uuid import UUID

import msgspec

__all__ = (
    "Claimed",
    "HeldKey",
    "Lapsed",
    "LiveWorker",
    "Lowest",
    "QueueCount",
    "QueueSettings",
    "Released",
    "Rescued",
    "UnknownType",
    "Walk",
    "Walked",
)


class Claimed(msgspec.Struct, frozen=True):
    """A live attempt: what the worker needs to run the job, and the token with which it may write."""

    id: UUID
    token: int
    attempt: int
    queue: str
    priority: int
    run_at: datetime
    job_type: str
    payload: str | None
    """None: it is too large."""
    max_retries: int
    trace_id: str | None
    headers: str | None
    created_at: datetime
    snoozes: int = 0
    expired: bool = False
    """It had to be begun before it was claimed."""
    deadline: float | None = None
    """Of the whole job, by this process's monotonic clock."""


class Lowest(msgspec.Struct, frozen=True):
    """A lower bound in the order of claims: nothing before it is looked at."""

    priority: int = -32768
    run_at: datetime = datetime(1, 1, 2, tzinfo=UTC)
    id: UUID = UUID(int=0)


class Rescued(msgspec.Struct, frozen=True):
    """A job that its worker left behind."""

    id: UUID
    job_type: str
    queue: str
    attempt: int
    trace_id: str | None
    worker_id: UUID
    was_last: bool
    overdue: bool
    suspect: bool


class Released(msgspec.Struct, frozen=True):
    """A held job that may run now."""

    id: UUID
    job_type: str
    queue: str
    trace_id: str | None


class HeldKey(msgspec.Struct, frozen=True):
    """The key of a unique job: held until it has started or finished, and until a moment in any case."""

    key: UUID
    until: str
    kept_until: datetime | None


class Lapsed(msgspec.Struct, frozen=True):
    """A job that waited for too long: until it had to be begun, or until its deadline."""

    id: UUID
    job_type: str
    queue: str
    trace_id: str | None
    is_expired: bool


class Walk(msgspec.Struct, frozen=True):
    """How far those that look for lapsed jobs have come: of those that expire, and of those with a deadline."""

    expired_at: datetime = datetime(1, 1, 2, tzinfo=UTC)
    expired_id: UUID = UUID(int=0)
    overdue_at: datetime = datetime(1, 1, 2, tzinfo=UTC)
    overdue_id: UUID = UUID(int=0)


class Walked(msgspec.Struct, frozen=True):
    """How many finished jobs, or keys, were looked at, the last of them, and how many of them are deleted."""

    seen: int
    last: UUID | None
    gone: int


class QueueCount(msgspec.Struct, frozen=True):
    """How many jobs of a queue are in a state; of pending ones ``due`` may run now, since ``oldest`` seconds."""

    queue: str
    status: str
    jobs: int
    due: int
    oldest: float | None


class QueueSettings(msgspec.Struct, frozen=True):
    """Since when a queue is paused, and how many of its jobs run at once in each worker, at the most."""

    name: str
    paused_at: datetime | None = None
    concurrency: int | None = None


class UnknownType(msgspec.Struct, frozen=True):
    """How many pending jobs there are of a type that an application does not know."""

    job_type: str
    jobs: int


class LiveWorker(msgspec.Struct, frozen=True):
    """A process whose lease has not ended."""

    id: UUID
    hostname: str
    pid: int
    queues: list[str]
    started_at: datetime
    expires_at: datetime
