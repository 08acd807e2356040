"""Partitioned tables: partitions are made ahead, and those whose jobs were all kept long enough are dropped.

Every worker looks after them and none leads: the database lets one at a time. Nobody may use the tables while a partition comes
or goes, so whoever waits for that gives way after a fifth of a second, a few times, and tries again at a later sweep.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar
from uuid import UUID

from litestar_jobs.database import DEADLOCK, UNAVAILABLE, WAITED
from litestar_jobs.errors import JobsError
from litestar_jobs.partitions import Partition, Partitions
from litestar_jobs.telemetry import ChoreFailed, Event, JobsPruned

__all__ = ("LAST", "PartitionKeeper")

T = TypeVar("T")

LAST = UUID(int=(1 << 128) - 1)
LATER = 3_600.0
"""Seconds until what failed, or would move too many jobs, is tried again: it takes reading a whole partition."""
TRIES = 5
"""In one sweep, if others are in the way."""
FIRST_REST = 50.0
"""Seconds after that: less than a minute, so that it goes on at the next sweep. Rests double."""
PATIENCE = 6
"""Such sweeps until somebody is told: after about half an hour."""
MAKE = "make"
NOT_ALLOWED = (
    "the tables are partitioned, but this role may neither make nor drop partitions: GRANT EXECUTE ON FUNCTION "
    "{0}.make_partition, {0}.drop_partition TO it"
)


class PartitionKeeper:
    """Looks after partitions, one at a step. ``keep`` are the seconds for which jobs are kept, by status."""

    def __init__(
        self,
        partitions: Partitions,
        keep: Mapping[str, float],
        emit: Callable[[Event], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.before = LAST
        """From this id on completed jobs go with their partition, and are not deleted one by one."""
        self._partitions = partitions
        self._keep = keep
        self._emit = emit
        self._clock = clock
        self._again_at: dict[str, float] = {}
        self._tries = 0
        self._rests_until = float("-inf")
        self._is_told = False

    async def step(self) -> JobsPruned | None:
        """Make one or drop one, and answer what went with it; None if nothing is left to do, or others are in the way."""
        if self._clock() < self._rests_until:
            return None
        try:
            went = await self._step()
        except (*WAITED, *DEADLOCK) as error:
            self._tries += 1
            if self._tries % TRIES:
                return JobsPruned()
            self._rest(error)
            return None
        self._tries = 0
        return went

    def _rest(self, error: BaseException) -> None:
        times = self._tries // TRIES
        pause = min(FIRST_REST * 2.0 ** (times - 1), LATER)
        self._rests_until = self._clock() + pause
        if times >= PATIENCE:
            self._emit(ChoreFailed("partition", error, pause))

    async def _step(self) -> JobsPruned | None:
        listed = await self._partitions.listed(self._keep)
        try:
            return await self._make_or_drop(listed)
        finally:
            whole = (each.low for each in listed if each.ends and (not each.is_over or self._may_drop(each)))
            self.before = next(whole, LAST)

    async def _make_or_drop(self, listed: Sequence[Partition]) -> JobsPruned | None:
        if not listed:
            return None
        if not listed[0].is_allowed:
            self._tell_not_allowed()
            return None
        if self._may_try(MAKE) and await self._tried(MAKE, self._partitions.make()) is not None:
            return JobsPruned()
        for each in listed:
            if each.is_over and self._may_drop(each):
                went = await self._tried(each.label, self._partitions.drop(each.label, self._keep))
                if went is None:
                    break
                if went.dropped:
                    return JobsPruned(completed=went.completed, failed=went.failed, cancelled=went.cancelled)
                self._again_at[each.label] = self._clock() + LATER
        return None

    def _may_drop(self, partition: Partition) -> bool:
        return partition.is_allowed and self._may_try(partition.label)

    def _may_try(self, what: str) -> bool:
        return self._clock() >= self._again_at.get(what, 0.0)

    async def _tried(self, what: str, work: Awaitable[T]) -> T:
        """A failure that has to do with the partition must not keep the others."""
        try:
            return await work
        except Exception as error:
            if isinstance(error, TimeoutError) or not isinstance(error, (*UNAVAILABLE, *DEADLOCK)):
                self._again_at[what] = self._clock() + LATER
            raise

    def _tell_not_allowed(self) -> None:
        if not self._is_told:
            self._is_told = True
            self._emit(ChoreFailed("partition", JobsError(NOT_ALLOWED.format(self._partitions.schema)), LATER))
