"""When a schedule is due: a function of a moment, looked at in tables, and on both changes of the clocks."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestar_jobs.errors import DefinitionError
from litestar_jobs.times import CronTimes, EveryTimes, Times, between, cron_times, every_times, next_after

BERLIN = "Europe/Berlin"
SPRING = datetime(2026, 3, 29, tzinfo=UTC)
"""In Berlin, 02:00 to 03:00 is missing: 01:00 UTC is 03:00."""
AUTUMN = datetime(2026, 10, 25, tzinfo=UTC)
"""In Berlin, 02:00 to 03:00 comes twice: first from 00:00 UTC, again from 01:00 UTC."""


def slots(times: Times, since: datetime, count: int, zone: str = "UTC") -> list[str]:
    """The next slots, as the clocks of a zone show them."""
    return [f"{slot.astimezone(ZoneInfo(zone)):%d. %H:%M}" for slot in islice(times.after(since), count)]


@pytest.mark.parametrize(
    ("expression", "after", "comes"),
    [
        ("0 3 * * *", "2026-11-24T02:59:59", "2026-11-24T03:00:00"),
        ("0 3 * * *", "2026-11-24T03:00:00", "2026-11-25T03:00:00"),
        ("*/15 * * * *", "2026-11-24T03:00:00.000001", "2026-11-24T03:15:00"),
        ("0 9 * * MON-FRI", "2026-11-27T12:00:00", "2026-11-30T09:00:00"),
        ("0 0 29 2 *", "2026-11-24T00:00:00", "2028-02-29T00:00:00"),
        ("0 0 L * *", "2026-02-01T00:00:00", "2026-02-28T00:00:00"),
        ("30 0 0 * * *", "2026-11-24T00:00:00", "2026-11-24T00:00:30"),
    ],
)
def test_a_cron_expression_is_due_at_its_next_time(expression: str, after: str, comes: str) -> None:
    found = next_after(cron_times(expression, "UTC"), datetime.fromisoformat(after).replace(tzinfo=UTC))
    assert found == datetime.fromisoformat(comes).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "due"),
    [
        ("30 2 * * *", ["28. 02:30", "29. 03:00", "30. 02:30"]),
        ("0,30 2 * * *", ["28. 02:00", "28. 02:30", "29. 03:00", "30. 02:00"]),
        ("0 2,3 * * *", ["28. 02:00", "28. 03:00", "29. 03:00", "30. 02:00"]),
        ("0 3 * * *", ["28. 03:00", "29. 03:00", "30. 03:00"]),
    ],
)
def test_a_time_of_day_in_the_missing_hour_is_due_once_when_that_hour_would_have_ended(
    expression: str, due: list[str]
) -> None:
    assert slots(cron_times(expression, BERLIN), SPRING - timedelta(days=1), len(due), BERLIN) == due


@pytest.mark.parametrize(("expression", "hours"), [("30 * * * *", [0, 1, 2]), ("*/30 * * * *", [0, 0, 1, 1, 2, 2])])
def test_elapsed_time_leaves_out_nothing_but_what_does_not_exist(expression: str, hours: list[int]) -> None:
    due = islice(cron_times(expression, BERLIN).after(SPRING - timedelta(seconds=1)), len(hours))
    assert [slot.hour for slot in due] == hours


def test_a_star_for_the_minute_in_the_missing_hour_is_not_due_on_that_day() -> None:
    due = slots(cron_times("*/30 2 * * *", BERLIN), SPRING - timedelta(days=1), 4, BERLIN)
    assert due == ["28. 02:00", "28. 02:30", "30. 02:00", "30. 02:30"]


def test_a_time_of_day_in_the_doubled_hour_is_due_once_the_first_time() -> None:
    due = list(islice(cron_times("30 2 * * *", BERLIN).after(AUTUMN - timedelta(hours=2)), 2))
    assert due == [AUTUMN + timedelta(minutes=30), AUTUMN + timedelta(days=1, minutes=90)]


@pytest.mark.parametrize("minutes", [30, 45, 60, 75, 90, 105])
def test_from_within_the_doubled_hour_no_slot_comes_a_second_time(minutes: int) -> None:
    moment = AUTUMN + timedelta(minutes=minutes)
    assert next_after(cron_times("30 2 * * *", BERLIN), moment) == AUTUMN + timedelta(days=1, minutes=90)


@pytest.mark.parametrize("expression", ["30 * * * *", "*/30 2 * * *"])
def test_elapsed_time_is_due_in_both_halves_of_the_doubled_hour(expression: str) -> None:
    due = islice(cron_times(expression, BERLIN).after(AUTUMN), 4)
    assert {AUTUMN + timedelta(minutes=30), AUTUMN + timedelta(minutes=90)} <= set(due)


@pytest.mark.parametrize("day", [SPRING, AUTUMN])
def test_an_interval_is_elapsed_time_whatever_the_clocks_do(day: datetime) -> None:
    due = list(islice(every_times(timedelta(minutes=40)).after(day - timedelta(hours=6)), 30))
    assert {later - earlier for earlier, later in pairwise(due)} == {timedelta(minutes=40)}


def test_an_interval_counts_from_1970_so_that_all_processes_count_alike() -> None:
    moment = datetime(2026, 11, 24, 10, 7, 31, tzinfo=UTC)
    assert next_after(every_times(300), moment) == datetime(2026, 11, 24, 10, 10, tzinfo=UTC)
    assert next_after(every_times(2.5), moment) == datetime(2026, 11, 24, 10, 7, 32, 500_000, tzinfo=UTC)
    assert next_after(every_times(60), datetime(2026, 11, 24, 10, 7, tzinfo=UTC)) == datetime(
        2026, 11, 24, 10, 8, tzinfo=UTC
    )


ZONES = ["UTC", BERLIN, "America/New_York", "America/Havana", "Africa/Cairo", "Asia/Kathmandu", "Pacific/Apia"]
EXPRESSIONS = ["30 2 * * *", "0,30 0-3 * * *", "*/7 * * * *", "0 * * * *", "*/20 2 * * *", "0 0 1 * *", "15 0 * * SUN"]
MOMENTS = st.integers(0, 30 * 366 * 24 * 60).map(
    lambda minutes: datetime(2005, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
)
TIMES: st.SearchStrategy[Times] = st.one_of(
    st.builds(CronTimes, st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES)),
    st.builds(EveryTimes, st.sampled_from([1.0, 2.5, 90.0, 3600.0, 86_400.0])),
)


@given(TIMES, MOMENTS, st.floats(0, 1))
def test_slots_are_the_same_from_wherever_one_counts(times: Times, moment: datetime, part: float) -> None:
    """Workers begin to count at different moments; for one slot to be theirs together, all have to see it."""
    first, second, third = islice(times.after(moment), 3)
    assert moment < first < second < third
    between_two = first + (second - first) * part
    assert next_after(times, min(between_two, second - timedelta(microseconds=1))) == second


@given(TIMES, MOMENTS, st.integers(1, 20))
def test_the_newest_slots_are_the_last_of_all(times: Times, moment: datetime, most: int) -> None:
    all_slots = list(islice(times.after(moment), 50))
    assert between(times, moment, all_slots[-1], most) == all_slots[-most:]
    assert between(times, moment, moment, most) == []


def test_a_look_back_over_years_takes_no_longer_than_what_it_looks_for() -> None:
    until = datetime(2026, 11, 24, 12, tzinfo=UTC)
    found = between(every_times(1), datetime(1990, 1, 1, tzinfo=UTC), until, 3)
    assert found == [until - timedelta(seconds=2), until - timedelta(seconds=1), until]


@pytest.mark.parametrize(
    ("expression", "timezone", "says"),
    [
        ("nonsense", "UTC", r"'nonsense' cannot be read: Wrong number of fields\. It has five fields"),
        ("0 25 * * *", "UTC", r"cannot be read: Bad hour"),
        ("0 0 30 2 *", "UTC", r"cannot be read: Bad day-of-month"),
        ("0 0 * 2 MON#5,7#9", "UTC", r"cannot be read: Bad day-of-week"),
        ("", "UTC", r"cannot be read"),
        (5, "UTC", r"cron must be an expression such as '0 3 \* \* \*', not 5"),
        ("* * * * *", "Europe/Berlni", r"no time zone 'Europe/Berlni'.*'Europe/Berlin'.*pip install tzdata"),
        ("* * * * *", "Europe", r"no time zone 'Europe'"),
        ("* * * * *", "../etc/passwd", r"no time zone"),
        ("* * * * *", "", r"no time zone ''"),
        ("* * * * *", None, r"timezone must be a name such as 'Europe/Berlin', not None"),
    ],
)
def test_what_cannot_be_read_or_never_comes_is_refused(expression: object, timezone: object, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        cron_times(expression, timezone)


def test_an_expression_that_no_day_fulfils_is_refused() -> None:
    with pytest.raises(DefinitionError, match="is never due: no day is like that"):
        cron_times("0 0 */30 * SUN#2", "UTC")  # the first or the 31st, and a second Sunday


@given(st.text(alphabet="0123456789*/,-#LWMON ", max_size=20))
def test_whatever_stands_there_is_read_or_refused(expression: str) -> None:
    try:
        times = cron_times(expression, "UTC")
    except DefinitionError:
        return
    assert next_after(times, datetime(2026, 1, 1, tzinfo=UTC)) is not None


@pytest.mark.parametrize("interval", [0, 0.5, -1, True, "5", None, timedelta(days=36_500)])
def test_an_interval_is_at_least_a_second_and_no_eternity(interval: object) -> None:
    with pytest.raises(DefinitionError, match="every must"):
        every_times(interval)  # type: ignore[arg-type]
