"""A job request: what a call of a job gives, and what the client writes."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, SafeUUID

import msgspec

from litestar_jobs.durations import Duration, seconds
from litestar_jobs.errors import DefinitionError
from litestar_jobs.unique import UniqueKey

__all__ = (
    "MAX_JOB_TYPE",
    "MAX_KEY",
    "MAX_PRIORITY",
    "MAX_RETRIES",
    "NOT_LIMITED",
    "JobId",
    "JobRequest",
    "Limited",
    "NewJob",
    "check_limits",
    "check_name",
    "check_queue",
    "whole_number",
)

MAX_QUEUE = 100
MAX_JOB_TYPE = 200
MAX_KEY = 400
MAX_RETRIES = 10_000
MAX_PRIORITY = 30_000

skim = msgspec.json.Decoder(msgspec.Raw).decode
"""Reads JSON without making anything of it."""

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def check_name(value: object, what: str, most: int) -> str:
    """The name; :exc:`DefinitionError` if it is empty, too long, or has characters that no name should."""
    if not isinstance(value, str) or not 1 <= len(value) <= most:
        shown = f"{value[:40]!r}… ({len(value)} characters)" if isinstance(value, str) and value else repr(value)
        raise DefinitionError(f"{what} must be text of 1 to {most} characters, not {shown}")
    if CONTROL.search(value):
        raise DefinitionError(f"{what} must not contain control characters: {value!r}")
    return value


def check_queue(value: object) -> str:
    """A queue's name. Quotes and spaces are fine: a name never becomes SQL."""
    return check_name(value, "a queue's name", MAX_QUEUE)


def whole_number(value: object, what: str, least: int, most: int) -> int:
    """The number; :exc:`DefinitionError`, naming ``what``, if it is none or out of bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise DefinitionError(f"{what} must be a whole number from {least} to {most}, not {value!r}")
    return value


def _check_aware(value: object) -> None:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise DefinitionError(
            f"run_at must be an aware datetime, such as datetime.now(UTC) + timedelta(hours=1), not {value!r}"
        )


def _check_json(value: object) -> None:
    """One payload that is no JSON would fail the others of its batch."""
    if not isinstance(value, bytes):
        raise DefinitionError(f"a payload must be JSON as bytes, for example msgspec.json.encode(...), not {value!r}")
    try:
        value.decode()
        skim(value)
    except (ValueError, RecursionError) as error:
        raise DefinitionError(f"a payload must be JSON as bytes, but is not: {error}") from error


class Limited(msgspec.Struct, frozen=True):
    """What a job with a limit or a rate brings with it: their keys, and their numbers in the code that enqueued it."""

    limit_key: str | None = None
    rate_key: str | None = None
    concurrency: int | None = None
    rate: int | None = None
    per: float | None = None

    @property
    def gate(self) -> str:
        """Where the job waits first: a kind and a key, as workers are notified of them."""
        return f"rate:{self.rate_key}" if self.limit_key is None else f"limit:{self.limit_key}"


NOT_LIMITED = Limited()


def check_limits(expires_in: object, deadline: object) -> None:
    """:exc:`DefinitionError` if these are no durations."""
    for name, value in (("expires_in", expires_in), ("deadline", deadline)):
        if value is not None:
            seconds(value, name, least=0.001)


class JobId(UUID):
    """The id of a job that was enqueued: a UUID that also says whether the job is new, or was there before."""

    __slots__ = ("is_new",)

    is_new: bool

    def __init__(self, number: int, *, is_new: bool = True) -> None:
        # As UUID's own does, which takes longer because it takes more kinds of things; UUIDs refuse to be changed.
        object.__setattr__(self, "int", number)
        object.__setattr__(self, "is_safe", SafeUUID.unknown)
        object.__setattr__(self, "is_new", is_new)

    def __reduce__(self) -> tuple[Any, ...]:
        return _job_id, (self.int, self.is_new)


def _job_id(number: int, is_new: bool) -> JobId:  # noqa: FBT001 - of pickle
    return JobId(number, is_new=is_new)


class JobRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for. Usually made by calling a job; build one by hand for a job that another program defines.

    ``payload`` is JSON. A ``run_at`` in the past means now; ``run_at`` and ``delay`` exclude each other.
    Raises :exc:`DefinitionError` for values that make no sense.
    """

    job_type: str
    payload: bytes = b"null"
    queue: str = "default"
    max_retries: int = 3
    priority: int = 0
    """Lower runs first."""
    run_at: datetime | None = None
    delay: Duration | None = None
    """Seconds or a ``timedelta``, counted by the database from the moment of writing."""
    expires_in: Duration | None = None
    """If no attempt was begun so long after the job might run, it ends as cancelled."""
    deadline: Duration | None = None
    """If the job has not completed so long after it was written, it fails for good."""
    unique: UniqueKey | None = None
    """Of a job with ``@job(unique=...)``; made by calling it."""
    limited: Limited | None = None
    """Of a job with a limit or a rate; a call of the job knows."""

    def __post_init__(self) -> None:
        check_name(self.job_type, "a job's name", MAX_JOB_TYPE)
        check_queue(self.queue)
        whole_number(self.max_retries, "max_retries", 0, MAX_RETRIES)
        whole_number(self.priority, "priority", -MAX_PRIORITY, MAX_PRIORITY)
        if self.delay is not None:
            seconds(self.delay, "delay")
            if self.run_at is not None:
                raise DefinitionError("give run_at or delay, not both")
        if self.run_at is not None:
            _check_aware(self.run_at)
        if self.expires_in is not None or self.deadline is not None:
            self._check_times()
        _check_json(self.payload)

    def _check_times(self) -> None:
        check_limits(self.expires_in, self.deadline)
        if self.deadline is not None and self.delay_seconds >= seconds(self.deadline, "deadline"):
            raise DefinitionError(f"a job that waits {self.delay!r} cannot keep a deadline of {self.deadline!r}")

    @property
    def delay_seconds(self) -> float:
        """The delay as a number; 0 without one."""
        return self.delay.total_seconds() if isinstance(self.delay, timedelta) else (self.delay or 0.0)

    @property
    def is_plain(self) -> bool:
        """Whether nothing special is asked for, so that the plain statements can write it."""
        return self.limited is None and self.unique is None and self.expires_in is None and self.deadline is None

    @property
    def limits(self) -> tuple[float | None, float | None]:
        """``expires_in`` and ``deadline`` as numbers."""
        return (
            None if self.expires_in is None else seconds(self.expires_in, "expires_in"),
            None if self.deadline is None else seconds(self.deadline, "deadline"),
        )


