"""Which jobs are meant: conditions for those who look for many, or do something to them."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

import msgspec

from litestar_jobs.durations import Duration, seconds
from litestar_jobs.errors import DefinitionError
from litestar_jobs.request import MAX_JOB_TYPE, check_name, check_queue
from litestar_jobs.row import JobStatus

__all__ = ("JobFilter",)

MAX_ERROR = 1_000
MAX_TRACE_ID = 64


class JobFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs for which all of these conditions hold; there must be one. All jobs are ``JobFilter.everything()``.

    Raises :exc:`DefinitionError` for conditions that make no sense.
    """

    status: JobStatus | str | None = None
    queue: str | None = None
    job_type: str | None = None
    created_before: datetime | None = None
    """An aware time."""
    older_than: Duration | None = None
    """Created so long ago, or longer, by the database's clock: seconds or a ``timedelta``."""
    error: str | None = None
    """In the last error of the job, its type or its message, whatever the case of the letters."""
    trace_id: str | None = None
    ids: Collection[UUID] | None = None
    """None of them means no job."""
    all_jobs: bool = False
    """Said by ``everything()``."""

    @classmethod
    def everything(cls) -> "JobFilter":
        """Every job there is."""
        return cls(all_jobs=True)

    def __post_init__(self) -> None:
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        given = [name for name, value in values.items() if value is not None and value is not False]
        if not given:
            raise DefinitionError(
                "a filter needs a condition, such as JobFilter(status='failed'); for all jobs write "
                "JobFilter.everything()"
            )
        if self.all_jobs and len(given) > 1:
            raise DefinitionError(f"a filter for all jobs has no conditions, and this one has {given[0]}")
        _check_status(self.status)
        if self.queue is not None:
            check_queue(self.queue)
        for name, most in (("job_type", MAX_JOB_TYPE), ("trace_id", MAX_TRACE_ID)):
            if getattr(self, name) is not None:
                check_name(getattr(self, name), name, most)
        _check_created(self.created_before, self.older_than)
        _check_error(self.error)
        _check_ids(self.ids)

    def among(self, statuses: Collection[JobStatus], verb: str) -> tuple[JobStatus, ...]:
        """Those of these statuses that are meant; :exc:`DefinitionError` if none is."""
        if self.status is None:
            return tuple(statuses)
        if self.status not in statuses:
            listed = " and ".join(statuses)
            raise DefinitionError(f"only {listed} jobs can be {verb}, and the filter is for {self.status} ones")
        return (JobStatus(self.status),)

    def arguments(self, statuses: Sequence[JobStatus]) -> tuple[Any, ...]:
        """The first eight parameters of ``matching.sql`` and ``find.sql``."""
        return (
            [status.value for status in statuses],
            self.queue,
            self.job_type,
            self.created_before,
            None if self.older_than is None else seconds(self.older_than, "older_than"),
            self.error,
            self.trace_id,
            None if self.ids is None else list(self.ids),
        )


def _check_status(status: object) -> None:
    if status is not None and status not in tuple(JobStatus):
        raise DefinitionError(f"status must be one of {', '.join(JobStatus)}, not {status!r}")


def _check_created(before: object, older_than: object) -> None:
    if older_than is not None:
        seconds(older_than, "older_than")
        if before is not None:
            raise DefinitionError("give created_before or older_than, not both")
    if before is not None and (not isinstance(before, datetime) or before.utcoffset() is None):
        raise DefinitionError(f"created_before must be an aware datetime, such as datetime.now(UTC), not {before!r}")


def _check_error(error: object) -> None:
    if error is None:
        return
    if not isinstance(error, str) or not 1 <= len(error) <= MAX_ERROR or "\0" in error:
        raise DefinitionError(f"error must be text of 1 to {MAX_ERROR} characters without NUL, not {error!r}")


def _check_ids(ids: object) -> None:
    if ids is None:
        return
    if not isinstance(ids, Collection) or not all(isinstance(each, UUID) for each in cast("Collection[object]", ids)):
        raise DefinitionError(f"ids must be a list of UUIDs, not {ids!r}")
