"""Step 3, claim: rows become work. Decides which queues to ask for how many, and from where in their order.

A queue is *hot* while it may have jobs: after a wake-up, a poll, or a claim that got all it asked for. Only hot queues
are asked, each for an equal share, so that none starves another.

Entries of claimed jobs stay in the index until vacuum may remove them, and a scan from the beginning walks over all of
them. So a claim begins at the last claimed key of its queue (the *bound*). That is only a hint, since a transaction may
commit a smaller key later: a bound lives for a second, and when a wake-up finds nothing behind it.
"""

import time
from collections.abc import Callable, Sequence
from uuid import UUID

from litestar_jobs.store import Claimed, Lowest, Store

__all__ = ("Claimer",)

BOUND_LIFE = 1.0
BOUND_LIFE_WHEN_EMPTY = 0.05
"""Seconds until a scan from the beginning, while claims find jobs and when a woken one does not."""


class Claimer:
    """Claims jobs of some queues, in turn and in order."""

    def __init__(
        self, store: Store, queues: Sequence[str], timeouts: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._queues = list(queues)
        self._timeouts = timeouts
        self._clock = clock
        self._hot: dict[str, None] = {}
        self._bounds: dict[str, Lowest] = {}
        self._scanned: dict[str, float] = dict.fromkeys(queues, float("-inf"))
        self.warm()

    def warm(self, queues: set[str] | None = None) -> bool:
        """These queues (or all) may have jobs. False if none of them is ours."""
        ours = [queue for queue in self._queues if queues is None or queue in queues]
        self._hot.update(dict.fromkeys(ours))
        return bool(ours)

    @property
    def is_idle(self) -> bool:
        """Whether no queue may have jobs, as far as is known."""
        return not self._hot

    async def claim(self, worker_id: UUID, at_most: int) -> list[Claimed]:
        """Up to so many jobs; none only if no hot queue has any."""
        slots = self._share(at_most)
        if not slots:
            return []
        now = self._clock()
        for queue in slots:
            del self._hot[queue]  # a wake-up while the statement is under way makes it hot again
            if now - self._scanned[queue] >= BOUND_LIFE:
                self._bounds.pop(queue, None)
            if queue not in self._bounds:
                self._scanned[queue] = now
        claimed = await self._store.claim(slots, self._bounds, worker_id, self._timeouts)
        self._learn(slots, claimed, now)
        return claimed

    def _share(self, at_most: int) -> dict[str, int]:
        queues = list(self._hot)[:at_most]
        if not queues:
            return {}
        share, left = divmod(at_most, len(queues))
        return {queue: share + (place < left) for place, queue in enumerate(queues)}

    def _learn(self, slots: dict[str, int], claimed: list[Claimed], now: float) -> None:
        got = dict.fromkeys(slots, 0)
        for job in claimed:
            got[job.queue] += 1
            # In the order of the claim, so the last one of a queue is its highest.
            self._bounds[job.queue] = Lowest(job.priority, job.run_at, job.id)
        for queue, asked in slots.items():
            if got[queue] == asked:
                self._hot[queue] = None  # behind the others
            elif not got[queue] and queue in self._bounds and now - self._scanned[queue] >= BOUND_LIFE_WHEN_EMPTY:
                del self._bounds[queue]
                self._hot[queue] = None
