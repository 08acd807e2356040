"""``workflows`` and ``workflow``: many jobs as one, how far they have come, and cancelling one."""

from collections.abc import Sequence
from uuid import UUID

import click
import msgspec
from litestar import Litestar
from rich_click import RichCommand

from litestar_jobs.cli.connect import OperatedPlugin, coursed, plugin_of, run
from litestar_jobs.cli.printing import count, moment, print_json, print_line
from litestar_jobs.course import StepRow, WorkflowCount, WorkflowRow

__all__ = ("workflow", "workflows")

COLORS = {
    "waiting": "dim",
    "pending": "cyan",
    "running": "blue",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
}
PLACES = ("active", "waiting", "completed", "failed", "cancelled")


class Known(msgspec.Struct, frozen=True):
    """What ``workflows --json`` prints."""

    workflows: list[WorkflowCount]


class Told(msgspec.Struct, frozen=True):
    """What ``workflow --json`` prints. ``cancelled`` is how many steps ``--cancel`` has cancelled."""

    workflow: WorkflowRow
    cancelled: int = 0


@click.command(name="workflows", cls=RichCommand)
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, help="At most so many, the newest. [20]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: workflows.")
def workflows(app: Litestar, *, limit: int, as_json: bool) -> None:
    """List workflows, newest first, with how many of their steps are where."""
    found = run(_newest(plugin_of(app), limit))
    print_json(Known(found)) if as_json else _print_workflows(found, limit)


@click.command(name="workflow", cls=RichCommand)
@click.argument("workflow_id", metavar="ID", type=click.UUID)
@click.option("--cancel", is_flag=True, help="Cancel its steps that have not ended, as jobs cancel does with jobs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: workflow, cancelled.")
def workflow(app: Litestar, workflow_id: UUID, *, cancel: bool, as_json: bool) -> None:
    """Show the steps of a workflow, each below those that it comes after."""
    told = run(_told(plugin_of(app), workflow_id, cancel=cancel))
    if told is None:
        raise click.ClickException(
            f"There is no workflow {workflow_id}: it was never committed, or its jobs were deleted some time after they ended."
        )
    print_json(told) if as_json else _print_workflow(told, cancel=cancel)


async def _newest(plugin: OperatedPlugin, limit: int) -> list[WorkflowCount]:
    async with coursed(plugin) as (_, course):
        return await course.newest(limit)


async def _told(plugin: OperatedPlugin, workflow_id: UUID, *, cancel: bool) -> Told | None:
    async with coursed(plugin) as (_, course):
        total = await course.cancel(workflow_id) if cancel else 0
        found = await course.get(workflow_id)
        return None if found is None else Told(found, total)


def _print_workflows(found: Sequence[WorkflowCount], limit: int) -> None:
    if not found:
        print_line("There are no workflows.")
    for each in found:
        places = [f"{number} {place}" for place in PLACES if (number := getattr(each, place))]
        print_line((str(each.id), "bold"), f"  {each.name}  ", (each.status, COLORS[each.status]))
        print_line(f"{count(each.steps, 'step')}: {', '.join(places)}; started {moment(each.created_at)}", indent=2)
    if len(found) == limit:
        print_line((f"These are the newest {limit}; there may be more (--limit).", "dim"))


def _print_workflow(told: Told, *, cancel: bool) -> None:
    found = told.workflow
    if cancel:
        print_line((count(told.cancelled, "job"), "bold"), " cancelled.")
    print_line((str(found.id), "bold"), f"  {found.name}  ", (found.status, COLORS[found.status]))
    print_line(f"started {moment(found.created_at)}, trace {found.trace_id or '-'}", indent=2)
    depths: dict[str, int] = {}
    for step in found.steps:
        depths[step.name] = 1 + max((depths[name] for name in step.after), default=0)
        _print_step(step, 2 * depths[step.name])


def _print_step(step: StepRow, indent: int) -> None:
    job_type = "" if step.name == step.job_type else f"  job {step.job_type}"
    after = "" if not step.after else f"  after {', '.join(step.after)}"
    print_line(
        (step.name, "bold"),
        "  ",
        (step.status, COLORS[step.status]),
        job_type,
        f"  {step.id}",
        (after, "dim"),
        indent=indent,
    )
    if step.error is not None:
        print_line((step.error.splitlines()[0], "red"), indent=indent + 2)
