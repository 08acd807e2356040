"""``retry`` and ``cancel``: jobs move because somebody says so. Of ids each moves or not on its own, and it is said why."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn
from uuid import UUID

import click
import msgspec
from litestar import Litestar
from rich_click import RichCommand

from litestar_jobs.cli.bulk import bulk_options, operate
from litestar_jobs.cli.connect import OperatedPlugin, coursed, plugin_of, run
from litestar_jobs.cli.printing import print_json, print_line
from litestar_jobs.operate import Operator
from litestar_jobs.row import JobStatus
from litestar_jobs.store import Store

__all__ = ("cancel", "retry")

REFUSALS = {
    "retry": {
        JobStatus.PENDING: "it is pending and will run anyway",
        JobStatus.RUNNING: "it is running",
        JobStatus.COMPLETED: "it has completed; enqueue a new job to do it again",
    },
    "cancel": {
        JobStatus.COMPLETED: "it has completed",
        JobStatus.FAILED: "it has failed and will not run by itself",
        JobStatus.CANCELLED: "it is cancelled already",
    },
}


class Move(msgspec.Struct, frozen=True):
    """What became of one job. ``status`` is where it is now, null if there is no such job; ``reason`` why it did not
    move."""

    id: UUID
    moved: bool
    status: JobStatus | None
    reason: str | None


class Moves(msgspec.Struct, frozen=True):
    """What ``retry --json`` and ``cancel --json`` print, in the order of the arguments."""

    jobs: list[Move]


@click.command(name="retry", cls=RichCommand)
@bulk_options
def retry(app: Litestar, job_ids: Sequence[UUID], *, as_json: bool, **options: Any) -> None:
    """Run failed or cancelled jobs again, with all their attempts anew.

    With ids alone it says of each whether it moved, and exits with 1 if one did not. With a filter it counts and asks
    first, and says how many moved.
    """
    if job_ids and all(value is None or value is False for value in options.values()):
        moves = run(_move(plugin_of(app), "retry", job_ids))
        _report(moves, "runs again", as_json=as_json)
    operate(app, job_ids, options, Operator.retry, ("Run again:", "run again"), as_json=as_json)


@click.command(name="cancel", cls=RichCommand)
@bulk_options
def cancel(app: Litestar, job_ids: Sequence[UUID], *, as_json: bool, **options: Any) -> None:
    """Cancel jobs that have not ended. Those that run are stopped, wherever that is.

    With ids alone it says of each whether it moved, and exits with 1 if one did not. With a filter it counts and asks
    first, and says how many moved.
    """
    if job_ids and all(value is None or value is False for value in options.values()):
        moves = run(_move(plugin_of(app), "cancel", job_ids))
        _report(moves, "is cancelled", as_json=as_json)
    operate(app, job_ids, options, Operator.cancel, ("Cancel", "cancelled"), as_json=as_json)


async def _move(plugin: OperatedPlugin, verb: str, job_ids: Sequence[UUID]) -> list[Move]:
    async with coursed(plugin) as (store, course):
        move: Callable[[UUID], Awaitable[object]] = store.retry if verb == "retry" else store.cancel
        arrives = JobStatus.PENDING if verb == "retry" else JobStatus.CANCELLED
        moves = [
            Move(job_id, moved=True, status=arrives, reason=None)
            if await move(job_id)
            else await _unmoved(store, verb, job_id)
            for job_id in dict.fromkeys(job_ids)
        ]
        if verb == "cancel":
            await course.follow([move.id for move in moves if move.moved])
        return moves


async def _unmoved(store: Store, verb: str, job_id: UUID) -> Move:
    job = await store.get(job_id)
    if job is None:
        return Move(job_id, moved=False, status=None, reason="there is no such job")
    reason = REFUSALS[verb].get(job.status, "it was moving at this moment, try again")
    return Move(job_id, moved=False, status=job.status, reason=reason)


def _report(moves: list[Move], done: str, *, as_json: bool) -> NoReturn:
    if as_json:
        print_json(Moves(moves))
    for move in [] if as_json else moves:
        if move.moved:
            print_line((str(move.id), "bold"), "  ", (done, "green"))
        else:
            print_line((str(move.id), "bold"), "  ", ("not moved", "red"), f": {move.reason}")
    sys.exit(0 if all(move.moved for move in moves) else 1)