class NewJob(msgspec.Struct, frozen=True):
    """A request with what the client adds: an id, and where it came from."""

    id: UUID
    request: JobRequest
    trace_id: str | None = None
    headers: bytes | None = None

    @property
    def row(self) -> tuple[Any, ...]:
        """The job in the order of the parameters of ``enqueue_one.sql``."""
        asked = self.request
        return (
            str(self.id),
            asked.queue,
            asked.job_type,
            asked.payload.decode(),
            asked.priority,
            asked.max_retries,
            self.trace_id,
            self.headers.decode() if self.headers else None,
            asked.run_at,
            asked.delay_seconds,
        )

    @property
    def special(self) -> dict[str, Any]:
        """The job as an object for ``enqueue_special.sql``."""
        asked = self.request
        expires_in, deadline = asked.limits
        unique = {} if asked.unique is None else msgspec.structs.asdict(asked.unique)
        return {
            "id": self.id,
            "queue": asked.queue,
            "job_type": asked.job_type,
            "payload": msgspec.Raw(asked.payload),
            "priority": asked.priority,
            "max_retries": asked.max_retries,
            "trace_id": self.trace_id,
            "headers": msgspec.Raw(self.headers) if self.headers else None,
            "run_at": asked.run_at,
            "delay": asked.delay_seconds,
            "expires_in": expires_in,
            "deadline": deadline,
            **unique,
            **msgspec.structs.asdict(asked.limited or NOT_LIMITED),
        }

    @staticmethod
    def columns(jobs: Sequence["NewJob"]) -> tuple[list[Any], ...]:
        """The jobs as arrays, in the order of the parameters of ``enqueue.sql``."""
        return tuple(map(list, zip(*(job.row for job in jobs), strict=True)))
