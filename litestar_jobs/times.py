"""When: the moments at which a schedule is due, its *slots*, as a function of a moment. No clock is read here.

Daylight saving is Debian cron's. A cron expression with a fixed minute and hour names times of day: one in the hour
that is missing is due when that hour would have ended, one in the hour that comes twice is due the first time. With a
star for the minute or the hour it means elapsed time: what is missing is left out, what comes twice is due twice.
Intervals are elapsed time, counted from 1970 in UTC, so that all processes count alike and a deploy shifts nothing.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError

from litestar_jobs.durations import Duration, seconds
from litestar_jobs.errors import DefinitionError

__all__ = ("CronTimes", "EveryTimes", "Times", "between", "cron_times", "every_times", "next_after")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_WINDOW = timedelta(hours=1)
UNTRIED = datetime(2000, 1, 1, tzinfo=UTC)


class CronTimes(msgspec.Struct, frozen=True, tag_field="kind", tag="cron"):
    """The times that a cron expression names, on the clocks of a time zone."""

    expression: str
    timezone: str

    def __str__(self) -> str:
        return f"{self.expression} {self.timezone}"

    def after(self, moment: datetime) -> Iterator[datetime]:
        """All slots after a moment, in order, in UTC."""
        for slot in CronSim(self.expression, moment.astimezone(_zone(self.timezone))):
            # From within the second 2:00 of a doubled hour, the first one is seen again.
            if (found := slot.astimezone(UTC)) > moment:
                yield found


class EveryTimes(msgspec.Struct, frozen=True, tag_field="kind", tag="every"):
    """Every so many seconds."""

    seconds: float

    def __str__(self) -> str:
        return f"every {timedelta(seconds=self.seconds)}"

    def after(self, moment: datetime) -> Iterator[datetime]:
        """All slots after a moment, in order, in UTC."""
        interval = timedelta(seconds=self.seconds)
        number = (moment - EPOCH) // interval + 1
        while True:
            yield EPOCH + number * interval
            number += 1


Times = CronTimes | EveryTimes


@lru_cache(maxsize=10_000)
def next_after(times: Times, moment: datetime) -> datetime | None:
    """The first slot after a moment. None: there is none in fifty years."""
    return next(times.after(moment), None)


def between(times: Times, since: datetime, until: datetime, most: int) -> list[datetime]:
    """The slots after ``since`` and not after ``until``: the newest ones, in order, at most so many.

    However long ago ``since`` is, this looks back only as far as is needed to find them.
    """
    window = FIRST_WINDOW
    while True:
        begin = max(since, until - window)
        found: list[datetime] = []
        for slot in times.after(begin):
            if slot > until:
                break
            found.append(slot)
        if len(found) >= most or begin == since:
            return found[-most:]
        window *= 2


def cron_times(expression: object, timezone: object) -> CronTimes:
    """The times, checked; :exc:`DefinitionError` if they cannot be read or never come."""
    if not isinstance(timezone, str):
        raise DefinitionError(f"timezone must be a name such as 'Europe/Berlin', not {timezone!r}")
    try:
        _zone(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise DefinitionError(
            f"there is no time zone {timezone!r}: give a name of the IANA database such as 'Europe/Berlin'. Systems "
            "without that database get it with `pip install tzdata`."
        ) from None
    if not isinstance(expression, str):
        raise DefinitionError(f"cron must be an expression such as '0 3 * * *', not {expression!r}")
    times = CronTimes(" ".join(expression.split()), timezone)
    try:
        comes = next_after(times, UNTRIED)
    except CronSimError as error:
        raise DefinitionError(
            f"the cron expression {expression!r} cannot be read: {error}. It has five fields, minute, hour, day of the "
            "month, month and day of the week, such as '0 3 * * MON-FRI'; a sixth in front of them is the second."
        ) from None
    if comes is None:
        raise DefinitionError(f"the cron expression {expression!r} is never due: no day is like that")
    return times


def every_times(interval: Duration) -> EveryTimes:
    """The times, checked."""
    return EveryTimes(seconds(interval, "every", least=1))


@lru_cache
def _zone(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)
