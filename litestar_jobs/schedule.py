"""Schedules: a job that is enqueued by time. What a user writes becomes, at the definition of the job, what workers go by.

Nothing here knows a clock or a database: which slots are enqueued is a function of two moments.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias, cast

import msgspec
from uuid_utils.compat import uuid7

from litestar_jobs.durations import Duration
from litestar_jobs.errors import ConfigurationError, DefinitionError, PayloadRefused
from litestar_jobs.request import JobRequest, NewJob, check_name
from litestar_jobs.times import Times, between, cron_times, every_times, next_after
from litestar_jobs.trace import new_carrier, new_trace_id

__all__ = (
    "OF_A_SCHEDULE",
    "SCHEDULE",
    "SLOT",
    "Cron",
    "Decision",
    "Every",
    "Missed",
    "Overlap",
    "Schedule",
    "bound",
    "by_name",
    "decide",
    "given",
    "new_job",
)

UNSET: Any = msgspec.UNSET

Missed: TypeAlias = Literal["skip", "latest", "all"]
Overlap: TypeAlias = Literal["allow", "skip"]

SCHEDULE, SLOT = OF_A_SCHEDULE = ("schedule", "slot")
"""Under which names a job's headers tell where it came from."""

MAX_NAME = 100
MOST_MISSED = 100
"""Slots that ``missed="all"`` makes up for, the newest ones."""
ON_TIME = timedelta(minutes=1)
"""How late a slot may be and still not be missed."""


class _Schedule(msgspec.Struct, frozen=True, kw_only=True):
    payload: Any = UNSET
    """For jobs that take one; checked when the job is defined."""
    name: str | None = None
    """Tells it from other schedules of its job: ``litestar jobs schedules`` has it as ``job:name``."""
    missed: Missed = "latest"
    """What becomes of slots that no worker was there for: none is made up for, the latest one, or all, at most 100."""
    overlap: Overlap = "allow"
    """Whether a slot is left out while a job of this schedule has not finished."""


class Cron(_Schedule, frozen=True):
    """At the times of a cron expression: ``Cron("0 3 * * *", timezone="Europe/Berlin")``.

    Five fields: minute, hour, day of the month, month, day of the week; a sixth in front of them is the second.
    """

    expression: str
    timezone: str = "UTC"

    def times(self) -> Times:
        """When it is due; :exc:`DefinitionError` if that cannot be read."""
        return cron_times(self.expression, self.timezone)


class Every(_Schedule, frozen=True):
    """Every so many seconds, or ``timedelta``: ``Every(30)``. Slots are whole multiples, counted from 1970 in UTC."""

    interval: Duration

    def times(self) -> Times:
        """When it is due; :exc:`DefinitionError` if that is no interval."""
        return every_times(self.interval)


class Schedule(msgspec.Struct, frozen=True):
    """What workers go by."""

    name: str
    times: Times
    request: JobRequest
    missed: Missed
    overlap: Overlap


class Decision(msgspec.Struct, frozen=True):
    """Which slots are enqueued, and how many were missed, of which at most so many are counted as could be made up."""

    slots: Sequence[datetime]
    missed: int
    until: datetime
    """The newest slot that this decides."""


def given(cron: object, timezone: object, every: object, schedules: object) -> list[Cron | Every]:
    """The schedules in the options of ``@job``."""
    ways = [name for name, value in (("cron", cron), ("every", every), ("schedules", schedules)) if value is not None]
    if len(ways) > 1:
        raise DefinitionError(
            f"{' and '.join(ways)} exclude each other: for several schedules of one job there is "
            "schedules=[Cron(...), Every(...)]"
        )
    if timezone is not None and cron is None:
        raise DefinitionError("timezone belongs to cron; in schedules=[...] each Cron has its own")
    if cron is not None:
        return [Cron(cast("str", cron), timezone=cast("str", "UTC" if timezone is None else timezone))]
    if every is not None:
        return [Every(cast("Duration", every))]
    if schedules is None:
        return []
    listed = cast("Sequence[object]", schedules if isinstance(schedules, list | tuple) else [None])
    made = [each for each in listed if isinstance(each, Cron | Every)]
    if len(made) < len(listed):
        raise DefinitionError(f"schedules must be a list of Cron(...) and Every(...), not {schedules!r}")
    return made


