"""Lapsing: jobs that nobody claims, because their queue is paused or no worker knows them, end when their time is over.

What a worker claims it judges itself, exactly; this is for the rest, and a few seconds late. Jobs that have ended long ago
stay in the index of their times until they are deleted, so a walk begins where the last one ended; and at the beginning
now and then, because a transaction may commit an earlier time later, and what ran then may wait again now.
"""

import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from uuid import UUID

from litestar_jobs.records import Walk
from litestar_jobs.store import Store
from litestar_jobs.telemetry import Event, JobLapsed

__all__ = ("Lapses",)

SLICE = 1_000
"""Jobs that one statement walks over."""
OVERLAP = timedelta(minutes=1)
"""Of two walks."""
WHOLE = 600.0
"""Seconds between two walks from the beginning."""


class Lapses:
    """Ends jobs that have waited for too long."""

    def __init__(
        self, store: Store, emit: Callable[[Event], None], follow_ups: str, ended: Callable[[Iterable[UUID]], None]
    ) -> None:
        self._store = store
        self._ended = ended
        self._emit = emit
        self._follow_ups = follow_ups
        self._since = Walk()
        self._whole_at = 0.0

    async def sweep(self) -> None:
        """End those that there are."""
        if time.monotonic() >= self._whole_at:
            self._since = Walk()
            self._whole_at = time.monotonic() + WHOLE
        walked = SLICE
        while walked == SLICE:
            lapsed, walked, self._since = await self._store.lapse(self._since, SLICE, self._follow_ups)
            self._ended(job.id for job in lapsed)
            for job in lapsed:
                self._emit(JobLapsed(job.id, job.job_type, job.queue, job.trace_id, job.is_expired))
        self._since = Walk(
            expired_at=max(Walk().expired_at, self._since.expired_at - OVERLAP),
            overdue_at=max(Walk().overdue_at, self._since.overdue_at - OVERLAP),
        )
