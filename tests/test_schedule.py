"""Schedules: what contradicts itself is refused where it is written, and which slots become jobs is a table."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestar_jobs import Cron, Every, Job, JobsConfig, JobsPlugin, job
from litestar_jobs.errors import ConfigurationError, DefinitionError
from litestar_jobs.request import JobRequest
from litestar_jobs.schedule import MOST_MISSED, Schedule, bound, decide, new_job
from litestar_jobs.select import select_jobs
from litestar_jobs.times import CronTimes, EveryTimes
from litestar_jobs.trace import trace_id_of


class Report(msgspec.Struct):
    year: int


async def plain() -> None: ...


async def report(payload: Report) -> None: ...


def test_cron_and_every_make_a_schedule_named_like_the_job() -> None:
    (cron,) = job(cron="0  3 * * *", timezone="Europe/Berlin")(plain).schedules
    assert (cron.name, cron.times) == ("plain", CronTimes("0 3 * * *", "Europe/Berlin"))
    assert (cron.missed, cron.overlap) == ("latest", "allow")
    (utc,) = job(cron="0 3 * * *")(plain).schedules
    assert utc.times == CronTimes("0 3 * * *", "UTC")
    (every,) = job(every=timedelta(minutes=5), name="five")(plain).schedules
    assert (every.name, every.times) == ("five", EveryTimes(300))
    assert job(plain).schedules == []


def test_several_schedules_have_payloads_and_names_of_their_own() -> None:
    yearly, hourly = job(
        queue="reports",
        priority=5,
        max_retries=1,
        schedules=[Cron("0 0 1 1 *", payload=Report(2026), name="yearly"), Every(3600, payload=Report(0))],
    )(report).schedules
    assert (yearly.name, yearly.request.payload) == ("report:yearly", b'{"year":2026}')
    assert (hourly.name, hourly.request.payload) == ("report", b'{"year":0}')
    asked = yearly.request
    assert (asked.job_type, asked.queue, asked.priority, asked.max_retries) == ("report", "reports", 5, 1)


@pytest.mark.parametrize(
    ("fn", "options", "says"),
    [
        (
            plain,
            {"cron": "x"},
            r"schedule 'plain' of job test_schedule\.plain \(.*py:\d+\): the cron expression 'x' cannot",
        ),
        (plain, {"cron": "* * * * *", "timezone": "Mars"}, r"schedule 'plain' of job .*no time zone 'Mars'"),
        (plain, {"every": 0}, r"schedule 'plain' of job .*every must lie between 1 and"),
        (plain, {"every": 60, "cron": "* * * * *"}, r"cron and every exclude each other: .*schedules=\[Cron"),
        (plain, {"every": 60, "schedules": []}, r"every and schedules exclude each other"),
        (plain, {"timezone": "UTC"}, r"timezone belongs to cron"),
        (plain, {"every": 60, "timezone": "UTC"}, r"timezone belongs to cron"),
        (plain, {"schedules": Every(60)}, r"schedules must be a list of Cron\(\.\.\.\) and Every"),
        (plain, {"schedules": ["* * * * *"]}, r"schedules must be a list of Cron\(\.\.\.\) and Every"),
        (plain, {"schedules": [Every(60), Every(90)]}, r"two schedules 'plain': tell them apart, .*name='nightly'"),
        (plain, {"schedules": [Every(6, name="a"), Every(9, name="a")]}, r"two schedules 'plain:a'"),
        (plain, {"schedules": [Every(60, name="")]}, r"a schedule's name must be text of 1 to 100 characters"),
        (plain, {"schedules": [Every(60, name="a\nb")]}, r"must not contain control characters"),
        (plain, {"schedules": [Every(60, missed="no")]}, r"missed must be one of skip, latest, all, not 'no'"),  # type: ignore[arg-type]
        (plain, {"schedules": [Every(60, overlap="no")]}, r"overlap must be one of allow, skip, not 'no'"),  # type: ignore[arg-type]
        (plain, {"schedules": [Every(60, missed="all", overlap="skip")]}, r"forbids: take missed='latest' with it"),
        (plain, {"schedules": [Every(60, payload=5)]}, r"schedule 'plain' .*takes no payload"),
        (report, {"every": 60}, r"takes a payload: schedules=\[Every\(60, payload=\.\.\.\)\]"),
        (report, {"cron": "0 3 * * *"}, r"takes a payload: schedules=\[Cron\('0 3 \* \* \*', payload=\.\.\.\)\]"),
        (report, {"schedules": [Every(60, payload=Report("x"))]}, r"schedule 'report' .*Expected `int`, got `str`"),  # type: ignore[arg-type]
    ],
)
def test_a_contradiction_is_an_error_at_the_definition(
    fn: Callable[..., Any], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(DefinitionError, match=says):
        job(**options)(fn)


def test_two_jobs_whose_schedules_have_one_name_are_refused_in_one_application() -> None:
    jobs: list[Job[Any, Any]] = [
        job(schedules=[Every(60, name="b")], name="a")(plain),
        job(every=60, name="a:b")(plain),
    ]
    with pytest.raises(ConfigurationError, match="jobs 'a' and 'a:b' both have a schedule 'a:b'"):
        select_jobs(jobs)
    JobsPlugin(JobsConfig(jobs=jobs[:1]))


# Which slots become jobs.

NOW = datetime(2026, 11, 24, 12, 0, 0, 5000, tzinfo=UTC)
NOON = NOW.replace(microsecond=0)


def every_minute(**options: Any) -> Schedule:
    request = JobRequest(job_type="plain")
    return bound([Every(60, **options)], "plain", "here", lambda _: request)[0]


def ago(minutes: float) -> datetime:
    return NOON - timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("missed", "decided_until", "now", "slots", "left_out"),
    [
        # On time: all policies are alike.
        ("skip", ago(1), NOW, [0], 0),
        ("latest", ago(1), NOW, [0], 0),
        ("all", ago(1), NOW, [0], 0),
        # A little late is not missed.
        ("skip", ago(1), NOON + timedelta(seconds=59), [0], 0),
        # After a downtime of ten minutes.
        ("skip", ago(11), NOW, [0], 10),
        ("latest", ago(11), NOW, [0], 10),
        ("all", ago(11), NOW, list(range(10, -1, -1)), 0),
        # More than can be made up for.
        ("all", ago(5000), NOW, list(range(MOST_MISSED - 1, -1, -1)), 1),
        ("latest", ago(5000), NOW, [0], MOST_MISSED),
    ],
)
def test_missed_slots_are_skipped_or_made_up_for(
    missed: str, decided_until: datetime, now: datetime, slots: list[int], left_out: int
) -> None:
    decision = decide(every_minute(missed=missed), decided_until, now)
    assert decision is not None
    assert decision.slots == [ago(minutes) for minutes in slots]
    assert (decision.missed, decision.until) == (left_out, NOON)


def test_a_slot_that_was_missed_by_more_than_a_minute_is_skipped_if_that_is_the_policy() -> None:
    hourly = bound([Every(3600, missed="skip")], "plain", "here", lambda _: JobRequest(job_type="plain"))[0]
    decision = decide(hourly, ago(60), NOON + timedelta(seconds=61))
    assert decision is not None
    assert (decision.slots, decision.missed, decision.until) == ([], 1, NOON)


def test_what_is_decided_is_not_decided_again() -> None:
    schedule = every_minute(missed="all")
    assert decide(schedule, NOON, NOW) is None
    assert decide(schedule, NOW, NOW) is None
    assert decide(schedule, ago(-60), NOW) is None, "a clock that was put back"


@given(st.lists(st.integers(0, 7200), min_size=1, max_size=20))
def test_however_often_one_looks_each_slot_is_decided_once(moments: list[int]) -> None:
    schedule = every_minute(missed="all")
    decided, fired = NOON, list[datetime]()
    for moment in sorted(moments):
        if decision := decide(schedule, decided, NOON + timedelta(seconds=moment)):
            fired += decision.slots
            decided = decision.until
    reached = max(moments) // 60
    assert len(set(fired)) == len(fired)
    assert set(fired) <= {ago(-minutes) for minutes in range(1, reached + 1)}
    assert decided == ago(-reached) or reached == 0


def test_the_job_of_a_slot_begins_a_trace_and_says_where_it_comes_from() -> None:
    first, second = (new_job(every_minute(name="m"), slot) for slot in (NOON, None))
    told = msgspec.json.decode(first.headers or b"")
    assert (told["schedule"], told["slot"]) == ("plain:m", NOON.isoformat())
    assert trace_id_of(told["traceparent"]) == first.trace_id != second.trace_id
    assert "slot" not in msgspec.json.decode(second.headers or b"")
