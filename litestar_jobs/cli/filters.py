"""The options by which commands are told which jobs are meant."""

import re
from collections.abc import Callable, Collection
from datetime import timedelta
from functools import reduce
from typing import Any, TypeVar
from uuid import UUID

import click

from litestar_jobs.errors import DefinitionError
from litestar_jobs.filter import JobFilter
from litestar_jobs.row import JobStatus

__all__ = ("AGE", "filter_options", "filter_or_none")

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class _Age(click.ParamType[timedelta]):
    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        found = re.fullmatch(r"(\d{1,6})([smhdw])", str(value))
        if found is None:
            self.fail(f"{value!r} is not a number with a unit, such as 90s, 15m, 12h, 7d or 2w", param, ctx)
        return timedelta(**{UNITS[found[2]]: int(found[1])})


AGE = _Age()
"""How long ago: ``90s``, ``15m``, ``12h``, ``7d``, ``2w``."""

OPTIONS = (
    click.option("--status", type=click.Choice([status.value for status in JobStatus]), help="Jobs of this status."),
    click.option("--queue", metavar="NAME", help="Jobs of this queue."),
    click.option("--type", "job_type", metavar="NAME", help="Jobs of this type."),
    click.option("--older-than", type=AGE, metavar="AGE", help="Created so long ago or longer: 90s, 15m, 12h, 7d, 2w."),
    click.option("--error", metavar="TEXT", help="With this text in the last error, whatever the case."),
    click.option("--trace-id", metavar="ID", help="Of this trace."),
)


def filter_options(command: CommandT) -> CommandT:
    """Give the command the options of a filter; it gets them as keywords, for :func:`filter_or_none`."""
    return reduce(lambda decorated, option: option(decorated), reversed(OPTIONS), command)


def filter_or_none(conditions: dict[str, Any], ids: Collection[UUID] = ()) -> JobFilter | None:
    """The filter, or None if the command was given no condition."""
    if not ids and all(value is None or value is False for value in conditions.values()):
        return None
    try:
        return JobFilter(**conditions, ids=ids or None)
    except DefinitionError as error:
        raise click.UsageError(str(error)) from error
