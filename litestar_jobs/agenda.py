"""The statements about schedules, as ``store.py`` has those about jobs."""

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from litestar_jobs.database import Fetch
from litestar_jobs.request import NOT_LIMITED, NewJob
from litestar_jobs.schedule import Decision, Schedule
from litestar_jobs.store import Statements
from litestar_jobs.times import Times

__all__ = ("REFRESH", "Agenda", "Planned")

REFRESH = 20.0
"""Seconds between two declarations of a process, and ..."""
NOBODYS = 60.0
"""... without one, after which times are nobody's any more."""
FORGOTTEN = 24 * 3600.0
"""Seconds after which a schedule that no process has in its code is forgotten."""

decode_times: Callable[[str], Times] = msgspec.json.Decoder(Times).decode


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as it is stored. ``now`` is the database's time."""

    name: str
    job_type: str
    times: Times | None
    """None: of a kind that only a newer version of this library knows."""
    turn: int
    decided_until: datetime
    paused_at: datetime | None
    last_slot: datetime | None
    last_job: UUID | None
    in_code: bool
    """Whether a live process has it in its code."""
    now: datetime


class Agenda:
    """The schedules in the database, over one connection."""

    def __init__(self, fetch: Fetch, statements: Statements) -> None:
        self._fetch = fetch
        self._sql = statements
        self._channel = statements.channel

    async def declare(self, schedules: Sequence[Schedule], *, starting: bool) -> None:
        await self._fetch(
            self._sql["declare"],
            [schedule.name for schedule in schedules],
            [schedule.request.job_type for schedule in schedules],
            [_encoded(schedule.times) for schedule in schedules],
            starting,
            NOBODYS,
            FORGOTTEN,
        )

    async def planned(self, names: Sequence[str]) -> list[Planned]:
        """These, and those that other live processes have in their code."""
        rows = await self._fetch(self._sql["schedules"], names, NOBODYS)
        return [
            Planned(
                **{name: row[name] for name in Planned.__struct_fields__ if name != "times"},
                times=_decoded(row["times"]),
            )
            for row in rows
        ]

    async def fire(self, schedule: Schedule, seen: Planned, decision: Decision, jobs: Sequence[NewJob]) -> bool | None:
        """Whether a job of an earlier slot kept these from being written; None if another process had its turn."""
        asked = schedule.request
        rows = await self._fetch(
            self._sql["fire"],
            schedule.name,
            seen.turn,
            decision.until,
            schedule.overlap == "skip",
            asked.queue,
            asked.job_type,
            asked.payload.decode(),
            asked.priority,
            asked.max_retries,
            [job.id for job in jobs],
            decision.slots,
            [job.trace_id for job in jobs],
            [job.headers.decode() if job.headers else None for job in jobs],
            self._channel,
            *asked.limits,
            *msgspec.structs.astuple(asked.limited or NOT_LIMITED),
        )
        return rows[0]["busy"] if rows else None

    async def fire_now(self, name: str, job: NewJob) -> bool:
        asked = job.request
        return bool(
            await self._fetch(
                self._sql["fire_now"],
                name,
                asked.queue,
                asked.job_type,
                asked.payload.decode(),
                asked.priority,
                asked.max_retries,
                job.id,
                job.trace_id,
                job.headers.decode() if job.headers else None,
                self._channel,
                *asked.limits,
                *msgspec.structs.astuple(asked.limited or NOT_LIMITED),
            )
        )

    async def pause(self, name: str) -> bool:
        return bool(await self._fetch(self._sql["pause"], name))

    async def resume(self, name: str) -> bool:
        return bool(await self._fetch(self._sql["resume"], name))


def _encoded(times: Times) -> str:
    return msgspec.json.encode(times).decode()


def _decoded(times: str) -> Times | None:
    try:
        return decode_times(times)
    except msgspec.ValidationError:
        return None
