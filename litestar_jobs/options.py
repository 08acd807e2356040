"""What ``@job(...)`` takes, checked one by one. What goes together with the function is checked where that is known."""

from collections.abc import Sequence
from typing import Any

import msgspec

from litestar_jobs.durations import Duration, seconds
from litestar_jobs.errors import DefinitionError
from litestar_jobs.limits import Limit, Rate
from litestar_jobs.request import (
    MAX_JOB_TYPE,
    MAX_PRIORITY,
    MAX_RETRIES,
    check_limits,
    check_name,
    check_queue,
    whole_number,
)
from litestar_jobs.retry import ErrorTypes, Exponential, RetryOn, RetryPolicy, check_policy, with_rules
from litestar_jobs.schedule import Cron, Every, given
from litestar_jobs.unique import Unique

__all__ = ("JobOptions",)


class JobOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What ``@job(...)`` takes."""

    name: str | None = None
    queue: str = "default"
    max_retries: int = 3
    retry: RetryPolicy = Exponential()
    retry_on: RetryOn | None = None
    fail_on: ErrorTypes | None = None
    max_snoozes: int = 100
    on_failure: Any = None
    """A job that takes a ``FailedJob``."""
    timeout: Duration | None = None
    expires_in: Duration | None = None
    deadline: Duration | None = None
    priority: int = 0
    sync_to_thread: bool | None = None
    cron: str | None = None
    timezone: str | None = None
    every: Duration | None = None
    schedules: Sequence[Cron | Every] | None = None
    result: bool = True
    unique: Unique | None = None
    limit: Limit | None = None
    rate: Rate | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name, "a job's name", MAX_JOB_TYPE)
        check_queue(self.queue)
        whole_number(self.max_retries, "max_retries", 0, MAX_RETRIES)
        whole_number(self.priority, "priority", -MAX_PRIORITY, MAX_PRIORITY)
        check_policy(self.retry)
        with_rules(self.retry, self.retry_on, self.fail_on)
        whole_number(self.max_snoozes, "max_snoozes", 0, MAX_RETRIES)
        if self.timeout is not None:
            seconds(self.timeout, "timeout", least=0.001)
        check_limits(self.expires_in, self.deadline)
        _check_yes_or_no(self.sync_to_thread)
        given(self.cron, self.timezone, self.every, self.schedules)
        if not isinstance(self.result, bool):  # pyright: ignore[reportUnnecessaryIsInstance] - of those who do not check
            raise DefinitionError(f"result must be True or False, not {self.result!r}")
        if not isinstance(self.unique, Unique | None):  # pyright: ignore[reportUnnecessaryIsInstance] - the same
            raise DefinitionError(f"unique must be Unique(...), not {self.unique!r}")

    def but(self, options: dict[str, Any]) -> "JobOptions":
        """These options with others in their places."""
        unknown = sorted(options.keys() - set(self.__struct_fields__))
        if unknown:
            raise DefinitionError(
                f"@job has no option {unknown[0]!r}; it has {', '.join(self.__struct_fields__)}. "
                "Values for the job itself belong into its payload."
            )
        return msgspec.structs.replace(self, **options)


def _check_yes_or_no(in_thread: object) -> None:
    if not isinstance(in_thread, bool | None):
        raise DefinitionError(f"sync_to_thread must be True or False, not {in_thread!r}")
