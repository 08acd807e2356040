"""Rescue: jobs that their processes left behind run elsewhere; those that may be what ends processes, one at a time.

Dead processes are looked for several times in a lease. What is rare and can wait is looked for less often: a worker without
work should hardly ask anything.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

from litestar_jobs.store import Store
from litestar_jobs.telemetry import Event, JobRescued, SuspectReleased
from litestar_jobs.worker.heartbeat import RENEWALS
from litestar_jobs.worker.lapse import Lapses

__all__ = ("Rescuer",)

logger = logging.getLogger("litestar_jobs")

SUSPECT_PATIENCE = 3600.0
"""Seconds for which a suspect, a job that may be what ends processes, keeps the others waiting at the most."""
SUSPECT_PAUSE = 0.25
"""Seconds between two looks at whether the next one may run, while there are some."""
RARELY = 15.0
"""Seconds between two looks for what is rare and can wait, or a lease if that is shorter."""


class Rescuer:
    """Looks after the jobs of all workers; lets the suspects of some queues go."""

    def __init__(  # noqa: PLR0913 - who hears of what
        self,
        store: Store,
        queues: Callable[[], Sequence[str]],
        lease: float,
        emit: Callable[[Event], None],
        *,
        follow_ups: str,
        ended: Callable[[Iterable[UUID]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``queues`` are those whose suspects may go now; ``follow_ups`` say what follows a failed job; ``ended`` hears of
        jobs that this has ended."""
        self._store = store
        self._queues = queues
        self._lease = lease
        self._emit = emit
        self._follow_ups = follow_ups
        self._ended = ended
        self._clock = clock
        self._lapses = Lapses(store, emit, follow_ups, ended)
        self._rarely = min(lease, RARELY)
        self._rescue_at = self._tidy_at = self._release_at = 0.0

    async def step(self) -> float:
        """Do what is due. Answers in how many seconds something is next."""
        now = self._clock()
        if now >= self._rescue_at:
            await self._rescue()
            self._rescue_at = now + self._lease / RENEWALS
        if now >= self._tidy_at:
            await self._tidy()
            self._tidy_at = now + self._rarely
        if now >= self._release_at:
            waited = await self._release()
            self._release_at = now + (SUSPECT_PAUSE if waited else self._rarely)
        return max(0.001, min(self._rescue_at, self._tidy_at, self._release_at) - self._clock())

    async def _rescue(self) -> None:
        rescued = await self._store.rescue(self._lease, self._follow_ups)
        self._ended([job.id for job in rescued if job.was_last])
        for job in rescued:
            fate = (job.was_last, job.overdue, job.suspect)
            self._emit(JobRescued(job.id, job.job_type, job.queue, job.trace_id, job.attempt, *fate))
        if any(job.suspect for job in rescued):
            self._release_at = 0.0

    async def _tidy(self) -> None:
        for job_id in await self._store.undouble():
            logger.warning(
                "job %s was in two states, which another program must have written; the later one counts", job_id
            )
        await self._lapses.sweep()

    async def _release(self) -> bool:
        """Whether suspects waited."""
        waited, suspect = await self._store.release(self._queues(), SUSPECT_PATIENCE)
        if suspect is not None:
            self._emit(SuspectReleased(suspect.id, suspect.job_type, suspect.queue, suspect.trace_id))
        return waited
