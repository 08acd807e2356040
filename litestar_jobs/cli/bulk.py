"""``delete``, ``move`` and ``reprioritise``, and what they share with ``retry`` and ``cancel`` on filters: a count
first, then consent, then the work."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial, reduce
from typing import Any, Protocol, TypeVar
from uuid import UUID

import click
import msgspec
from litestar import Litestar
from rich_click import RichCommand

from litestar_jobs.cli.connect import OperatedPlugin, coursed, plugin_of, run
from litestar_jobs.cli.filters import filter_options, filter_or_none
from litestar_jobs.cli.printing import count, print_json, print_line
from litestar_jobs.errors import DefinitionError
from litestar_jobs.filter import JobFilter
from litestar_jobs.operate import Operator
from litestar_jobs.request import MAX_PRIORITY

__all__ = ("bulk_options", "delete", "move", "operate", "reprioritise")

PRIORITY = click.IntRange(-MAX_PRIORITY, MAX_PRIORITY)
CommandT = TypeVar("CommandT", bound=Callable[..., Any])


class Act(Protocol):
    """One of the things that an operator does to many jobs."""

    def __call__(self, operator: Operator, which: JobFilter, /, *, dry_run: bool) -> Awaitable[int]: ...


class Operated(msgspec.Struct, frozen=True):
    """What a command on a filter prints with ``--json``. With ``--dry-run`` nothing moved."""

    matched: int
    moved: int


OPTIONS = (
    click.option("--all", "all_jobs", is_flag=True, help="All jobs."),
    click.option("--dry-run", is_flag=True, help="Only count them."),
    click.option("--yes", is_flag=True, help="Do not ask."),
    click.option("--json", "as_json", is_flag=True, help="Print JSON: matched, moved. Does not ask: needs --yes."),
)
IDS = click.argument("job_ids", metavar="[ID]...", type=click.UUID, nargs=-1)


def bulk_options(command: CommandT) -> CommandT:
    """Ids, the options of a filter, and how to go about it."""
    return reduce(lambda decorated, option: option(decorated), reversed((IDS, filter_options, *OPTIONS)), command)


@click.command(name="delete", cls=RichCommand)
@bulk_options
def delete(app: Litestar, job_ids: Sequence[UUID], *, as_json: bool, **options: Any) -> None:
    """Delete jobs that have ended, by id or by filter.

    It counts and asks first. Pending jobs have to be cancelled before.
    """
    operate(app, job_ids, options, Operator.delete, ("Delete", "deleted"), as_json=as_json)


@click.command(name="move", cls=RichCommand)
@click.option("--to", required=True, metavar="QUEUE", help="The queue to move them to.")
@bulk_options
def move(app: Litestar, job_ids: Sequence[UUID], *, to: str, as_json: bool, **options: Any) -> None:
    """Move pending jobs to another queue, by id or by filter.

    It counts and asks first.
    """
    act = partial(Operator.move, queue=to)
    operate(app, job_ids, options, act, ("Move", f"moved to queue {to}"), as_json=as_json)


@click.command(name="reprioritise", cls=RichCommand)
@click.option("--priority", required=True, type=PRIORITY, help="Lower runs first.")
@bulk_options
def reprioritise(app: Litestar, job_ids: Sequence[UUID], *, priority: int, as_json: bool, **options: Any) -> None:
    """Give pending jobs another priority, by id or by filter.

    It counts and asks first.
    """
    act = partial(Operator.move, priority=priority)
    operate(app, job_ids, options, act, ("Reprioritise", f"given priority {priority}"), as_json=as_json)


def operate(  # noqa: PLR0913 - what all these commands share
    app: Litestar,
    job_ids: Sequence[UUID],
    options: dict[str, Any],
    act: Act,
    words: tuple[str, str],
    *,
    as_json: bool,
) -> None:
    """Count, ask, do, and say how many. ``words`` are what to ask and what to say."""
    dry_run, yes = options.pop("dry_run"), options.pop("yes")
    which = filter_or_none(options, job_ids)
    if which is None:
        raise click.UsageError("Say which jobs: ids, conditions such as --status failed, or --all.")
    if as_json and not (yes or dry_run):
        raise click.UsageError("--json does not ask: add --yes, or --dry-run.")
    plugin, (ask, done) = plugin_of(app), words
    matched = run(_operated(plugin, which, act, dry_run=True))
    if not (dry_run or yes) and matched:
        click.confirm(f"{ask} {count(matched, 'job')}?", abort=True)
    moved = 0 if dry_run or not matched else run(_operated(plugin, which, act, dry_run=False))
    if as_json:
        print_json(Operated(matched, moved))
    elif dry_run:
        print_line(f"{count(matched, 'job')} would be {done}.")
    else:
        print_line((count(moved, "job"), "bold"), f" {done}.")


async def _operated(plugin: OperatedPlugin, which: JobFilter, act: Act, *, dry_run: bool) -> int:
    async with coursed(plugin) as (store, course):
        operator = Operator(await plugin.open_database(), plugin.statements, store, _nobody, course.follow)
        try:
            return await act(operator, which, dry_run=dry_run)
        except DefinitionError as error:
            raise click.UsageError(str(error)) from error


def _nobody(_queues: set[str]) -> None:
    """There is no worker in this process; the statements tell those of others."""
