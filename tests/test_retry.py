"""Retry policies, as tables of rows: without a clock, without a database."""

from datetime import timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestar_jobs import Exponential, Fail, Fixed, Never, job
from litestar_jobs.errors import DefinitionError, JobTimeout, PayloadError
from litestar_jobs.retry import check_policy, with_rules

ERROR = ValueError("no")
WEEK = 7 * 24 * 3600.0


def delays(policy: Any, attempts: int) -> list[float]:
    return [policy(attempt, ERROR).total_seconds() for attempt in range(1, attempts + 1)]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Exponential(jitter=False), [1, 4, 16, 64, 256]),
        (Exponential(base=2, factor=1, jitter=False), [2, 2, 2]),
        (Exponential(base=0.5, factor=2, cap=3, jitter=False), [0.5, 1, 2, 3, 3]),
        (
            Exponential(base=timedelta(minutes=1), factor=10, cap=timedelta(hours=1), jitter=False),
            [60, 600, 3600, 3600],
        ),
        (Exponential(base=10, cap=5, jitter=False), [5, 5]),
        (Exponential(base=0, jitter=False), [0, 0]),
        (Fixed(10), [10, 10, 10]),
        (Fixed(timedelta(hours=2)), [7200, 7200]),
        (Fixed(0), [0, 0]),
    ],
    ids=repr,
)
def test_a_policy_waits_this_long(policy: Any, expected: list[float]) -> None:
    assert delays(policy, len(expected)) == expected


def test_never_means_never() -> None:
    assert Never()(1, ERROR) is None


@given(attempt=st.integers(1, 10_001))
def test_the_longest_delay_is_the_cap_at_any_attempt(attempt: int) -> None:
    assert Exponential(jitter=False)(attempt, ERROR).total_seconds() == min(4.0 ** min(attempt - 1, 500), WEEK)


@given(
    base=st.floats(0, 1e6),
    factor=st.floats(1, 1000),
    cap=st.floats(0, 1e8),
    attempt=st.integers(1, 10_001),
)
def test_jitter_draws_between_half_of_the_delay_and_all_of_it(
    base: float, factor: float, cap: float, attempt: int
) -> None:
    whole = Exponential(base, factor, cap, jitter=False)(attempt, ERROR)
    drawn = Exponential(base, factor, cap)(attempt, ERROR)
    rounding = timedelta(microseconds=1)
    assert whole / 2 - rounding <= drawn <= whole + rounding
    assert drawn >= timedelta(0)
    assert whole <= timedelta(seconds=cap) + rounding


