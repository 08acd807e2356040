"""Attending: what runs is looked after. Attempts that cannot say themselves that they have ended free their slots, and
those whose jobs were cancelled, in the database, are stopped.

A notification says which tokens are void. It is only a hint, as all of them are: the worker asks the database about what
it runs, and stops what the database says. It asks without a hint too: every second while it hears nothing, and otherwise
as often as it looks for jobs of dead processes.
"""

import time
from collections.abc import Callable, Iterable
from uuid import UUID

from litestar_jobs.outcome import Cancelled, Interrupted, Lost, Outcome
from litestar_jobs.store import Store
from litestar_jobs.telemetry import AttemptAbandoned, Event
from litestar_jobs.worker.execute import Executor
from litestar_jobs.worker.finish import Finisher
from litestar_jobs.worker.slots import Slots

__all__ = ("Attendant",)

AFTER_CANCEL = 5.0
"""Seconds that handlers have to end after they were cancelled."""
WATCH_PAUSE = 1.0
"""Seconds between two looks at whether they did."""


class Attendant:
    """Looks after the attempts in these slots."""

    def __init__(  # noqa: PLR0913 - the parts that attempts go through
        self,
        store: Store,
        slots: Slots,
        executor: Executor,
        finisher: Finisher,
        *,
        changed: Callable[[Iterable[UUID]], None],
        emit: Callable[[Event], None],
        hears: Callable[[], bool],
        pause: float,
    ) -> None:
        """``changed`` hears of jobs that were stopped. While hints come through (``hears``), ``pause`` seconds are
        between two looks at the database."""
        self._store = store
        self._slots = slots
        self._executor = executor
        self._finisher = finisher
        self._changed = changed
        self._emit = emit
        self._hears = hears
        self._pause = pause
        self._look_at = 0.0

    async def step(self) -> float:
        """What the worker does again and again, and whenever there is a hint."""
        self.free()
        await self._stop_void()
        return WATCH_PAUSE

    def free(self) -> None:
        """Free the slots of attempts that do not say themselves that they have ended."""
        for attempt in self._slots.silent():
            self._slots.end(attempt, self._executor.judge_silent(attempt))
        for attempt in self._slots.overdue(AFTER_CANCEL):
            self._slots.end(attempt, self._executor.give_up(attempt))

    def hint(self, tokens: Iterable[int] | None) -> bool:
        """These tokens are void, or some (None). Whether that may be about attempts of this process: then step."""
        is_ours = tokens is None or not {job.token for job in self._slots.open}.isdisjoint(tokens)
        if is_ours:
            self._look_at = 0.0
        return is_ours

    async def interrupt(self) -> int:
        """Cancel what runs. A handler that does not end even then is given up, and can write nothing any more."""
        interrupted = self._slots.cancel(Interrupted())
        if await self._slots.wait(AFTER_CANCEL):
            return interrupted
        for attempt in self._slots.abandon():
            job = attempt.claimed
            if isinstance(attempt.stopped_with, Cancelled):
                self._executor.give_up(attempt)
                continue
            self._emit(AttemptAbandoned(job.id, job.job_type, job.queue, job.trace_id, job.attempt))
            self._finisher.put(job, Interrupted())
        return interrupted

    async def _stop_void(self) -> None:
        now = time.monotonic()
        if (now < self._look_at and self._hears()) or not (jobs := self._slots.open):
            return
        self._look_at = now + self._pause
        try:
            void = await self._store.void(jobs)
        except BaseException:
            self._look_at = 0.0
            raise
        if void:
            ends: dict[bool, Outcome] = {True: Cancelled(is_written=True), False: Lost()}
            self._slots.stop({token: ends[is_cancelled] for token, is_cancelled in void.items()})
            self._changed(job.id for job in jobs if job.token in void)
