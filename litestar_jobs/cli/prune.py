"""``prune``: jobs that were kept long enough go now, whatever the workers do."""

from collections.abc import Sequence
from datetime import timedelta

import click
from litestar import Litestar
from rich_click import RichCommand

from litestar_jobs.cli.connect import OperatedPlugin, linked, plugin_of, run, stored
from litestar_jobs.cli.filters import AGE
from litestar_jobs.cli.printing import count, print_json, print_line
from litestar_jobs.telemetry import JobsPruned
from litestar_jobs.worker.prune import Pruner

__all__ = ("prune",)

STATUSES = JobsPruned.__struct_fields__


@click.command(name="prune", cls=RichCommand)
@click.option("--older-than", type=AGE, metavar="AGE", help="Ended so long ago or longer: 90s, 15m, 12h, 7d, 2w.")
@click.option("--status", "statuses", type=click.Choice(STATUSES), multiple=True, help="Only these. May be repeated.")
@click.option("--dry-run", is_flag=True, help="Only count them.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: completed, failed, cancelled.")
def prune(
    app: Litestar, *, older_than: timedelta | None, statuses: Sequence[str], dry_run: bool, as_json: bool
) -> None:
    """Delete jobs that ended long enough ago.

    That is as JobsConfig.retention says, unless --older-than says otherwise.
    """
    plugin = plugin_of(app)
    if older_than is None:
        keep = {name: kept for name, kept in plugin.config.retention.limits.items() if name in (statuses or STATUSES)}
    else:
        keep = dict.fromkeys(statuses or STATUSES, older_than.total_seconds())
    pruned = run(_count(plugin, keep) if dry_run else _prune(plugin, keep))
    if as_json:
        print_json(pruned)
        return
    would = "would be deleted" if dry_run else "deleted"
    print_line(", ".join(f"{count(getattr(pruned, name), f'{name} job')}" for name in STATUSES), f" {would}.")


async def _count(plugin: OperatedPlugin, keep: dict[str, float]) -> JobsPruned:
    async with stored(plugin) as store:
        return JobsPruned(**await store.expired(keep))


async def _prune(plugin: OperatedPlugin, keep: dict[str, float]) -> JobsPruned:
    async with stored(plugin), linked(plugin) as link:
        return await Pruner(link, plugin.statements, keep, lambda _: None).sweep()
