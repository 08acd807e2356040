"""What happens, as values, and who hears of it. The core says what happened; hooks decide what to do with it.

A hook is any callable that takes one of these events. Hooks are called in the event loop and must be quick; one that
raises is logged and does not disturb the job.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Literal, Protocol, TypeAlias
from uuid import UUID

import msgspec

from litestar_jobs.context import JobContext
from litestar_jobs.outcome import Outcome
from litestar_jobs.request import JobRequest

__all__ = (
    "NOBODY",
    "AttemptAbandoned",
    "AttemptEnded",
    "AttemptStarted",
    "ChoreFailed",
    "CleanupFailed",
    "Event",
    "HandlerStuck",
    "Hook",
    "JobLapsed",
    "JobRescued",
    "JobUnknown",
    "JobsPruned",
    "LeaseEnded",
    "ListenerDeaf",
    "NoTracing",
    "OutcomeRefused",
    "QueueLimited",
    "SlotEnqueued",
    "SlotsSkipped",
    "StepSkipped",
    "SuspectReleased",
    "Tracing",
    "WorkerStarted",
    "WorkerStopped",
    "emitter",
)

logger = logging.getLogger("litestar_jobs")


class WorkerStarted(msgspec.Struct, frozen=True):
    """A worker takes jobs of these queues."""

    worker_id: UUID
    queues: Sequence[str]
    concurrency: int


class WorkerStopped(msgspec.Struct, frozen=True):
    """A worker has left; ``interrupted`` jobs went back to their queues."""

    worker_id: UUID
    interrupted: int


class AttemptStarted(msgspec.Struct, frozen=True):
    """A handler is about to be called."""

    job: JobContext


class AttemptEnded(msgspec.Struct, frozen=True):
    """A handler ended, ``duration`` seconds after it began. ``error`` is what it raised."""

    job: JobContext
    outcome: Outcome
    duration: float
    error: BaseException | None


class CleanupFailed(msgspec.Struct, frozen=True):
    """A dependency raised after the job was already finished; the job stays finished."""

    job: JobContext
    error: BaseException


class JobUnknown(msgspec.Struct, frozen=True):
    """A claimed job has a type that this worker does not know; it waits ``delay`` seconds for one that does."""

    job_id: UUID
    job_type: str
    queue: str
    trace_id: str | None
    delay: float


class JobLapsed(msgspec.Struct, frozen=True):
    """A job waited for too long. With ``is_expired`` no attempt was begun in time, and it is cancelled; otherwise its
    deadline is over, and it has failed."""

    job_id: UUID
    job_type: str
    queue: str
    trace_id: str | None
    is_expired: bool


class JobRescued(msgspec.Struct, frozen=True):
    """A job was taken from a process that is gone, or from an attempt far past its timeout."""

    job_id: UUID
    job_type: str
    queue: str
    trace_id: str | None
    attempt: int
    was_last: bool
    overdue: bool
    suspect: bool
    """Lost with its process once more: it is held until no other suspect runs."""


class SuspectReleased(msgspec.Struct, frozen=True):
    """A job that was lost with its process more than once may run now; no other such job runs."""

    job_id: UUID
    job_type: str
    queue: str
    trace_id: str | None


class OutcomeRefused(msgspec.Struct, frozen=True):
    """How an attempt ended was not written: another one had begun meanwhile, or the job was ended otherwise."""

    job_id: UUID
    job_type: str
    queue: str
    trace_id: str | None
    attempt: int
    verdict: str


class AttemptAbandoned(msgspec.Struct, frozen=True):
    """A handler did not end when it was cancelled at a stop; its job was handed back."""

    job_id: UUID
    job_type: str
    queue: str
    trace_id: str | None
    attempt: int


class HandlerStuck(msgspec.Struct, frozen=True):
    """An attempt is over, by its timeout or because it was stopped, but its handler goes on: a thread, which nothing
    can interrupt, or code that does not end when it is cancelled. Its slot is free, and what it still does is recorded
    nowhere. ``count`` is how many such there are in this process."""

    job_id: UUID
    job_type: str
    queue: str
    trace_id: str | None
    attempt: int
    count: int


class LeaseEnded(msgspec.Struct, frozen=True):
    """This process could not renew its lease in time: it stopped its jobs, which may run elsewhere."""

    worker_id: UUID
    jobs: int
    reason: str


class SlotEnqueued(msgspec.Struct, frozen=True):
    """A slot of a schedule was due, and this process wrote its job."""

    schedule: str
    slot: datetime
    job_id: UUID
    job_type: str
    queue: str
    trace_id: str | None


class SlotsSkipped(msgspec.Struct, frozen=True):
    """Slots of a schedule, the newest of them at ``until``, will have no job: no worker was there in time (``missed``;
    at most 101 are counted), or a job of the schedule has not finished (``overlap``)."""

    schedule: str
    job_type: str
    slots: int
    until: datetime
    reason: Literal["missed", "overlap"]


class StepSkipped(msgspec.Struct, frozen=True):
    """A step of a workflow was cancelled, because one that it needs did not complete; ``reason`` says which. Told by the
    worker that leads on from the other's end; not of those that follow when somebody cancels a job."""

    job_id: UUID
    job_type: str
    queue: str
    trace_id: str | None
    reason: str


