"""Retry policies: how long to wait before the next attempt, or that there is none.

A policy is any callable ``(attempt, exception) -> timedelta | None``; ``attempt`` is the one that failed, from 1,
and ``None`` means that the job has failed for good. ``max_retries`` bounds every policy.
"""

import inspect
import random
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from typing import Any, TypeAlias

import msgspec

from litestar_jobs.durations import Duration, seconds
from litestar_jobs.errors import DefinitionError, JobDeadline, PayloadError, ResultError
from litestar_jobs.signals import Signal

__all__ = ("ErrorTypes", "Exponential", "Fixed", "Never", "RetryOn", "RetryPolicy", "check_policy", "with_rules")

RetryPolicy: TypeAlias = Callable[[int, BaseException], timedelta | None]

ErrorTypes: TypeAlias = type[BaseException] | Collection[type[BaseException]]
RetryOn: TypeAlias = ErrorTypes | Mapping[type[BaseException], RetryPolicy]

DECIDED = (Signal, PayloadError, ResultError, JobDeadline)
"""What ends an attempt before any policy is asked."""
WEEK = timedelta(days=7)
STEEPEST = 1000.0


def check_policy(policy: object) -> None:
    """:exc:`DefinitionError` if this cannot be a policy."""
    if isinstance(policy, type) or inspect.iscoroutinefunction(policy) or not callable(policy):
        raise DefinitionError(
            "retry must be a policy such as Exponential(), Fixed(10) or Never(), or a function that is not async, "
            f"(attempt, exception) -> timedelta | None, not {policy!r}"
        )


def _check_factor(factor: object) -> None:
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 1 <= factor <= STEEPEST:
        raise DefinitionError(f"Exponential(factor=...) must be a number from 1 to {STEEPEST:g}, not {factor!r}")


class Exponential(msgspec.Struct, frozen=True):
    """``base * factor ** (attempt - 1)`` seconds, at most ``cap``.

    By default 1 s, 4 s, 16 s, 64 s … With ``jitter`` each delay is drawn evenly between half of that and all of it,
    so that jobs which failed together do not come back together ("equal jitter", M. Brooker, AWS, 2015).
    """

    base: Duration = 1.0
    factor: float = 4.0
    cap: Duration = WEEK
    jitter: bool = True

    def __post_init__(self) -> None:
        seconds(self.base, "Exponential(base=...)")
        seconds(self.cap, "Exponential(cap=...)")
        _check_factor(self.factor)

    def __call__(self, attempt: int, exception: BaseException, /) -> timedelta:  # noqa: ARG002 - as all policies
        cap = seconds(self.cap, "cap")
        try:
            delay = min(seconds(self.base, "base") * self.factor ** (attempt - 1), cap)
        except OverflowError:
            delay = cap
        return timedelta(seconds=delay * random.uniform(0.5, 1) if self.jitter else delay)  # noqa: S311


class Fixed(msgspec.Struct, frozen=True):
    """The same delay before each attempt."""

    delay: Duration

    def __post_init__(self) -> None:
        seconds(self.delay, "Fixed(delay=...)")

    def __call__(self, attempt: int, exception: BaseException, /) -> timedelta:  # noqa: ARG002 - as all policies
        return timedelta(seconds=seconds(self.delay, "delay"))


class Never(msgspec.Struct, frozen=True):
    """No further attempt, whatever ``max_retries`` says."""

    def __call__(self, attempt: int, exception: BaseException, /) -> None:  # noqa: ARG002 - as all policies
        return None


class ByType(msgspec.Struct, frozen=True):
    """What follows depends on the type of the exception: the most specific class that there is a rule for decides."""

    rules: Mapping[type[BaseException], RetryPolicy]
    otherwise: RetryPolicy

    def __call__(self, attempt: int, exception: BaseException, /) -> timedelta | None:
        ruled = (self.rules[kind] for kind in type(exception).__mro__ if kind in self.rules)
        return next(ruled, self.otherwise)(attempt, exception)


def with_rules(policy: RetryPolicy, retry_on: RetryOn | None, fail_on: ErrorTypes | None) -> RetryPolicy:
    """The policy, for those exceptions for which these rules do not say something else.

    Raises :exc:`DefinitionError` for rules that contradict each other or themselves.
    """
    if retry_on is None and fail_on is None:
        return policy
    tried = _rules(retry_on, "retry_on", policy)
    ended = _rules(fail_on, "fail_on", Never())
    if both := tried.keys() & ended.keys():
        raise DefinitionError(f"{min(kind.__name__ for kind in both)} is both in retry_on and in fail_on")
    if any(isinstance(each, Never) for each in tried.values()):
        raise DefinitionError("retry_on says what is tried again, and Never() that it is not: name it in fail_on")
    return ByType(tried | ended, policy if retry_on is None else Never())


def _rules(given: object, option: str, policy: RetryPolicy) -> dict[type[BaseException], RetryPolicy]:
    rules: dict[Any, Any] = (
        {} if given is None else {given: policy} if isinstance(given, type) else _each(given, policy)
    )
    for kind, rule in rules.items():
        if not isinstance(kind, type) or not issubclass(kind, BaseException):
            raise DefinitionError(f"{option} names types of exceptions, such as ConnectionError, not {kind!r}")
        if issubclass(kind, DECIDED):
            raise DefinitionError(f"{option} cannot name {kind.__name__}: what follows it is decided before any rule")
        check_policy(rule)
    if given is not None and not rules:
        raise DefinitionError(f"{option} names no exception: leave it out")
    return rules


def _each(given: Any, policy: RetryPolicy) -> dict[Any, Any]:
    if isinstance(given, Mapping):
        return {**given}
    return dict.fromkeys(given if hasattr(given, "__iter__") else [given], policy)