def bound(schedules: Iterable[Cron | Every], job: str, where: str, ask: Callable[[Any], JobRequest]) -> list[Schedule]:
    """The schedules of one job, checked. ``ask`` makes its request for a payload."""
    made: dict[str, Schedule] = {}
    for each in schedules:
        name = job if each.name is None else f"{job}:{each.name}"
        try:
            schedule = _bound(each, name, ask)
        except (DefinitionError, PayloadRefused) as error:
            raise DefinitionError(f"schedule {name!r} of job {where}: {error}") from error
        if made.setdefault(name, schedule) is not schedule:
            raise DefinitionError(
                f"job {where} has two schedules {name!r}: tell them apart, for example with Cron(..., name='nightly')"
            )
    return list(made.values())


def _bound(schedule: Cron | Every, name: str, ask: Callable[[Any], JobRequest]) -> Schedule:
    if schedule.name is not None:
        check_name(schedule.name, "a schedule's name", MAX_NAME)
    _one_of(schedule.missed, "missed", ("skip", "latest", "all"))
    _one_of(schedule.overlap, "overlap", ("allow", "skip"))
    if schedule.missed == "all" and schedule.overlap == "skip":
        raise DefinitionError(
            "missed='all' enqueues several jobs at once, which overlap='skip' forbids: take missed='latest' with it"
        )
    times = schedule.times()
    try:
        return Schedule(name, times, ask(schedule.payload), schedule.missed, schedule.overlap)
    except DefinitionError as error:
        if schedule.payload is UNSET:
            raise DefinitionError(f"its job takes a payload: schedules=[{_sketch(schedule)}, payload=...)]") from error
        raise


def _sketch(schedule: Cron | Every) -> str:
    first = schedule.expression if isinstance(schedule, Cron) else schedule.interval
    return f"{type(schedule).__name__}({first!r}"


def _one_of(value: object, what: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise DefinitionError(f"{what} must be one of {', '.join(choices)}, not {value!r}")


def by_name(schedules: Iterable[Schedule]) -> dict[str, Schedule]:
    """The schedules of an application. :exc:`ConfigurationError` if two have one name."""
    named: dict[str, Schedule] = {}
    for each in schedules:
        other = named.setdefault(each.name, each)
        if other is not each:
            raise ConfigurationError(
                f"jobs {other.request.job_type!r} and {each.request.job_type!r} both have a schedule {each.name!r}: "
                "give one of these jobs or schedules another name"
            )
    return named


def decide(schedule: Schedule, decided_until: datetime, now: datetime) -> Decision | None:
    """What to do about the slots that are due. None: none is."""
    first = next_after(schedule.times, decided_until)
    if first is None or first > now:
        return None
    due = between(schedule.times, decided_until, now, MOST_MISSED + 1)
    match schedule.missed:
        case "all":
            slots = due[-MOST_MISSED:]
        case "skip" if now - due[-1] > ON_TIME:
            slots = []
        case _:
            slots = due[-1:]
    return Decision(slots, len(due) - len(slots), due[-1])


def new_job(schedule: Schedule, slot: datetime | None) -> NewJob:
    """The job for a slot, or beside the slots. A trace begins with it."""
    trace_id = new_trace_id()
    headers = {**new_carrier(trace_id), SCHEDULE: schedule.name}
    if slot is not None:
        headers[SLOT] = slot.isoformat()
    return NewJob(uuid7(), schedule.request, trace_id, msgspec.json.encode(headers))
