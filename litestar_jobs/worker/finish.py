"""Step 5, finish: outcomes become rows. They gather while the last ones are being written; there is no timer."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from uuid import UUID

from litestar_jobs.database import may_have_been_written
from litestar_jobs.news import Listener
from litestar_jobs.outcome import Completed, Lost, Outcome, Settlement, Unanswered, settlement
from litestar_jobs.store import Claimed, Store
from litestar_jobs.telemetry import Event, OutcomeRefused
from litestar_jobs.worker.chore import Chore

__all__ = ("Finisher",)

logger = logging.getLogger("litestar_jobs")

BATCH = 1_000
BATCH_BYTES = 4_000_000
"""Of results in one statement at the most, unless a single one is larger."""
NOT_BEFORE_WOKEN = 3600.0


class Finisher:
    """Writes how attempts ended, as long as their tokens hold."""

    def __init__(  # noqa: PLR0913 - who hears of what
        self,
        store: Store,
        tell: Listener,
        emit: Callable[[Event], None],
        changed: Callable[[Iterable[UUID]], None],
        *,
        follow_ups: str,
        ended: Callable[[Iterable[Claimed]], None],
    ) -> None:
        """``tell`` hears of jobs that run again after a delay, once that is written, and ``changed`` and ``ended`` of
        all."""
        self._store = store
        self._tell = tell
        self._emit = emit
        self._changed = changed
        self._follow_ups = follow_ups
        self._ended = ended
        self._completed: list[Claimed] = []
        self._with_results: list[tuple[Claimed, str]] = []
        self._settled: list[tuple[Claimed, Settlement]] = []
        self._unheard: set[int] = set()
        """Tokens of jobs whose end may be in the database already: it was written once, and nobody heard the answer."""
        self._chore = Chore("finish", self._write, emit)
        self.start = self._chore.start

    @property
    def backlog(self) -> int:
        """Outcomes that are not written yet."""
        return len(self._completed) + len(self._with_results) + len(self._settled)

    @property
    def tokens(self) -> list[int]:
        """Those of the jobs whose outcomes are not written yet."""
        others = (job for job, _ in (*self._with_results, *self._settled))
        return [job.token for job in (*self._completed, *others)]

    def put(self, job: Claimed, outcome: Outcome) -> None:
        """Write this soon."""
        if type(outcome) is Completed:
            if outcome.result is None:
                self._completed.append(job)
            else:
                self._with_results.append((job, outcome.result))
        elif (settled := settlement(outcome)) is not None:
            self._settled.append((job, settled))
            if isinstance(outcome, Unanswered):
                self._unheard.add(job.token)
        else:
            if type(outcome) is not Lost:
                self._changed([job.id])
                self._ended([job])
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
            moved = await self._heard(completed, self._store.complete(completed))
            await self._report([(job, "completed") for job in completed], moved)
            del self._completed[: len(completed)]
        if with_results := self._some_with_results():
            jobs = [job for job, _ in with_results]
            moved = await self._heard(jobs, self._store.complete_with_results(with_results))
            await self._report([(job, "completed") for job in jobs], moved)
            del self._with_results[: len(with_results)]
        if settled := self._settled[:BATCH]:
            moved = await self._heard([job for job, _ in settled], self._store.settle(settled, self._follow_ups))
            await self._report([(job, end.verdict) for job, end in settled], moved)
            del self._settled[: len(settled)]
            if delays := [end.delay for _, end in settled if end.delay > 0]:
                self._tell(set(), min(delays))
        return 0.0 if self.backlog else NOT_BEFORE_WOKEN

    def _some_with_results(self) -> list[tuple[Claimed, str]]:
        size = count = 0
        for _, result in self._with_results[:BATCH]:
            size += len(result)
            if count and size > BATCH_BYTES:
                break
            count += 1
        return self._with_results[:count]

    async def _heard(self, jobs: Sequence[Claimed], answer: Awaitable[set[UUID]]) -> set[UUID]:
        try:
            return await answer
        except Exception as error:
            if may_have_been_written(error):
                self._unheard.update(job.token for job in jobs)
            raise

    async def _report(self, written: list[tuple[Claimed, str]], moved: set[UUID]) -> None:
        """Tell of those that another has ended. What did not move because it had moved before, unheard, is not among
        them."""
        self._changed(job.id for job, _ in written)
        self._ended(job for job, _ in written)
        refused = [] if len(moved) == len(written) else [end for end in written if end[0].id not in moved]
        if unheard := [job for job, _ in refused if job.token in self._unheard]:
            own = {job.id for job in unheard} - await self._store.taken_away(unheard)
            refused = [end for end in refused if end[0].id not in own]
        for job, verdict in refused:
            self._emit(OutcomeRefused(job.id, job.job_type, job.queue, job.trace_id, job.attempt, verdict))
        if self._unheard:
            self._unheard.difference_update(job.token for job, _ in written)
