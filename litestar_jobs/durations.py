"""Durations as users write them: a number of seconds, or a ``timedelta``."""

from datetime import timedelta
from typing import TypeAlias

from litestar_jobs.errors import DefinitionError

__all__ = ("LONGEST", "Duration", "seconds")

Duration: TypeAlias = float | timedelta

LONGEST = 10 * 366 * 24 * 3600.0


def seconds(value: object, what: str, *, least: float = 0.0, most: float = LONGEST) -> float:
    """The duration in seconds; :exc:`DefinitionError`, naming ``what``, if it is no duration or out of bounds."""
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise DefinitionError(f"{what} must be a number of seconds or a timedelta, not {value!r}")
    if not least <= number <= most:
        raise DefinitionError(f"{what} must lie between {least:g} and {most:.0f} seconds, not {value!r}")
    return float(number)
