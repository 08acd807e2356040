"""Between steps 2 and 3, promote: scheduled jobs that are due may be claimed. The same statement tells which queues are
paused or resized, and whether jobs wait at gates, so that a worker has nothing more to ask."""

import time
from collections.abc import Callable, Mapping

from litestar_jobs.store import Store

__all__ = ("Promoter",)

AT_ONCE = 1_000
AT_LEAST = 0.001
NEVER = float("inf")


class Promoter:
    """Promotes, and knows when it is to do so next."""

    def __init__(
        self, store: Store, poll_interval: float, limit: Callable[[Mapping[str, int]], None], gated: Callable[[], None]
    ) -> None:
        """``limit`` is told of the limits of queues, news or not, and ``gated`` that jobs wait at gates."""
        self._store = store
        self._poll = poll_interval
        self._limit = limit
        self._gated = gated
        self._next = 0.0
        self._heard = NEVER

    async def step(self) -> float:
        """Promote what is due. Answers in how many seconds to do it again."""
        self._heard = NEVER
        moved, next_due, is_gated, limits = await self._store.promote(AT_ONCE)
        self._limit(limits)
        if is_gated:
            self._gated()
        if moved == AT_ONCE:
            return 0.0
        # What was heard of meanwhile may have been committed too late for the statement to see it.
        heard = self._heard - time.monotonic()
        pause = max(AT_LEAST, min(self._poll, heard, self._poll if next_due is None else next_due))
        self._next = time.monotonic() + pause
        return pause

    def hear(self, due_in: float) -> bool:
        """Something is due in so many seconds. True if that is before the next step."""
        due = time.monotonic() + due_in
        self._heard = min(self._heard, due)
        return due < self._next
