"""``queues``: what is in each queue and who may take it; ``pause``, ``resume`` and ``resize`` for those who operate it."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

import click
import msgspec
from litestar import Litestar
from litestar.cli._utils import LitestarGroup
from rich_click import RichCommand

from litestar_jobs.cli.connect import OperatedPlugin, plugin_of, run, stored
from litestar_jobs.cli.listing import summaries
from litestar_jobs.cli.printing import age, moment, print_json, print_line, print_table
from litestar_jobs.queues import MOST_AT_ONCE, Queues
from litestar_jobs.store import QueueSettings

__all__ = ("queues",)

HEAD = ("Queue", "Workers", "Each runs", "Pending", "Due", "Oldest", "Running")


class QueueLine(msgspec.Struct, frozen=True):
    """One queue. Of the pending jobs ``due`` may run now, the oldest of them for ``oldest`` seconds, or could if it were
    not paused. ``concurrency`` is how many run at once in each of its live ``workers``, at the most."""

    queue: str
    paused_at: datetime | None
    concurrency: int | None
    workers: int
    pending: int
    due: int
    oldest: float | None
    running: int


class Lines(msgspec.Struct, frozen=True):
    """What ``queues --json`` prints."""

    queues: list[QueueLine]


class Change(msgspec.Struct, frozen=True):
    """What became of one queue. It was so already if not ``changed``; ``known`` if a job or a live worker has it."""

    queue: str
    changed: bool
    known: bool


class Changes(msgspec.Struct, frozen=True):
    """What ``pause``, ``resume`` and ``resize`` print with ``--json``, in the order of the arguments."""

    queues: list[Change]


@click.group(name="queues", cls=LitestarGroup, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: queues.")
@click.pass_context
def queues(context: click.Context, app: Litestar, *, as_json: bool) -> None:
    """List queues with their jobs, their workers, and what limits them.

    With a command behind it: pause NAME, resume NAME, resize NAME N.
    """
    if context.invoked_subcommand is None:
        lines = run(_listed(plugin_of(app)))
        print_json(Lines(lines)) if as_json else _print_lines(lines)


@click.command(name="pause", cls=RichCommand)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: queues with queue, changed, known.")
def pause(app: Litestar, names: Sequence[str], *, as_json: bool) -> None:
    """Pause queues, for all workers, restarts or not.

    Jobs that run go on; the others wait until the queue is resumed.
    """
    _report(run(_change(plugin_of(app), names, Queues.pause)), "is paused", as_json=as_json)


@click.command(name="resume", cls=RichCommand)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: queues with queue, changed, known.")
def resume(app: Litestar, names: Sequence[str], *, as_json: bool) -> None:
    """Resume queues that are paused."""
    _report(run(_change(plugin_of(app), names, Queues.resume)), "is active", as_json=as_json)


@click.command(name="resize", cls=RichCommand)
@click.argument("name", metavar="NAME")
@click.argument("concurrency", metavar="N", type=click.IntRange(1, MOST_AT_ONCE), required=False)
@click.option("--unbounded", is_flag=True, help="As many as the worker runs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: queues with queue, changed, known.")
def resize(app: Litestar, name: str, concurrency: int | None, *, unbounded: bool, as_json: bool) -> None:
    """Run at most N jobs of a queue at once in each worker, restarts or not.

    This is for each worker, not for all of them together, and within the concurrency that the worker has.
    """
    if unbounded is (concurrency is not None):
        raise click.UsageError("Give N, or --unbounded.")

    def resized(queues: Queues, name: str) -> Awaitable[bool]:
        return queues.resize(name, concurrency)

    done = "is unbounded" if concurrency is None else f"runs at most {concurrency} at once in each worker"
    _report(run(_change(plugin_of(app), [name], resized)), done, as_json=as_json)


for command in (pause, resume, resize):
    queues.add_command(command)


async def _listed(plugin: OperatedPlugin) -> list[QueueLine]:
    """Those with jobs that have not ended, with a live worker, or with a setting."""
    async with stored(plugin) as store:
        counts = {each.queue: each for each in summaries(await store.count()) if each.pending or each.running}
        workers = [queue for worker in await store.workers() for queue in worker.queues]
        settings = {each.name: each for each in await store.queue_settings()}
    return [
        QueueLine(
            name,
            setting.paused_at,
            setting.concurrency,
            workers.count(name),
            pending=0 if counted is None else counted.pending,
            due=0 if counted is None else counted.due,
            oldest=None if counted is None else counted.oldest,
            running=0 if counted is None else counted.running,
        )
        for name in sorted({*counts, *workers, *settings})
        for counted, setting in [(counts.get(name), settings.get(name, QueueSettings(name)))]
    ]


async def _change(
    plugin: OperatedPlugin, names: Sequence[str], change: Callable[[Queues, str], Awaitable[bool]]
) -> list[Change]:
    async with stored(plugin) as store:
        known = {job.queue for job in plugin.jobs.values()}
        known.update(each.queue for each in await store.count())
        known.update(queue for worker in await store.workers() for queue in worker.queues)
        return [Change(name, await change(Queues(store), name), name in known) for name in dict.fromkeys(names)]


def _print_lines(lines: Sequence[QueueLine]) -> None:
    if not lines:
        print_line("No queue has jobs that have not ended, a live worker, or a setting.")
        return
    print_table(HEAD, map(_cells, lines))
    for line in lines:
        if line.paused_at is not None:
            since = f" since {moment(line.paused_at)}. To go on: litestar jobs queues resume {line.queue}"
            print_line((f"Queue {line.queue} is paused", "yellow"), since)


def _cells(line: QueueLine) -> Sequence[str]:
    most = "paused" if line.paused_at is not None else "-" if line.concurrency is None else f"{line.concurrency}"
    oldest = "-" if line.oldest is None else age(line.oldest)
    return (line.queue, str(line.workers), most, str(line.pending), str(line.due), oldest, str(line.running))


def _report(changes: Sequence[Change], what: str, *, as_json: bool) -> None:
    if as_json:
        print_json(Changes(list(changes)))
        return
    for change in changes:
        already = "" if change.changed else ", as it was before"
        print_line((change.queue, "bold"), "  ", (what, "green"), already)
        if not change.known:
            print_line(("No job and no live worker has this queue.", "yellow"), " Is the name right?", indent=2)
