"""Durations as users write them: a number of seconds, or a ``timedelta``."""

import math
from datetime import timedelta
from typing import TypeAlias

from litestar_jobs.errors import DefinitionError

__all__ = ("Duration", "seconds")

Duration: TypeAlias = float | timedelta

YEAR = 366 * 24 * 3600.0


def seconds(value: Duration, what: str, *, least: float = 0.0, most: float = 10 * YEAR) -> float:
    """The duration in seconds; :exc:`DefinitionError`, naming ``what``, if it is no duration or out of bounds."""
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise DefinitionError(f"{what} must be a number of seconds or a timedelta, not {value!r}")
    if not math.isfinite(number) or not least <= number <= most:
        raise DefinitionError(f"{what} must lie between {least:g} and {most:g} seconds, not {value!r}")
    return float(number)
