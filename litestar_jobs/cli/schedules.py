"""``schedules``: what is enqueued by time, and ``pause``, ``resume`` and ``run`` for those who operate it."""

import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Literal, TypeAlias
from uuid import UUID

import click
import msgspec
from litestar import Litestar
from litestar.cli._utils import LitestarGroup
from rich_click import RichCommand

from litestar_jobs import migrate
from litestar_jobs.agenda import Agenda, Planned
from litestar_jobs.cli.connect import OperatedPlugin, linked, plugin_of, run
from litestar_jobs.cli.printing import moment, print_json, print_line
from litestar_jobs.schedule import Schedule, by_name, new_job
from litestar_jobs.times import next_after

__all__ = ("schedules",)

State: TypeAlias = Literal["active", "paused", "idle"]
Verb: TypeAlias = Literal["pause", "resume", "run"]


class ScheduleLine(msgspec.Struct, frozen=True):
    """One schedule. It is ``idle`` while no live worker has it in its code: then nothing is due."""

    name: str
    job_type: str
    times: str
    state: State
    paused_at: datetime | None = None
    last_slot: datetime | None = None
    last_job: UUID | None = None
    """The newest job, of a slot or run by hand."""
    next_slot: datetime | None = None


class Agreed(msgspec.Struct, frozen=True):
    """What ``schedules --json`` prints."""

    schedules: list[ScheduleLine]


class Turned(msgspec.Struct, frozen=True):
    """What became of one schedule. ``job`` is the one that ``run`` enqueued."""

    name: str
    done: bool
    job: UUID | None = None
    reason: str | None = None


class Turns(msgspec.Struct, frozen=True):
    """What ``pause``, ``resume`` and ``run`` print with ``--json``, in the order of the arguments."""

    schedules: list[Turned]


@click.group(name="schedules", cls=LitestarGroup, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: schedules.")
@click.pass_context
def schedules(context: click.Context, app: Litestar, *, as_json: bool) -> None:
    """List schedules with their last and next run.

    With a command behind it: pause NAME, resume NAME, run NAME.
    """
    if context.invoked_subcommand is None:
        lines = run(_listed(plugin_of(app)))
        print_json(Agreed(lines)) if as_json else _print_lines(lines)


@click.command(name="pause", cls=RichCommand)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: schedules with name, done, reason.")
def pause(app: Litestar, names: Sequence[str], *, as_json: bool) -> None:
    """Pause schedules.

    Their slots pass by until they are resumed, restarts or not. Exits with 1 if one does not exist.
    """
    _report(run(_turn(plugin_of(app), "pause", names)), "is paused", as_json=as_json)


@click.command(name="resume", cls=RichCommand)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: schedules with name, done, reason.")
def resume(app: Litestar, names: Sequence[str], *, as_json: bool) -> None:
    """Resume schedules.

    They are due again from now on, and not for what passed by. Exits with 1 if one does not exist.
    """
    _report(run(_turn(plugin_of(app), "resume", names)), "is active", as_json=as_json)


@click.command(name="run", cls=RichCommand)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: schedules with name, done, job, reason.")
def run_now(app: Litestar, names: Sequence[str], *, as_json: bool) -> None:
    """Enqueue the jobs of schedules now, beside their slots.

    Paused or not. Exits with 1 if a schedule is not in the code of this application.
    """
    _report(run(_turn(plugin_of(app), "run", names)), "is enqueued", as_json=as_json)


for command in (pause, resume, run_now):
    schedules.add_command(command)


@asynccontextmanager
async def _agenda(plugin: OperatedPlugin) -> AsyncGenerator[Agenda]:
    async with linked(plugin) as link:
        await migrate.check(link, plugin.config.schema)
        yield Agenda(link.fetch, plugin.statements)


def _own(plugin: OperatedPlugin) -> dict[str, Schedule]:
    """The schedules in the code of this application."""
    return by_name(schedule for job in plugin.jobs.values() for schedule in job.schedules)


async def _listed(plugin: OperatedPlugin) -> list[ScheduleLine]:
    own = _own(plugin)
    async with _agenda(plugin) as agenda:
        lines = {row.name: _line(row, own) for row in await agenda.planned(list(own))}
    for name, schedule in own.items():
        lines.setdefault(name, ScheduleLine(name, schedule.request.job_type, str(schedule.times), "idle"))
    return sorted(lines.values(), key=lambda line: line.name)


def _line(row: Planned, own: dict[str, Schedule]) -> ScheduleLine:
    state: State = "paused" if row.paused_at else "active" if row.in_code else "idle"
    # A time zone of somebody else's schedule may not exist here.
    coming = next_after(row.times, row.now) if row.times and row.name in own and state == "active" else None
    times = "times of a newer version" if row.times is None else str(row.times)
    return ScheduleLine(row.name, row.job_type, times, state, row.paused_at, row.last_slot, row.last_job, coming)


async def _turn(plugin: OperatedPlugin, verb: Verb, names: Sequence[str]) -> list[Turned]:
    own = _own(plugin)
    async with _agenda(plugin) as agenda:
        return [await _turned(agenda, verb, name, own.get(name)) for name in dict.fromkeys(names)]


async def _turned(agenda: Agenda, verb: Verb, name: str, own: Schedule | None) -> Turned:
    if verb == "run" and own is None:
        return Turned(name, done=False, reason="the code of this application has no such schedule")
    job = None if own is None else new_job(own, None)

    async def turn() -> bool:
        if verb == "run" and job is not None:
            return await agenda.fire_now(name, job)
        return await (agenda.pause(name) if verb == "pause" else agenda.resume(name))

    done = await turn()
    if not done and own is not None:  # no worker has started with it yet
        await agenda.declare([own], starting=False)
        done = await turn()
    if not done:
        return Turned(name, done=False, reason="there is no such schedule")
    return Turned(name, done=True, job=job.id if verb == "run" and job is not None else None)


def _print_lines(lines: Sequence[ScheduleLine]) -> None:
    if not lines:
        print_line("There are no schedules.")
    for line in lines:
        job_type = "" if line.name == line.job_type else f"  job {line.job_type}"
        print_line((line.name, "bold"), f"  {line.times}", (job_type, "dim"))
        last = "never" if line.last_slot is None else moment(line.last_slot)
        print_line(f"last {last}", ("" if line.last_job is None else f"  job {line.last_job}", "dim"), indent=2)
        print_line(*_what_next(line), indent=2)


def _what_next(line: ScheduleLine) -> tuple[str | tuple[str, str], ...]:
    match line.state:
        case "paused":
            since = "" if line.paused_at is None else f" since {moment(line.paused_at)}"
            return (("paused", "yellow"), since)
        case "idle":
            return (("idle", "yellow"), ": no live worker has it in its code")
        case "active":
            return (f"next {'-' if line.next_slot is None else moment(line.next_slot)}",)


def _report(turns: list[Turned], what: str, *, as_json: bool) -> None:
    if as_json:
        print_json(Turns(turns))
    for turn in [] if as_json else turns:
        if turn.done:
            print_line((turn.name, "bold"), "  ", (what, "green"), "" if turn.job is None else f": job {turn.job}")
        else:
            print_line((turn.name, "bold"), "  ", ("not done", "red"), f": {turn.reason}")
    sys.exit(0 if all(turn.done for turn in turns) else 1)
