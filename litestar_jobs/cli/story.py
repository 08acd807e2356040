"""``show``: one job's whole story, from what was asked for to what will happen next."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from uuid import UUID

import click
import msgspec
from litestar import Litestar
from rich_click import RichCommand

from litestar_jobs.cli.connect import OperatedPlugin, plugin_of, run, stored
from litestar_jobs.cli.printing import count, moment, print_json, print_line, print_text, said
from litestar_jobs.row import JobFailure, JobRow, JobStatus
from litestar_jobs.signals import Cancel
from litestar_jobs.store import HeldKey, LiveWorker

__all__ = ("show",)

COLORS = {
    JobStatus.PENDING: "cyan",
    JobStatus.RUNNING: "blue",
    JobStatus.COMPLETED: "green",
    JobStatus.FAILED: "red",
    JobStatus.CANCELLED: "yellow",
}

HELD = {
    "suspect": "It is held, since it was lost with its process more than once and may be what ends them. A worker lets "
    "it run when no other such job runs.",
    "workflow": "It is a step of a workflow and waits for those before it.",
    "limit": "It waits for a slot of the limit {key!r}: litestar jobs limits",
    "rate": "It waits until the rate {key!r} lets it start: litestar jobs limits",
}
"""What is waited for, by the reason why a job is held."""


class Story(msgspec.Struct, frozen=True):
    """What ``show --json`` prints. Failures are in the order in which they happened."""

    job: JobRow
    failures: list[JobFailure]
    next: str
    unique: HeldKey | None = None


@click.command(name="show", cls=RichCommand)
@click.argument("job_id", metavar="ID", type=click.UUID)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: job, failures, next, unique.")
def show(app: Litestar, job_id: UUID, *, as_json: bool) -> None:
    """Tell a job's whole story."""
    story = run(_story(plugin_of(app), job_id))
    if story is None:
        raise click.ClickException(f"There is no job {job_id}: it was never committed, or it was deleted.")
    print_json(story) if as_json else _print_story(story)


async def _story(plugin: OperatedPlugin, job_id: UUID) -> Story | None:
    async with stored(plugin) as store:
        job = await store.get(job_id)
        if job is None:
            return None
        held = await store.held(job_id)
        if held is not None:
            reason, _, key = held.partition(":")
            coming = HELD.get(reason, "It is held: {reason}.").format(reason=reason, key=key)
        else:
            paused = job.queue in {each.name for each in await store.queue_settings() if each.paused_at is not None}
            coming = _what_next(job, plugin.jobs.keys(), await store.workers(), is_paused=paused)
        return Story(job, await store.failures(job_id), coming, await store.key_of(job_id))


def _what_next(job: JobRow, known: Collection[str], workers: Sequence[LiveWorker], *, is_paused: bool) -> str:
    """What will happen to the job, or what somebody could do about it."""
    left = job.max_retries + 1 - job.attempts
    match job.status:
        case JobStatus.PENDING if is_paused:
            return f"It waits: queue {job.queue!r} is paused. To go on: litestar jobs queues resume {job.queue}"
        case JobStatus.PENDING:
            return _when_it_runs(job, known, workers)
        case JobStatus.RUNNING if job.locked_until is None:
            return "Its process is gone. Another worker takes it over; the lost attempt counts."
        case JobStatus.RUNNING:
            after = f"{left} more may follow" if left > 0 else "no other follows"
            return f"If this attempt fails, {after}. If its process dies, another worker takes it over."
        case JobStatus.COMPLETED:
            return "Nothing, it is done."
        case JobStatus.FAILED | JobStatus.CANCELLED:
            return f"Nothing by itself. To run it again: litestar jobs retry {job.id}"


def _when_it_runs(job: JobRow, known: Collection[str], workers: Sequence[LiveWorker]) -> str:
    attempt = f"Attempt {job.attempts + 1} of {job.max_retries + 1}"
    if job.job_type not in known:
        return f"{attempt} waits for a worker that knows it: this application has no job named {job.job_type!r}."
    if not any(job.queue in worker.queues for worker in workers):
        return f"{attempt} waits: no live worker takes jobs of queue {job.queue!r}. Start one: litestar jobs worker"
    if job.run_at > datetime.now(UTC):
        return f"{attempt} runs at {moment(job.run_at)}."
    return f"{attempt} runs as soon as a worker has a free slot."


def _print_story(story: Story) -> None:
    job = story.job
    print_line((str(job.id), "bold"), f"  {job.job_type}")
    _field("status", job.status, COLORS[job.status])
    _field("attempts", f"{job.attempts} of {job.max_retries + 1}")
    _field("queue", f"{job.queue}, priority {job.priority}")
    _field("trace id", job.trace_id)
    _field("enqueued", moment(job.created_at))
    if job.status is JobStatus.PENDING:
        _field("due", moment(job.run_at))
    if job.snoozes:
        _field("has waited", count(job.snoozes, "time"))
    times = {
        "begins by": None if job.attempts or job.has_ended else job.expires_at,
        "ends by": None if job.has_ended else job.deadline_at,
        "started": job.started_at,
        "lease ends": job.locked_until,
        "finished": job.finished_at,
    }
    for name, when in times.items():
        _field(name, None if when is None else moment(when))
    _field("progress", said(job))
    _field("unique", None if story.unique is None else _held(story.unique))
    _json("payload", job.payload)
    if job.result is not None:
        _json("result", job.result)
    for failure in story.failures:
        print_text("")
        asked = job.status is JobStatus.CANCELLED and failure.error_type == Cancel.__name__
        what, color = ("asked to be cancelled", "yellow") if asked else ("failed", "red")
        who = f"Attempt {failure.attempt} {what}" if failure.attempt else "No attempt was begun"
        print_line((who, color), f", {moment(failure.failed_at)}", indent=2)
        print_line(f"{failure.error_type}: {failure.message}", indent=4)
        if failure.traceback:
            print_text(failure.traceback.rstrip("\n"), indent=4, style="dim")
    print_text("")
    print_text(f"Next  {story.next}")


def _held(key: HeldKey) -> str:
    in_any_case = "" if key.kept_until is None else f", and in any case until {moment(key.kept_until)}"
    return f"holds its key until it has {key.until}{in_any_case}"


def _json(name: str, value: object) -> None:
    print_line(name, indent=2)
    print_text(msgspec.json.format(msgspec.json.encode(value), indent=2).decode(), indent=4)


def _field(name: str, value: str | None, style: str = "") -> None:
    if value is not None:
        print_line(f"{name:<12}", (value, style), indent=2)
