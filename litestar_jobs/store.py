"""One method per statement in ``sql/``. What a statement promises stands on top of its file."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

import msgspec

from litestar_jobs.database import Fetch, Record
from litestar_jobs.filter import JobFilter
from litestar_jobs.outcome import Settlement
from litestar_jobs.records import (
    Claimed,
    HeldKey,
    Lapsed,
    LiveWorker,
    Lowest,
    QueueCount,
    QueueSettings,
    Released,
    Rescued,
    UnknownType,
    Walk,
    Walked,
)
from litestar_jobs.request import NewJob
from litestar_jobs.row import JobFailure, JobRow, JobStatus
from litestar_jobs.schedule import OF_A_SCHEDULE
from litestar_jobs.statements import Statements

__all__ = (
    "LARGEST",
    "WATCHED_FOR",
    "Claimed",
    "HeldKey",
    "LiveWorker",
    "Lowest",
    "Mark",
    "QueueCount",
    "QueueSettings",
    "Released",
    "Rescued",
    "Statements",
    "Store",
    "UnknownType",
    "Walked",
    "mark_of",
)

StructT = TypeVar("StructT", bound=msgspec.Struct)

Mark: TypeAlias = tuple[Any, ...]
MARK = ("status", "attempts", "run_at", "started_at", "progress", "progress_message")
IDS_IN_ONE = 200
WATCHED_FOR = 30.0
"""Seconds for which workers keep in mind that a job is watched."""


NOTHING = "{}"
"""No job has another that follows its failure."""
LARGEST = 4_000_000
"""Bytes of the largest payload that is claimed, unless the caller says otherwise."""


class Store:
    """The jobs in the database, over one connection.

    Whoever makes a store chooses where its statements go: the claim loop and the finisher have a connection each.
    """

    def __init__(self, fetch: Fetch, statements: Statements) -> None:
        self._fetch = fetch
        self._sql = statements
        self._channel = statements.channel
        self._changes = statements.changes

    async def enqueue(self, jobs: Sequence[NewJob]) -> None:
        if len(jobs) == 1:
            await self._fetch(self._sql["enqueue_one"], *jobs[0].row, self._channel)
        else:
            await self._fetch(self._sql["enqueue"], *NewJob.columns(jobs), self._channel)

    async def claim(
        self, slots: dict[str, int], lowest: dict[str, Lowest], worker_id: UUID, timeouts: str, largest: int = LARGEST
    ) -> list[Claimed]:
        bounds = [lowest.get(queue, NO_BOUND) for queue in slots]
        rows = await self._fetch(
            self._sql["claim"],
            list(slots),
            list(slots.values()),
            [bound.priority for bound in bounds],
            [bound.run_at for bound in bounds],
            [bound.id for bound in bounds],
            worker_id,
            timeouts,
            largest,
        )
        return [
            Claimed(
                row["id"],
                row["token"],
                row["attempt"],
                row["queue"],
                row["priority"],
                row["run_at"],
                row["job_type"],
                row["payload"],
                row["max_retries"],
                row["trace_id"],
                row["headers"],
                row["created_at"],
                row["snoozes"],
                row["expired"] or False,
                None if row["seconds_left"] is None else time.monotonic() + row["seconds_left"],
            )
            for row in rows
        ]

    async def complete(self, jobs: Sequence[Claimed]) -> set[UUID]:
        rows = await self._fetch(self._sql["complete"], [job.id for job in jobs], [job.token for job in jobs])
        return {row["id"] for row in rows}

    async def complete_with_results(self, jobs: Sequence[tuple[Claimed, str]]) -> set[UUID]:
        ids, tokens = [job.id for job, _ in jobs], [job.token for job, _ in jobs]
        rows = await self._fetch(self._sql["complete_with_results"], ids, tokens, [result for _, result in jobs])
        return {row["id"] for row in rows}

    async def settle(self, jobs: Sequence[tuple[Claimed, Settlement]], follow_ups: str = NOTHING) -> set[UUID]:
        failures = [settlement.failure for _, settlement in jobs]
        rows = await self._fetch(
            self._sql["settle"],
            [job.id for job, _ in jobs],
            [job.token for job, _ in jobs],
            [settlement.verdict for _, settlement in jobs],
            [settlement.delay for _, settlement in jobs],
            [failure and failure.error_type for failure in failures],
            [failure and failure.message for failure in failures],
            [failure and failure.traceback for failure in failures],
            self._channel,
            follow_ups,
            OF_A_SCHEDULE,
        )
        return {row["id"] for row in rows}

    async def taken_away(self, jobs: Sequence[Claimed]) -> set[UUID]:
        rows = await self._fetch(self._sql["taken_away"], [job.id for job in jobs], [job.attempt for job in jobs])
        return {row["id"] for row in rows}

    async def progress(self, news: Mapping[int, tuple[UUID, float, str | None]]) -> set[UUID]:
        """By token: the job, how far it is, and what it says."""
        ids, parts, messages = zip(*news.values(), strict=True)
        return {row["id"] for row in await self._fetch(self._sql["progress"], ids, list(news), parts, messages)}

    async def forget_progress(self) -> None:
        await self._fetch(self._sql["forget_progress"])

    async def promote(self, at_most: int) -> tuple[int, float | None, bool, dict[str, int]]:
        """How many moved, seconds until the next one is due, whether some wait at gates, and the limits of queues."""
        (row,) = await self._fetch(self._sql["promote"], at_most, self._channel)
        limits: dict[str, int] = msgspec.json.decode(row["limits"] or b"{}")
        return row["moved"], row["next_due"], row["gated"], limits

    async def register(self, worker_id: UUID, hostname: str, pid: int, queues: Sequence[str], lease: float) -> None:
        await self._fetch(self._sql["register"], worker_id, hostname, pid, list(queues), lease)

    async def renew(self, worker_id: UUID, lease: float) -> bool:
        return bool(await self._fetch(self._sql["renew"], worker_id, lease))

    async def deregister(self, worker_id: UUID) -> None:
        await self._fetch(self._sql["deregister"], worker_id)

    async def rescue(self, grace: float, follow_ups: str = NOTHING) -> list[Rescued]:
        rows = await self._fetch(self._sql["rescue"], grace, self._channel, follow_ups, OF_A_SCHEDULE)
        return [_struct(Rescued, row) for row in rows]

    async def lapse(self, since: Walk, at_most: int, follow_ups: str = NOTHING) -> tuple[list[Lapsed], int, Walk]:
        """The jobs that lapsed, how many were walked over, and how far."""
        hints = (since.expired_at, since.expired_id, since.overdue_at, since.overdue_id)
        rows = await self._fetch(self._sql["lapse"], *hints, at_most, self._channel, follow_ups, OF_A_SCHEDULE)
        ends = {name: rows[0][name] or getattr(since, name) for name in Walk.__struct_fields__}
        return [_struct(Lapsed, row) for row in rows if row["id"] is not None], rows[0]["walked"], Walk(**ends)

    async def release(self, queues: Sequence[str], patience: float) -> tuple[bool, Released | None]:
        """Whether suspects waited, and the one that may run now."""
        rows = await self._fetch(self._sql["release"], list(queues), patience, self._channel)
        return bool(rows), _struct(Released, rows[0]) if rows and rows[0]["id"] is not None else None

    async def held(self, job_id: UUID) -> str | None:
        rows = await self._fetch(self._sql["held"], job_id)
        return rows[0]["reason"] if rows else None

    async def hand_back(self, worker_id: UUID, known: Sequence[int]) -> set[UUID]:
        return {row["id"] for row in await self._fetch(self._sql["hand_back"], worker_id, known)}

    async def undouble(self) -> list[UUID]:
        return [row["id"] for row in await self._fetch(self._sql["undouble"])]

    async def wake(self, queues: Sequence[str]) -> None:
        await self.tell([f"ready:{queue}" for queue in queues])

    async def tell(self, messages: Sequence[str]) -> None:
        """Notify workers, as ``notify.sql`` says."""
        await self._notify(self._channel, messages)

    async def echo(self, word: str) -> None:
        await self._notify(self._channel, [f"echo:{word}"])

    async def ask_for_changes(self, ids: Sequence[UUID]) -> None:
        """Somebody watches these jobs: workers are to tell of their changes, for ``WATCHED_FOR`` seconds."""
        await self._notify(self._channel, [f"watch:{some}" for some in _listed(ids)])

    async def tell_changes(self, ids: Sequence[UUID]) -> None:
        await self._notify(self._changes, list(_listed(ids)))

    async def _notify(self, channel: str, messages: Sequence[str]) -> None:
        await self._fetch(self._sql["notify"], channel, messages)

    async def get(self, job_id: UUID) -> JobRow | None:
        return next(iter(await self.get_all([job_id])), None)

    async def get_all(self, ids: Sequence[UUID]) -> list[JobRow]:
        return [_job_row(row) for row in await self._fetch(self._sql["get"], ids)]

    async def marks(self, ids: Sequence[UUID]) -> dict[UUID, Mark]:
        """Of each job that there is, what differs after a change."""
        rows = await self._fetch(self._sql["marks"], ids)
        return {row["id"]: tuple(row[name] for name in MARK) for row in rows}

    async def find(self, which: JobFilter, at_most: int, before: UUID | None = None) -> list[JobRow]:
        statuses = which.among(tuple(JobStatus), "found")
        rows = await self._fetch(self._sql["find"], *which.arguments(statuses), before, at_most)
        return [_job_row(row) for row in rows]

    async def failures(self, job_id: UUID) -> list[JobFailure]:
        return [_struct(JobFailure, row) for row in await self._fetch(self._sql["failures"], job_id)]

    async def count(self) -> list[QueueCount]:
        return [_struct(QueueCount, row) for row in await self._fetch(self._sql["count"])]

    async def queue_settings(self) -> list[QueueSettings]:
        return [_struct(QueueSettings, row) for row in await self._fetch(self._sql["queues"])]

    async def pause_queue(self, name: str) -> bool:
        return bool(await self._fetch(self._sql["pause_queue"], name, self._channel))

    async def resume_queue(self, name: str) -> bool:
        return bool(await self._fetch(self._sql["resume_queue"], name, self._channel))

    async def resize_queue(self, name: str, concurrency: int | None) -> bool:
        return bool(await self._fetch(self._sql["resize_queue"], name, concurrency, self._channel))

    async def unknown_types(self, known: Sequence[str]) -> list[UnknownType]:
        return [_struct(UnknownType, row) for row in await self._fetch(self._sql["unknown_types"], known)]

    async def workers(self) -> list[LiveWorker]:
        return [_struct(LiveWorker, row) for row in await self._fetch(self._sql["workers"])]

    async def cancel(self, job_id: UUID) -> bool:
        return bool(await self._fetch(self._sql["cancel"], job_id, self._channel))

    async def void(self, jobs: Sequence[Claimed]) -> dict[int, bool]:
        """By token, whether the job is cancelled."""
        rows = await self._fetch(self._sql["void"], [job.id for job in jobs], [job.token for job in jobs])
        return {row["token"]: row["cancelled"] for row in rows}

    async def retry(self, job_id: UUID) -> str | None:
        rows = await self._fetch(self._sql["retry"], job_id, self._channel)
        return rows[0]["queue"] if rows else None

    async def cancel_many(self, ids: Sequence[UUID]) -> dict[UUID, str | None]:
        return {row["id"]: None for row in await self._fetch(self._sql["cancel_many"], ids, self._channel)}

    async def retry_many(self, ids: Sequence[UUID], statuses: Sequence[str]) -> dict[UUID, str | None]:
        rows = await self._fetch(self._sql["retry_many"], ids, statuses, self._channel)
        return {row["id"]: row["queue"] for row in rows}

    async def move_many(self, ids: Sequence[UUID], queue: str | None, priority: int | None) -> dict[UUID, str | None]:
        rows = await self._fetch(self._sql["move_many"], ids, queue, priority, self._channel)
        return {row["id"]: row["queue"] for row in rows}

    async def delete_many(self, ids: Sequence[UUID], statuses: Sequence[str]) -> dict[UUID, str | None]:
        return {row["id"]: None for row in await self._fetch(self._sql["delete_many"], ids, statuses)}

    async def prune_completed(self, keep: float, after: UUID, before: UUID, at_most: int) -> Walked:
        (row,) = await self._fetch(self._sql["prune_completed"], keep, after, before, at_most)
        return _struct(Walked, row)

    async def prune_ended(self, status: str, keep: float, since: datetime, at_most: int) -> tuple[int, datetime | None]:
        (row,) = await self._fetch(self._sql["prune_ended"], status, keep, since, at_most)
        return row["gone"], row["last"]

    async def key_of(self, job_id: UUID) -> HeldKey | None:
        rows = await self._fetch(self._sql["key_of"], job_id)
        return _struct(HeldKey, rows[0]) if rows else None

    async def forget_keys(self, after: UUID, at_most: int) -> Walked:
        (row,) = await self._fetch(self._sql["forget_keys"], after, at_most)
        return _struct(Walked, row)

    async def expired(self, keep: Mapping[str, float]) -> dict[str, int]:
        rows = await self._fetch(self._sql["expired"], list(keep), list(keep.values()))
        return {row["status"]: row["jobs"] for row in rows}

    async def strays(self) -> list[tuple[UUID, list[str]]]:
        return [(row["id"], row["places"]) for row in await self._fetch(self._sql["strays"])]


NO_BOUND = Lowest()


def mark_of(row: JobRow) -> Mark:
    """What :meth:`Store.marks` says of such a job."""
    return tuple(getattr(row, name) for name in MARK)


def _listed(ids: Sequence[UUID]) -> Iterator[str]:
    """The ids in as few texts as fit into notifications."""
    for first in range(0, len(ids), IDS_IN_ONE):
        yield ",".join(map(str, ids[first : first + IDS_IN_ONE]))


def _struct(type_: type[StructT], row: Record) -> StructT:
    return type_(**{name: row[name] for name in type_.__struct_fields__})


def _job_row(row: Record) -> JobRow:
    values = {name: row[name] for name in JobRow.__struct_fields__}
    with suppress(msgspec.DecodeError, RecursionError):  # any program can have written it: text can be looked at too
        values["payload"] = msgspec.json.decode(values["payload"])
    values["status"] = JobStatus(values["status"])
    if values["result"] is not None:
        values["result"] = msgspec.json.decode(values["result"])
    return JobRow(**values)
