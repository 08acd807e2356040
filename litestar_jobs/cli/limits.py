"""``limits``: the limits and rates that have jobs, how much of them is taken, and how many jobs wait for them."""

from collections.abc import Sequence

import click
import msgspec
from litestar import Litestar
from rich_click import RichCommand

from litestar_jobs import migrate
from litestar_jobs.cli.connect import OperatedPlugin, linked, plugin_of, run
from litestar_jobs.cli.printing import print_json, print_line, print_table
from litestar_jobs.gates import GateLine, Gates

__all__ = ("limits",)

HEAD = ("Kind", "Key", "At most", "Taken", "Waiting")


class Lines(msgspec.Struct, frozen=True):
    """What ``limits --json`` prints."""

    limits: list[GateLine]


@click.command(name="limits", cls=RichCommand)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: limits with kind, key, most, per, taken, waiting.")
def limits(app: Litestar, *, as_json: bool) -> None:
    """List limits and rates that have jobs, by key.

    Of a limit, jobs on their way are taken; of a rate, starts of the time that has just passed.
    """
    lines = run(_listed(plugin_of(app)))
    print_json(Lines(lines)) if as_json else _print_lines(lines)


async def _listed(plugin: OperatedPlugin) -> list[GateLine]:
    async with linked(plugin) as link:
        await migrate.check(link, plugin.config.schema)
        return await Gates(link.fetch, plugin.statements).listed()


def _print_lines(lines: Sequence[GateLine]) -> None:
    if lines:
        print_table(HEAD, [_cells(line) for line in lines])
    else:
        print_line("No limit and no rate has jobs.")


def _cells(line: GateLine) -> Sequence[str]:
    most = f"{line.most} at once" if line.per is None else f"{line.most} in {line.per:g} s"
    return (line.kind, line.key, most, str(line.taken), str(line.waiting))
