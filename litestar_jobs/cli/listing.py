"""``list``: how much there is, where it is, and whether anybody works on it; or the jobs themselves, by filter."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec
from litestar import Litestar
from rich_click import RichCommand

from litestar_jobs.cli.connect import OperatedPlugin, plugin_of, run, stored
from litestar_jobs.cli.filters import filter_options, filter_or_none
from litestar_jobs.cli.printing import age, count, moment, print_json, print_line, print_table, said
from litestar_jobs.filter import JobFilter
from litestar_jobs.row import JobRow, JobStatus
from litestar_jobs.store import LiveWorker, QueueCount, UnknownType

__all__ = ("list_jobs", "summaries")

HEAD = ("Queue", "Pending", "Due", "Oldest", "Running", "Completed", "Failed", "Cancelled")
SHOWN_OF_ERROR = 300


class QueueSummary(msgspec.Struct):
    """One queue. Of the pending jobs ``due`` may run now, the oldest of them for ``oldest`` seconds."""

    queue: str
    pending: int = 0
    due: int = 0
    oldest: float | None = None
    running: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0


class Overview(msgspec.Struct, frozen=True):
    """What ``list --json`` prints."""

    queues: list[QueueSummary]
    unknown: list[UnknownType]
    """Pending jobs of types that this application does not know."""
    workers: list[LiveWorker]
    idle_queues: list[str]
    """Queues with jobs that are due and no live worker that takes them."""
    paused: list[str]
    """Queues whose jobs wait until somebody resumes them."""


class Listing(msgspec.Struct, frozen=True):
    """What ``list --json`` prints with a filter."""

    jobs: list[JobRow]


@click.command(name="list", cls=RichCommand)
@click.option("--failed", is_flag=True, help="The failed jobs: the same as --status failed.")
@filter_options
@click.option("--limit", type=click.IntRange(1, 10_000), help="At most so many jobs, the newest. [20]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: queues, unknown, workers; or jobs.")
def list_jobs(app: Litestar, *, failed: bool, limit: int | None, as_json: bool, **conditions: Any) -> None:
    """Count jobs by queue and status; with a filter, list them, newest first."""
    plugin = plugin_of(app)
    if failed:
        if conditions["status"] not in {None, JobStatus.FAILED}:
            raise click.UsageError(f"--failed and --status {conditions['status']} exclude each other.")
        conditions["status"] = JobStatus.FAILED
    which = filter_or_none(conditions)
    if which is None and limit is None:
        overview = run(_overview(plugin))
        print_json(overview) if as_json else _print_overview(overview)
        return
    limit = limit or 20
    jobs = run(_find(plugin, which or JobFilter.everything(), limit))
    print_json(Listing(jobs)) if as_json else _print_jobs(jobs, limit)


async def _overview(plugin: OperatedPlugin) -> Overview:
    async with stored(plugin) as store:
        queues = summaries(await store.count())
        workers = await store.workers()
        unknown = await store.unknown_types(list(plugin.jobs))
        paused = [each.name for each in await store.queue_settings() if each.paused_at is not None]
    served = {queue for worker in workers for queue in worker.queues}
    idle = [summary.queue for summary in queues if summary.due and summary.queue not in served]
    return Overview(queues, unknown, workers, idle, paused)


async def _find(plugin: OperatedPlugin, which: JobFilter, limit: int) -> list[JobRow]:
    async with stored(plugin) as store:
        return await store.find(which, limit)


def summaries(counts: Iterable[QueueCount]) -> list[QueueSummary]:
    """One for each queue, by name."""
    queues: dict[str, QueueSummary] = {}
    for counted in counts:
        summary = queues.setdefault(counted.queue, QueueSummary(counted.queue))
        setattr(summary, counted.status, getattr(summary, counted.status) + counted.jobs)
        summary.due += counted.due
        if counted.oldest is not None:
            summary.oldest = max(counted.oldest, summary.oldest or 0)
    return sorted(queues.values(), key=lambda summary: summary.queue)


def _print_overview(overview: Overview) -> None:
    if overview.queues:
        total = _cells(_total(overview.queues)) if len(overview.queues) > 1 else None
        print_table(HEAD, map(_cells, overview.queues), total)
    else:
        print_line("There are no jobs.")
    for unknown in overview.unknown:
        print_line(
            (f"{count(unknown.jobs, 'pending job')} of type {unknown.job_type}", "yellow"),
            ": this application knows no job of this name, a worker that does will run them.",
        )
    for queue in overview.paused:
        print_line((f"Queue {queue} is paused", "yellow"), f". To go on: litestar jobs queues resume {queue}")
    if not overview.workers:
        print_line(
            ("No worker is alive, and jobs are due.", "yellow") if overview.idle_queues else "No worker is alive.",
            " Start one: litestar jobs worker",
        )
        return
    for queue in overview.idle_queues:
        print_line((f"No live worker takes jobs of queue {queue}", "yellow"), ", and some are due.")
    processes = defaultdict[str, list[str]](list)
    for worker in overview.workers:
        processes[", ".join(worker.queues)].append(f"{worker.hostname}:{worker.pid}")
    for queues, names in processes.items():
        print_line(f"{count(len(names), 'worker')} of {queues}: {', '.join(names)}")


def _cells(summary: QueueSummary) -> Sequence[str]:
    oldest = "-" if summary.oldest is None else age(summary.oldest)
    figures = (summary.running, summary.completed, summary.failed, summary.cancelled)
    return (summary.queue, str(summary.pending), str(summary.due), oldest, *map(str, figures))


def _total(summaries: Sequence[QueueSummary]) -> QueueSummary:
    return QueueSummary(
        "(all)",
        pending=sum(summary.pending for summary in summaries),
        due=sum(summary.due for summary in summaries),
        oldest=max((summary.oldest for summary in summaries if summary.oldest is not None), default=None),
        running=sum(summary.running for summary in summaries),
        completed=sum(summary.completed for summary in summaries),
        failed=sum(summary.failed for summary in summaries),
        cancelled=sum(summary.cancelled for summary in summaries),
    )


def _print_jobs(jobs: Sequence[JobRow], limit: int) -> None:
    if not jobs:
        print_line("There are no such jobs.")
    for job in jobs:
        print_line((str(job.id), "bold"), f"  {job.job_type}  ", (f"queue {job.queue}", "dim"))
        print_line(_state(job), indent=2)
        if job.last_error is not None:
            print_line((_first_line(job.last_error), "red"), indent=2)
    if len(jobs) == limit:
        print_line((f"These are the newest {limit}; there may be more (--limit).", "dim"))


def _state(job: JobRow) -> str:
    attempts = f"attempt {job.attempts} of {job.max_retries + 1}"
    match job.status:
        case JobStatus.PENDING:
            return f"pending, {count(job.attempts, 'attempt')} of {job.max_retries + 1} made, due {moment(job.run_at)}"
        case JobStatus.RUNNING:
            so_far = "" if (progress := said(job)) is None else f", {progress}"
            return f"running, {attempts}, since {moment(job.started_at or job.created_at)}{so_far}"
        case status:
            return f"{status}, {attempts}, {moment(job.finished_at or job.created_at)}"


def _first_line(error: str) -> str:
    line = error.splitlines()[0]
    return line if len(line) <= SHOWN_OF_ERROR else line[:SHOWN_OF_ERROR] + "…"
