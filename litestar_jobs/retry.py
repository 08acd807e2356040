"""Retry policies: how long to wait before the next attempt, or that there is none.

A policy is any callable ``(attempt, exception) -> timedelta | None``; ``attempt`` is the one that failed, from 1,
and ``None`` means that the job has failed for good. ``max_retries`` bounds every policy.
"""

import inspect
import random
from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias

import msgspec

from litestar_jobs.durations import Duration, seconds
from litestar_jobs.errors import DefinitionError

__all__ = ("Exponential", "Fixed", "Never", "RetryPolicy", "check_policy")

RetryPolicy: TypeAlias = Callable[[int, BaseException], timedelta | None]

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
