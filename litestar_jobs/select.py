"""The jobs of an application: all that are defined, or some; and what follows when one of them has failed."""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import msgspec

from litestar_jobs.define import Job, registered_jobs
from litestar_jobs.errors import ConfigurationError
from litestar_jobs.limits import check_shared
from litestar_jobs.schedule import by_name

__all__ = ("follow_ups", "select_jobs")


def select_jobs(jobs: Iterable[object] | None) -> dict[str, Job[Any, Any]]:
    """The jobs of an application by name: these, or all that are registered.

    Raises :exc:`ConfigurationError` if two have one name, or schedules of two, or do not agree on a limit.
    """
    chosen: dict[str, Job[Any, Any]] = {}
    for each in registered_jobs() if jobs is None else map(_job, jobs):
        other = chosen.setdefault(each.name, each)
        if other is not each:
            raise ConfigurationError(
                f"two jobs are named {each.name!r}: {other.where} and {each.where}. "
                'Give one of them a name of its own with @job(name="..."), or choose with JobsConfig(jobs=[...]).'
            )
    by_name(schedule for each in chosen.values() for schedule in each.schedules)
    check_shared(each.gating for each in chosen.values() if each.gating is not None)
    return chosen


def follow_ups(jobs: Mapping[str, Job[Any, Any]]) -> str:
    """What follows when one of these has failed for good, as ``settle.sql`` and ``rescue.sql`` want to know it."""
    following = {name: job.on_failure for name, job in jobs.items() if job.on_failure is not None}
    told = {
        name: {"job_type": job.name, "queue": job.queue, "priority": job.priority, "max_retries": job.max_retries}
        for name, job in following.items()
    }
    return msgspec.json.encode(told).decode()


def _job(given: object) -> Job[Any, Any]:
    if not isinstance(given, Job):
        raise ConfigurationError(f"JobsConfig(jobs=[...]) takes functions decorated with @job, not {given!r}")
    return cast("Job[object, object]", given)
