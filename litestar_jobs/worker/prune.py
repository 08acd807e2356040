"""Retention: jobs that ended are kept for a time, then deleted, a slice at a time with pauses between the slices.

Every worker does it and none leads: rows that another one is deleting are skipped, and for the second there is nothing
left to do. Failed and cancelled jobs have an index on the time of their end, completed ones do not pay for one: they
are found by walking the primary key, which is in the order of their creation, up to the age at which they may go. A
walk begins where the last one ended. What it passed because it had not ended for long enough by then (a job that waited
for days, or a failed one, which is kept longer) is looked at again by a walk from the beginning, once in a while. Then
the keys of unique jobs are looked at as well.

Of partitioned tables, completed jobs go with their partitions, and only what is left of those that went is walked over.
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from uuid import UUID

from litestar_jobs.database import Link
from litestar_jobs.partitions import Partitions
from litestar_jobs.row import JobStatus
from litestar_jobs.store import Statements, Store
from litestar_jobs.telemetry import Event, JobsPruned
from litestar_jobs.worker.partition import LAST, PartitionKeeper

__all__ = ("Pruner",)

SLICE = 1_000
"""Jobs that one statement deletes, or looks at."""
BREATHER = 3.0
"""The pause after a slice, in times of what it took: a quarter of the time is spent pruning, at the most."""
PAUSE = 60.0
"""Seconds between two sweeps."""
ANEW_PAUSE = 3_600.0
"""Seconds between two walks from the beginning at the least, and ..."""
ANEW_SHARE = 0.01
"""... the part of the time that they may take."""

PARTITIONS = "partitions"
KEYS = "keys"
FIRST = UUID(int=0)
LONG_AGO = datetime(1, 1, 2, tzinfo=UTC)


class Pruner:
    """Sweeps, one slice at a step. ``keep`` are the seconds for which jobs are kept, by status."""

    def __init__(
        self,
        link: Link,
        statements: Statements,
        keep: Mapping[str, float],
        emit: Callable[[Event], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``link`` is the pruner's own: it is closed between sweeps."""
        self._link = link
        self._store = Store(link.fetch, statements)
        self._partitions = PartitionKeeper(Partitions(link.fetch, statements), keep, emit, clock)
        self._keep = keep
        self._emit = emit
        self._clock = clock
        self._after = FIRST
        self._after_key = FIRST
        self._since = LONG_AGO
        self._anew_at = float("-inf")
        self._gone = dict.fromkeys(keep, 0)
        self._left: list[str] = []
        self._resting = True

    async def step(self) -> float:
        """Delete a slice. Answers for how long to pause."""
        begun = self._clock()
        if self._resting:
            self._begin(begun)
        if self._left and not await self._slice(self._left[0]):
            self._left.pop(0)
        took = self._clock() - begun
        self._worked += took
        return took * BREATHER if self._left else await self._end()

    async def sweep(self) -> JobsPruned:
        """Delete all that may go, without pauses, also what would have gone with its partition one day."""
        while await self._slice(PARTITIONS):
            pass
        self._partitions.before = LAST
        for what in (*self._keep, KEYS):
            while await self._slice(what):
                pass
        return JobsPruned(**self._gone)

    def _begin(self, now: float) -> None:
        self._resting = False
        self._left = [PARTITIONS, *self._keep]
        self._worked = 0.0
        self._is_anew = now >= self._anew_at
        if self._is_anew and self._keep:
            self._after = FIRST
            self._left.append(KEYS)

    async def _end(self) -> float:
        await self._link.close()
        if any(self._gone.values()):
            self._emit(JobsPruned(**self._gone))
            self._gone = dict.fromkeys(self._keep, 0)
        if self._is_anew:
            self._anew_at = self._clock() + max(ANEW_PAUSE, self._worked / ANEW_SHARE)
        self._resting = True
        return PAUSE if self._keep else ANEW_PAUSE

    async def _slice(self, status: str) -> bool:
        """Whether there may be more."""
        if status == KEYS:
            return await self._keys()
        if status == PARTITIONS:
            return await self._partition()
        kept = self._keep[status]
        if status == JobStatus.COMPLETED:
            walked = await self._store.prune_completed(kept, self._after, self._partitions.before, SLICE)
            self._after = walked.last or self._after
            self._gone[status] += walked.gone
            return walked.seen == SLICE
        gone, last = await self._store.prune_ended(status, kept, self._since, SLICE)
        self._gone[status] += gone
        self._since = last if last and gone == SLICE else LONG_AGO
        return gone == SLICE

    async def _partition(self) -> bool:
        went = await self._partitions.step()
        for status in self._gone:
            self._gone[status] += getattr(went, status, 0)
        return went is not None

    async def _keys(self) -> bool:
        walked = await self._store.forget_keys(self._after_key, SLICE)
        self._after_key = walked.last if walked.last and walked.seen == SLICE else FIRST
        return walked.seen == SLICE
