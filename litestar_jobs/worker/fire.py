"""Step 1 for periodic jobs, fire: slots that are due become jobs.

Every worker does this for the schedules in its code, and none of them is special: a slot goes to whoever writes it
first. What is due is asked of the database's clock; this process only sets an alarm.
"""

import time
from collections.abc import Callable, Iterable

from litestar_jobs.agenda import REFRESH, Agenda, Planned
from litestar_jobs.news import Listener
from litestar_jobs.schedule import Decision, Schedule, by_name, decide, new_job
from litestar_jobs.telemetry import Event, SlotEnqueued, SlotsSkipped
from litestar_jobs.times import next_after

__all__ = ("Firing",)

WITHOUT_SCHEDULES = 3600.0
"""Seconds between two looks of a process that has none: it only forgets those that nobody has any more."""
AT_LEAST = 0.001


class Firing:
    """The schedules of a process."""

    def __init__(
        self, agenda: Agenda, schedules: Iterable[Schedule], tell: Listener, emit: Callable[[Event], None]
    ) -> None:
        """``tell`` hears of queues with new jobs."""
        self._agenda = agenda
        self._schedules = by_name(schedules)
        self._tell = tell
        self._emit = emit
        self._is_declared = False
        self._declare_at = 0.0

    async def step(self) -> float:
        """Fire what is due. Answers in how many seconds something is next, as far as is known."""
        if time.monotonic() >= self._declare_at:
            await self._agenda.declare(list(self._schedules.values()), starting=not self._is_declared)
            self._is_declared = True
            self._declare_at = time.monotonic() + REFRESH
        if not self._schedules:
            return WITHOUT_SCHEDULES
        pauses = [
            await self._turn(schedule, row)
            for row in await self._agenda.planned(list(self._schedules))
            # Times that differ are those of newer code, or of older code that is still there: that fires them.
            if (schedule := self._schedules.get(row.name)) and row.times == schedule.times
        ]
        return max(AT_LEAST, min(pauses, default=REFRESH))

    async def _turn(self, schedule: Schedule, row: Planned) -> float:
        """Fire one schedule if it is due. Answers in how many seconds it is next."""
        until = row.decided_until
        if row.paused_at is not None:
            until = row.now  # whoever resumes it does not wake this process
        elif (decision := decide(schedule, until, row.now)) is not None:
            if not await self._fire(schedule, row, decision):
                return 0.0
            until = decision.until
        coming = next_after(schedule.times, until)
        return REFRESH if coming is None else min(REFRESH, (coming - row.now).total_seconds())

    async def _fire(self, schedule: Schedule, row: Planned, decision: Decision) -> bool:
        """False if another process had its turn: then it is to be looked at again."""
        jobs = [new_job(schedule, slot) for slot in decision.slots]
        busy = await self._agenda.fire(schedule, row, decision, jobs)
        if busy is None:
            return False
        asked = schedule.request
        if decision.missed:
            self._emit(SlotsSkipped(schedule.name, asked.job_type, decision.missed, decision.until, "missed"))
        if busy:
            self._emit(SlotsSkipped(schedule.name, asked.job_type, len(jobs), decision.until, "overlap"))
            return True
        for job, slot in zip(jobs, decision.slots, strict=True):
            self._emit(SlotEnqueued(schedule.name, slot, job.id, asked.job_type, asked.queue, job.trace_id))
        self._tell({asked.queue} if jobs else set(), None)
        return True
