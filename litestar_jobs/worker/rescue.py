"""Rescue: jobs that their processes left behind run elsewhere; those that may be what ends processes, one at a time."""

import logging
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
    ) -> None:
        """``queues`` are those whose suspects may go now; ``follow_ups`` say what follows a failed job; ``ended`` hears of
        jobs that this has ended."""
        self._store = store
        self._queues = queues
        self._lease = lease
        self._emit = emit
        self._follow_ups = follow_ups
        self._ended = ended
        self._lapses = Lapses(store, emit, follow_ups, ended)

    async def step(self) -> float:
        """Rescue what there is. Answers in how many seconds to look again."""
        for job_id in await self._store.undouble():
            logger.warning(
                "job %s was in two states, which another program must have written; the later one counts", job_id
            )
        rescued = await self._store.rescue(self._lease, self._follow_ups)
        self._ended([job.id for job in rescued if job.was_last])
        for job in rescued:
            fate = (job.was_last, job.overdue, job.suspect)
            self._emit(JobRescued(job.id, job.job_type, job.queue, job.trace_id, job.attempt, *fate))
        await self._lapses.sweep()
        waited, suspect = await self._store.release(self._queues(), SUSPECT_PATIENCE)
        if suspect is not None:
            self._emit(SuspectReleased(suspect.id, suspect.job_type, suspect.queue, suspect.trace_id))
        pause = self._lease / RENEWALS
        return min(SUSPECT_PAUSE, pause) if waited else pause