class ListenerDeaf(msgspec.Struct, frozen=True):
    """Notifications do not reach this worker, not even its own: jobs of other processes wait for its next look, up to
    ``poll_interval`` seconds."""

    poll_interval: float


class QueueLimited(msgspec.Struct, frozen=True):
    """From now on this worker begins jobs of a queue only while it runs fewer than ``most``: none while the queue is
    paused (0), and as many as it has slots for without a limit (None)."""

    queue: str
    most: int | None


class JobsPruned(msgspec.Struct, frozen=True):
    """Jobs that had been kept long enough after they ended were deleted, so many of each status."""

    completed: int = 0
    failed: int = 0
    cancelled: int = 0


class ChoreFailed(msgspec.Struct, frozen=True):
    """A loop of the worker failed and will try again in ``delay`` seconds. Of a failure that goes on it is told twice a
    minute."""

    chore: str
    error: BaseException
    delay: float


Event: TypeAlias = (
    WorkerStarted
    | WorkerStopped
    | AttemptStarted
    | AttemptEnded
    | CleanupFailed
    | JobUnknown
    | JobRescued
    | JobLapsed
    | SuspectReleased
    | OutcomeRefused
    | AttemptAbandoned
    | HandlerStuck
    | LeaseEnded
    | SlotEnqueued
    | SlotsSkipped
    | StepSkipped
    | ListenerDeaf
    | QueueLimited
    | JobsPruned
    | ChoreFailed
)
Hook: TypeAlias = Callable[[Event], None]


def emitter(hooks: Sequence[Hook]) -> Hook:
    """Tells all of them, whatever one of them raises."""

    def emit(event: Event) -> None:
        for hook in hooks:
            try:
                hook(event)
            except BaseException:
                # Not the event itself: it may hold what a handler raised.
                logger.exception("hook %r raised on %s", hook, type(event).__name__)

    return emit


class Tracing(Protocol):
    """How enqueues and attempts join a trace.

    ``trace_id`` is that of the trace which this context is in, if there is one. ``enqueue`` is around a write of jobs
    and gives the carrier to store with them. ``attempt`` is around an attempt, takes the carrier that came with the
    job, and gives what to tell why it failed.
    """

    def trace_id(self) -> str | None: ...

    def enqueue(
        self, requests: Sequence[JobRequest], ids: Sequence[UUID], /
    ) -> AbstractContextManager[Mapping[str, str] | None]: ...

    def attempt(
        self, job: JobContext, carrier: Mapping[str, str] | None, /
    ) -> AbstractContextManager[Callable[[BaseException], None]]: ...


def _not_told(error: BaseException) -> None:
    """Nobody listens."""


NOBODY = nullcontext(_not_told)


class NoTracing:
    """Without OpenTelemetry: what a request brought is passed on as it is."""

    def __init__(self, carrier: Callable[[], Mapping[str, str] | None]) -> None:
        self._carrier = carrier

    def trace_id(self) -> str | None:
        return None

    def enqueue(
        self, _requests: Sequence[JobRequest], _ids: Sequence[UUID], /
    ) -> AbstractContextManager[Mapping[str, str] | None]:
        return nullcontext(self._carrier())

    def attempt(
        self, _job: JobContext, _carrier: Mapping[str, str] | None, /
    ) -> AbstractContextManager[Callable[[BaseException], None]]:
        return NOBODY
