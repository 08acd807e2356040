"""What an end of an attempt means, as a table: without a clock, without a database."""

import traceback
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litestar_jobs import Exponential, Fixed, Never
from litestar_jobs.durations import LONGEST
from litestar_jobs.errors import JobTimeout, PayloadError
from litestar_jobs.outcome import (
    MAX_MESSAGE,
    MAX_TRACEBACK,
    Cancelled,
    Committed,
    Completed,
    Failed,
    Failure,
    Interrupted,
    Lost,
    Outcome,
    Retry,
    Settlement,
    Snoozed,
    after_failure,
    settlement,
)

FAILURE = Failure("ValueError", "no", "Traceback: no")


def raised(error: BaseException) -> BaseException:
    """The error with a traceback."""
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("outcome", "written"),
    [
        (Completed(), None),
        (Committed(), None),
        (Lost(), None),
        (Failed(FAILURE), Settlement("failed", 0, FAILURE)),
        (Retry(FAILURE, 5), Settlement("retry", 5, FAILURE)),
        (Snoozed(5, "not yet"), Settlement("snooze", 5)),
        (Snoozed(5, is_asked_for=False), Settlement("release", 5)),
        (Interrupted(), Settlement("release")),
        (Cancelled(), Settlement("cancelled")),
        (Cancelled(FAILURE), Settlement("cancelled", 0, FAILURE)),
    ],
    ids=repr,
)
def test_an_outcome_writes_this(outcome: Outcome, written: Settlement | None) -> None:
    assert settlement(outcome) == written


@pytest.mark.parametrize(
    ("attempt", "max_retries", "policy", "delay"),
    [
        (1, 0, Fixed(5), None),
        (1, 1, Fixed(5), 5),
        (2, 1, Fixed(5), None),
        (5, 5, Fixed(5), 5),
        (6, 5, Fixed(5), None),
        (7, 5, Fixed(5), None),
        (1, 5, Never(), None),
        (3, 5, Exponential(jitter=False), 16),
        (1, 5, lambda attempt, error: None, None),
        (4, 5, lambda attempt, error: timedelta(minutes=attempt), 240),
        (1, 5, lambda attempt, error: timedelta(hours=1) if isinstance(error, ValueError) else None, 3600),
        (1, 5, lambda attempt, error: timedelta(0), 0),
        (1, 5, lambda attempt, error: timedelta(seconds=-5), 0),
        (1, 5, lambda attempt, error: timedelta.min, 0),
        (1, 5, lambda attempt, error: timedelta.max, LONGEST),
    ],
)
def test_a_failed_attempt_is_followed_by_this(attempt: int, max_retries: int, policy: Any, delay: float | None) -> None:
    outcome = after_failure(raised(ValueError("no")), attempt, max_retries, policy)
    if delay is None:
        assert isinstance(outcome, Failed)
    else:
        assert isinstance(outcome, Retry)
        assert outcome.delay == delay
    assert (outcome.failure.error_type, outcome.failure.message) == ("ValueError", "no")


@given(attempt=st.integers(1, 10_001), max_retries=st.integers(0, 10_000), seconds=st.floats(-1e9, 1e9))
def test_a_job_is_never_executed_more_often_than_allowed_and_never_delayed_without_end(
    attempt: int, max_retries: int, seconds: float
) -> None:
    outcome = after_failure(ValueError("no"), attempt, max_retries, lambda *_: timedelta(seconds=seconds))
    assert isinstance(outcome, Retry) == (attempt <= max_retries)
    if isinstance(outcome, Retry):
        assert 0 <= outcome.delay <= LONGEST


def test_a_payload_that_does_not_decode_is_not_tried_again() -> None:
    assert isinstance(after_failure(PayloadError("gone"), 1, 5, Fixed(1)), Failed)


def test_a_timeout_is_tried_again_like_any_failure() -> None:
    outcome = after_failure(JobTimeout(2.5), 1, 5, Fixed(1))
    assert isinstance(outcome, Retry)
    assert outcome.failure.message == "the attempt ran longer than its timeout of 2.5 s"


@pytest.mark.parametrize("answer", [5, 0.5, "soon", True, False, [], object()])
def test_a_policy_that_answers_nonsense_ends_the_job_and_its_error_says_so(answer: Any) -> None:
    outcome = after_failure(raised(ValueError("first")), 1, 5, lambda attempt, error: answer)
    assert isinstance(outcome, Failed)
    assert outcome.failure.error_type == "TypeError"
    assert "a retry policy must return a timedelta or None" in outcome.failure.message
    assert "ValueError: first" in (outcome.failure.traceback or "")


@pytest.mark.parametrize("kind", [KeyError, SystemExit, KeyboardInterrupt])
def test_a_policy_that_raises_ends_the_job_and_both_errors_are_kept(kind: type[BaseException]) -> None:
    def policy(attempt: int, error: BaseException) -> timedelta:
        raise kind("second")

    outcome = after_failure(raised(ValueError("first")), 1, 5, policy)
    assert isinstance(outcome, Failed)
    assert outcome.failure.error_type == kind.__name__
    assert "ValueError: first" in (outcome.failure.traceback or "")


def test_a_policy_that_raises_the_error_it_was_given_ends_the_job_with_it() -> None:
    def policy(attempt: int, error: BaseException) -> timedelta:
        raise error

    outcome = after_failure(raised(ValueError("first")), 1, 5, policy)
    assert isinstance(outcome, Failed)
    assert (outcome.failure.error_type, outcome.failure.message) == ("ValueError", "first")


def test_a_failure_keeps_the_cause() -> None:
    error = ValueError("outer")
    error.__cause__ = raised(KeyError("inner"))
    kept = Failure.of(raised(error))
    assert kept.error_type == "ValueError"
    assert "KeyError: 'inner'" in (kept.traceback or "")
    assert "ValueError: outer" in (kept.traceback or "")


def test_a_failure_keeps_every_error_of_a_group() -> None:
    kept = Failure.of(ExceptionGroup("several", [ValueError("one"), KeyError("two")]))
    assert "ValueError: one" in (kept.traceback or "")
    assert "KeyError: 'two'" in (kept.traceback or "")


@given(text=st.text(alphabet=st.characters(codec=None, categories=None)))
def test_what_is_kept_of_an_error_can_be_stored(text: str) -> None:
    kept = Failure.of(ValueError(text))
    for part in (kept.message, kept.traceback or ""):
        assert "\x00" not in part
        part.encode()


def test_a_message_is_cut_at_its_end_and_a_traceback_at_its_beginning() -> None:
    error = raised(ValueError("a" + "b" * 100_000 + "c"))
    kept = Failure.of(error)
    assert kept.message == "a" + "b" * (MAX_MESSAGE - 1)
    assert kept.traceback == "".join(traceback.format_exception(error))[-MAX_TRACEBACK:]


def test_an_error_that_cannot_be_printed_is_kept_all_the_same() -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise KeyError("never")

    kept = Failure.of(raised(Unprintable()))
    assert kept.message.startswith("<unprintable ")
    assert kept.message.endswith("Unprintable: KeyError>")


def test_an_endless_recursion_is_kept_in_few_lines() -> None:
    def again() -> None:
        again()

    with pytest.raises(RecursionError) as caught:
        again()
    kept = Failure.of(caught.value)
    assert kept.error_type == "RecursionError"
    assert len(kept.traceback or "") <= MAX_TRACEBACK
