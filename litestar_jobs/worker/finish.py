"""Step 5, finish: outcomes become rows. They gather while the last ones are being written; there is no timer."""

import logging
from collections.abc import Callable
from uuid import UUID

from litestar_jobs.enqueue import Listener
from litestar_jobs.outcome import Completed, Outcome, Settlement, settlement
from litestar_jobs.store import Claimed, Store
from litestar_jobs.telemetry import Event, OutcomeRefused
from litestar_jobs.worker.chore import Chore

__all__ = ("Finisher",)

logger = logging.getLogger("litestar_jobs")

BATCH = 1_000
NOT_BEFORE_WOKEN = 3600.0


class Finisher:
    """Writes how attempts ended, as long as their tokens hold."""

    def __init__(self, store: Store, tell: Listener, emit: Callable[[Event], None]) -> None:
        """``tell`` hears of jobs that run again after a delay, once that is written."""
        self._store = store
        self._tell = tell
        self._emit = emit
        self._completed: list[Claimed] = []
        self._settled: list[tuple[Claimed, Settlement]] = []
        self._chore = Chore("finish", self._write, emit)
        self.start = self._chore.start

    @property
    def backlog(self) -> int:
        """Outcomes that are not written yet."""
        return len(self._completed) + len(self._settled)

    @property
    def tokens(self) -> list[int]:
        """Those of the jobs whose outcomes are not written yet."""
        return [job.token for job in (*self._completed, *(job for job, _ in self._settled))]

    def put(self, job: Claimed, outcome: Outcome) -> None:
        """Write this soon."""
        if type(outcome) is Completed:
            self._completed.append(job)
        elif (settled := settlement(outcome)) is not None:
            self._settled.append((job, settled))
        else:
            return
        self._chore.wake()

    async def stop(self) -> int:
        """Write what is left. Answers how many could not be written, because the database is gone."""
        await self._chore.stop()
        try:
            while self.backlog:
                await self._write()
        except Exception:
            logger.exception("%d outcomes could not be written; these jobs will be rescued", self.backlog)
        return self.backlog

    async def _write(self) -> float:
        if completed := self._completed[:BATCH]:
            self._report([(job, "completed") for job in completed], await self._store.complete(completed))
            del self._completed[: len(completed)]
        if settled := self._settled[:BATCH]:
            self._report([(job, end.verdict) for job, end in settled], await self._store.settle(settled))
            del self._settled[: len(settled)]
            if delays := [end.delay for _, end in settled if end.delay > 0]:
                self._tell(set(), min(delays))
        return 0.0 if self.backlog else NOT_BEFORE_WOKEN

    def _report(self, written: list[tuple[Claimed, str]], moved: set[UUID]) -> None:
        if len(moved) == len(written):
            return
        for job, verdict in written:
            if job.id not in moved:
                self._emit(OutcomeRefused(job.id, job.job_type, job.queue, job.trace_id, job.attempt, verdict))
