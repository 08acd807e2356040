"""Step 6, follow: where a step of a workflow has ended, those that wait for it go on, or are cancelled.

Whoever wrote the end says so here, and what comes of it is written a moment later, of many ends in one transaction. What
was not said, because a process died between the two or knows nothing of workflows, is found by walking over the steps now
and then, a slice at a time.
"""

import logging
import time
from collections.abc import Callable, Iterable
from uuid import UUID

from litestar_jobs.course import Course
from litestar_jobs.database import BAD_ROW, UNAVAILABLE
from litestar_jobs.news import Listener
from litestar_jobs.records import Claimed, Walked
from litestar_jobs.telemetry import Event, StepSkipped
from litestar_jobs.worker.chore import Chore
from litestar_jobs.workflow import WORKFLOW

__all__ = ("Follower",)

logger = logging.getLogger("litestar_jobs")

AT_ONCE = 1_000
"""Ends that are followed, or steps that are looked at, at once."""
BREATHER = 20.0
"""The pause after a slice of a walk, in times of what it took."""

FIRST = UUID(int=0)
MARK = f'"{WORKFLOW}":'


class Follower:
    """Leads on from ends, in the order in which it hears of them."""

    def __init__(
        self,
        course: Course,
        tell: Listener,
        emit: Callable[[Event], None],
        changed: Callable[[Iterable[UUID]], None],
        pause: float,
    ) -> None:
        """``tell`` hears of queues with jobs that may run, and ``changed`` of all jobs that moved. ``pause`` are the seconds
        between two walks."""
        self._course = course
        self._tell = tell
        self._emit = emit
        self._changed = changed
        self._pause = pause
        self._ended: dict[UUID, None] = {}
        self._walks = [self._look, self._forget]
        self._after = FIRST
        self._walk_at = 0.0
        self._chore = Chore("follow", self._step, emit)
        self.start = self._chore.start

    def finished(self, jobs: Iterable[Claimed]) -> None:
        """An attempt of these is over. Those that are steps, and have ended, lead on."""
        if ids := [job.id for job in jobs if job.headers is not None and MARK in job.headers]:
            self.ended(ids)

    def ended(self, ids: Iterable[UUID]) -> None:
        """These have ended, and may be steps."""
        self._ended.update(dict.fromkeys(ids))
        if self._ended:
            self._chore.wake()

    async def stop(self) -> None:
        """Lead on from what is left."""
        await self._chore.stop()
        try:
            while self._ended:
                await self._follow()
        except UNAVAILABLE as error:
            logger.warning(
                "%d ends of jobs were not followed, other workers will find them: %s", len(self._ended), error
            )

    async def _step(self) -> float:
        if self._ended:
            await self._follow()
        elif time.monotonic() >= self._walk_at:
            await self._walk()
        return 0.0 if self._ended else max(0.001, self._walk_at - time.monotonic())

    async def _follow(self) -> None:
        ids = list(self._ended)[:AT_ONCE]
        for job_id in ids:  # before: one that is retried may end again meanwhile
            del self._ended[job_id]
        try:
            await self._lead_on(ids)
        except BaseException:
            self._ended.update(dict.fromkeys(ids))
            raise

    async def _lead_on(self, ids: list[UUID]) -> None:
        try:
            followed = await self._course.follow(ids)
        except BAD_ROW as error:
            # Rows that were written past this library: one step must not keep the others from going on.
            if len(ids) == 1:
                logger.error("what waits for job %s cannot go on: %s", ids[0], error)  # noqa: TRY400 - the database's words
                return
            middle = len(ids) // 2
            await self._lead_on(ids[:middle])
            await self._lead_on(ids[middle:])
            return
        self._changed([*(step.id for step in followed.skipped), *followed.free])
        for step in followed.skipped:
            self._emit(StepSkipped(step.id, step.job_type, step.queue, step.trace_id, step.reason))
        later = [delay for _, delay in followed.free.values() if delay > 0]
        now = {queue for queue, delay in followed.free.values() if delay <= 0}
        if now or later:
            self._tell(now, min(later, default=None))

    async def _walk(self) -> None:
        """Look at the next slice; at the end of a walk begin the other one, and rest after both."""
        begun = time.monotonic()
        walked = await self._walks[0]()
        now = time.monotonic()
        if walked.seen == AT_ONCE:
            self._after = walked.last or FIRST
            self._walk_at = now + (now - begun) * BREATHER
            return
        self._after = FIRST
        self._walks.reverse()
        if self._walks[0] == self._look:
            self._walk_at = now + self._pause

    async def _look(self) -> Walked:
        walked, untold = await self._course.untold(self._after, AT_ONCE)
        if untold:
            await self._lead_on(untold)
        return walked

    async def _forget(self) -> Walked:
        return await self._course.forget(self._after, AT_ONCE)
