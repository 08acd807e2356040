"""``partitions``: tables in partitions, which are dropped when they are old, or plain ones, whose rows are deleted."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import click
import msgspec
from litestar import Litestar
from rich_click import RichCommand

from litestar_jobs import migrate
from litestar_jobs.cli.connect import OperatedPlugin, linked, plugin_of, run
from litestar_jobs.cli.filters import AGE
from litestar_jobs.cli.printing import print_json, print_line, print_table, size
from litestar_jobs.partitions import Partition, Partitions

__all__ = ("partitions",)

HEAD = ("From", "Until", "Jobs, about", "Size")
ALL_DAY = 86_400.0
"""Seconds for which a change may take: as long as the tables are large."""
PLAIN = "The tables are plain. In partitions, old jobs are dropped many at once: litestar jobs partitions --every 1d"


class Line(msgspec.Struct, frozen=True):
    """A range of ids, by when they were made. Only the first has no beginning; the rest has neither, and takes the ids
    that no other one does. ``jobs`` is an estimate."""

    begins: datetime | None
    ends: datetime | None
    jobs: int
    bytes: int


class Lines(msgspec.Struct, frozen=True):
    """What ``partitions --json`` prints: nothing for plain tables."""

    partitions: list[Line]


@click.command(name="partitions", cls=RichCommand)
@click.option("--every", type=AGE, metavar="AGE", help="Partition the tables, each so wide: 6h, 1d, 1w.")
@click.option("--off", is_flag=True, help="Make the tables plain again.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: partitions with begins, ends, jobs, bytes.")
def partitions(app: Litestar, *, every: timedelta | None, off: bool, yes: bool, as_json: bool) -> None:
    """List the partitions of the tables, or choose whether there are any.

    Workers make them ahead, and drop those whose jobs were all kept long enough.
    """
    if every and off:
        raise click.UsageError("Either --every or --off.")
    plugin = plugin_of(app)
    found = run(_listed(plugin))
    if off and not found:
        print_line("Nothing to do: the tables are plain.")
        return
    if every or off:
        if not yes and (off or not found):
            click.confirm(
                f"All rows of the tables are {'copied' if off else 'read once'}. Until then nobody can use them. Go on?",
                abort=True,
            )
        found = run(_changed(plugin, every))
    if as_json:
        print_json(Lines([Line(each.begins, each.ends, each.jobs, each.bytes) for each in found]))
    elif found:
        print_table(HEAD, [_cells(each) for each in found])
    else:
        print_line(PLAIN)


async def _listed(plugin: OperatedPlugin) -> list[Partition]:
    async with linked(plugin) as link:
        await migrate.check(link, plugin.config.schema)
        return await Partitions(link.fetch, plugin.statements).listed(plugin.config.retention.limits)


async def _changed(plugin: OperatedPlugin, every: timedelta | None) -> list[Partition]:
    async with linked(plugin, ALL_DAY) as link:
        partitions = Partitions(link.fetch, plugin.statements)
        await (partitions.begin(every.total_seconds()) if every else partitions.end())
    return await _listed(plugin)


def _cells(each: Partition) -> Sequence[str]:
    if each.ends is None:
        bounds = ("the rest", "")
    else:
        bounds = (_minute(each.begins) if each.begins else "before", _minute(each.ends))
    return (*bounds, f"{each.jobs:,}", size(each.bytes))


def _minute(when: datetime) -> str:
    return when.astimezone().isoformat(sep=" ", timespec="minutes")
