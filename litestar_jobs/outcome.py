"""How an attempt ends, as values, and what each end writes. Pure functions, no clock, no database."""

import traceback
from datetime import timedelta
from typing import Literal, TypeAlias, TypeVar

import msgspec

from litestar_jobs.durations import LONGEST
from litestar_jobs.errors import JobDeadline, PayloadError, ResultError, SnoozedTooOften
from litestar_jobs.retry import RetryPolicy
from litestar_jobs.signals import Cancel, Fail, RetryAfter, Snooze

__all__ = (
    "Cancelled",
    "Committed",
    "Completed",
    "Failed",
    "Failure",
    "Interrupted",
    "Lost",
    "Outcome",
    "Retry",
    "Settlement",
    "Snoozed",
    "Unanswered",
    "after_failure",
    "after_snooze",
    "in_time",
    "settlement",
    "storable",
)

OutcomeT = TypeVar("OutcomeT")

MAX_MESSAGE = 2_000
MAX_TRACEBACK = 20_000


class Failure(msgspec.Struct, frozen=True):
    """What is kept of an exception."""

    error_type: str
    message: str
    traceback: str | None = None

    @classmethod
    def of(cls, error: BaseException) -> "Failure":
        lines = "".join(traceback.format_exception(error))
        return cls(
            storable(type(error).__qualname__, MAX_MESSAGE),
            storable(_text(error), MAX_MESSAGE),
            # The end of a traceback says most.
            storable(lines[-MAX_TRACEBACK:], MAX_TRACEBACK),
        )


class Completed(msgspec.Struct, frozen=True):
    """The handler returned; the job is still to be finished."""

    result: str | None = None
    """What it returned, as JSON; None for a job without results."""


class Committed(msgspec.Struct, frozen=True):
    """The handler returned, and its own transaction finished the job: nothing is left to write."""


class Failed(msgspec.Struct, frozen=True):
    """No further attempt."""

    failure: Failure
    has_begun: bool = True
    """False: the deadline of the job was over before; of that no such event comes."""


class Retry(msgspec.Struct, frozen=True):
    """Another attempt after ``delay`` seconds."""

    failure: Failure
    delay: float


class Snoozed(msgspec.Struct, frozen=True):
    """Later, in so many seconds, and this attempt does not count: the handler asked for it."""

    delay: float
    reason: str = ""
    is_asked_for: bool = True
    """False: this process has no handler for it, and no such event comes."""


class Cancelled(msgspec.Struct, frozen=True):
    """Ended on request; ``failure`` keeps the reason, if the handler gave one."""

    failure: Failure | None = None
    is_written: bool = False
    """Somebody else cancelled the job, in the database, while it ran."""
    has_begun: bool = True
    """False: the job had expired; of that no such event comes."""


class Interrupted(msgspec.Struct, frozen=True):
    """The worker stopped before the handler returned: the job goes back as it came."""


class Lost(msgspec.Struct, frozen=True):
    """The lease was lost, so there is nothing that this worker may write."""


class Unanswered(msgspec.Struct, frozen=True):
    """The handler's own transaction was to finish the job, and its connection broke at the commit: the job is completed,
    or else this is how the attempt ended."""

    otherwise: Failed | Retry


Outcome: TypeAlias = Completed | Committed | Failed | Retry | Snoozed | Cancelled | Interrupted | Lost | Unanswered


class Settlement(msgspec.Struct, frozen=True):
    """What ``settle.sql`` is told of a job."""

    verdict: Literal["failed", "cancelled", "retry", "release", "snooze", "expired", "overdue"]
    delay: float = 0.0
    failure: Failure | None = None


def after_failure(
    error: BaseException, attempt: int, max_retries: int, policy: RetryPolicy
) -> Failed | Retry | Cancelled:
    """Whether a job whose attempt raised runs again, and when.

    What the handler itself asked for comes before the policy, but not before ``max_retries``.
    A policy that raises, or answers something that is no delay, ends the job: its error says so.
    """
    failure = Failure.of(error)
    if isinstance(error, Cancel):
        return Cancelled(failure)
    if attempt > max_retries or isinstance(error, PayloadError | ResultError | Fail | JobDeadline):
        return Failed(failure)
    if isinstance(error, RetryAfter):
        return Retry(failure, error.delay)
    try:
        delay = policy(attempt, error)
        if delay is None:
            return Failed(failure)
        return Retry(failure, max(0.0, _seconds(delay)))
    except BaseException as broken:  # noqa: BLE001 - whatever a user's policy raises is kept with the job
        if broken is not error:
            broken.__cause__ = error
        return Failed(Failure.of(broken))


def after_snooze(asked: Snooze, snoozes: int, max_snoozes: int) -> Snoozed | Failed:
    """What follows when a handler asks to run later, after so many snoozes before."""
    if snoozes < max_snoozes:
        return Snoozed(asked.delay, asked.reason)
    return Failed(Failure.of(SnoozedTooOften(max_snoozes)))


def in_time(outcome: OutcomeT, seconds_left: float | None, raised: BaseException) -> OutcomeT | Failed:
    """The outcome, unless the job would go on only after its deadline, so many seconds from now."""
    if seconds_left is None or not isinstance(outcome, Retry | Snoozed) or outcome.delay < seconds_left:
        return outcome
    late = JobDeadline("the deadline of the job comes before its next attempt could")
    late.__cause__ = raised
    return Failed(Failure.of(late))


def settlement(outcome: Outcome) -> Settlement | None:
    """What to write for an outcome; None for those that ``complete.sql`` writes or nobody may."""
    match outcome.otherwise if isinstance(outcome, Unanswered) else outcome:
        case Failed(failure, has_begun):
            return Settlement("failed" if has_begun else "overdue", failure=failure)
        case Retry(failure, delay):
            return Settlement("retry", delay, failure)
        case Snoozed(delay, is_asked_for=is_asked_for):
            return Settlement("snooze" if is_asked_for else "release", delay)
        case Interrupted():
            return Settlement("release")
        case Completed() | Committed() | Lost() | Cancelled(is_written=True):
            return None
        case Cancelled(failure, has_begun=has_begun):
            return Settlement("cancelled" if has_begun else "expired", failure=failure)


def _seconds(delay: object) -> float:
    if not isinstance(delay, timedelta):
        raise TypeError(f"a retry policy must return a timedelta or None, not {delay!r}")
    return min(delay.total_seconds(), LONGEST)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as broken:  # noqa: BLE001 - an exception that cannot be printed must not fail the worker
        return f"<unprintable {type(error).__qualname__}: {type(broken).__qualname__}>"


def storable(text: str, most: int) -> str:
    """Text that PostgreSQL can store: without NUL characters and lone surrogates."""
    return text[:most].replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