def test_jobs_that_failed_together_do_not_come_back_together() -> None:
    assert len({Exponential(base=60)(1, ERROR) for _ in range(20)}) > 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Exponential(base=-1), r"Exponential\(base=...\) must lie between 0 and"),
        (lambda: Exponential(base=float("nan")), r"Exponential\(base=...\) must lie between"),
        (lambda: Exponential(base=float("inf")), r"Exponential\(base=...\) must lie between"),
        (lambda: Exponential(base=10**400), r"Exponential\(base=...\) must lie between"),
        (
            lambda: Exponential(base=cast("float", "1")),
            r"Exponential\(base=...\) must be a number of seconds or a timedelta, not '1'",
        ),
        (lambda: Exponential(base=True), r"Exponential\(base=...\) must be a number of seconds"),
        (lambda: Exponential(cap=timedelta(seconds=-1)), r"Exponential\(cap=...\) must lie between"),
        (lambda: Exponential(cap=cast("float", None)), r"Exponential\(cap=...\) must be a number of seconds"),
        (lambda: Exponential(factor=0.5), r"Exponential\(factor=...\) must be a number from 1 to 1000, not 0.5"),
        (lambda: Exponential(factor=1001), r"Exponential\(factor=...\) must be a number from 1 to 1000"),
        (lambda: Exponential(factor=float("nan")), r"Exponential\(factor=...\) must be a number from 1 to 1000"),
        (lambda: Exponential(factor=cast("float", "2")), r"Exponential\(factor=...\) must be a number from 1 to 1000"),
        (lambda: Exponential(factor=True), r"Exponential\(factor=...\) must be a number from 1 to 1000"),
        (lambda: Fixed(-1), r"Fixed\(delay=...\) must lie between"),
        (lambda: Fixed(cast("float", None)), r"Fixed\(delay=...\) must be a number of seconds"),
    ],
)
def test_a_policy_refuses_nonsense_when_it_is_made(make: Any, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        make()


async def asynchronous(attempt: int, error: BaseException) -> timedelta:
    return timedelta(0)


@pytest.mark.parametrize("policy", [None, 5, "never", timedelta(1), Never, Exponential, asynchronous])
def test_what_cannot_be_a_policy_is_refused(policy: Any) -> None:
    with pytest.raises(DefinitionError, match=r"retry must be a policy such as Exponential\(\), Fixed\(10\)"):
        check_policy(policy)


@pytest.mark.parametrize("policy", [Never(), Fixed(1), Exponential(), lambda attempt, error: None])
def test_what_can_be_called_can_be_a_policy(policy: Any) -> None:
    check_policy(policy)


# Rules by type.


class RateLimited(ConnectionError): ...


class Banned(RateLimited): ...


RULES: list[tuple[Any, Any, dict[type[BaseException], float | None]]] = [
    (
        (ConnectionError, LookupError),
        None,
        {ConnectionError: 9, Banned: 9, KeyError: 9, ValueError: None, OSError: None},
    ),
    (ConnectionError, None, {RateLimited: 9, JobTimeout: None}),
    (TimeoutError, None, {JobTimeout: 9, TimeoutError: 9}),
    (None, (LookupError,), {KeyError: None, ValueError: 9, JobTimeout: 9}),
    (None, LookupError, {KeyError: None, ValueError: 9}),
    ((ConnectionError,), (RateLimited,), {ConnectionError: 9, RateLimited: None, Banned: None}),
    ((RateLimited,), (OSError,), {RateLimited: 9, OSError: None, ConnectionError: None, ValueError: None}),
    (
        {RateLimited: Fixed(60), OSError: Fixed(1)},
        Banned,
        {RateLimited: 60, ConnectionError: 1, Banned: None, KeyError: None},
    ),
    ({Exception: Fixed(5)}, None, {ValueError: 5, SystemExit: None}),
    ({BaseException: lambda attempt, _: timedelta(seconds=attempt)}, None, {SystemExit: 1}),
]


@pytest.mark.parametrize(("retry_on", "fail_on", "expected"), RULES)
def test_the_rule_of_the_most_specific_class_decides(
    retry_on: Any, fail_on: Any, expected: dict[type[BaseException], float | None]
) -> None:
    policy = with_rules(Fixed(9), retry_on, fail_on)
    for kind, delay in expected.items():
        error = JobTimeout(1) if kind is JobTimeout else kind()
        answer = policy(1, error)
        assert (kind, answer and answer.total_seconds()) == (kind, delay)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"retry_on": (KeyError,), "fail_on": (KeyError,)}, "KeyError is both in retry_on and in fail_on"),
        ({"retry_on": {KeyError: Fixed(1)}, "fail_on": KeyError}, "KeyError is both"),
        ({"retry_on": (int,)}, "retry_on names types of exceptions, such as ConnectionError, not <class 'int'>"),
        ({"retry_on": KeyError("x")}, "retry_on names types of exceptions"),
        ({"fail_on": "KeyError"}, "fail_on names types of exceptions"),
        ({"fail_on": [KeyError, 5]}, "fail_on names types of exceptions, such as ConnectionError, not 5"),
        ({"retry_on": ()}, "retry_on names no exception"),
        ({"fail_on": []}, "fail_on names no exception"),
        ({"retry_on": {KeyError: 5}}, "retry must be a policy"),
        ({"retry_on": {KeyError: Never()}}, "name it in fail_on"),
        ({"retry_on": KeyError, "retry": Never()}, "name it in fail_on"),
        ({"fail_on": Fail}, "fail_on cannot name Fail"),
        ({"retry_on": (PayloadError,)}, "retry_on cannot name PayloadError"),
    ],
)
def test_rules_that_make_no_sense_are_refused_when_the_job_is_defined(options: dict[str, Any], told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        job(**options)
