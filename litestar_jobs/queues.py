"""Queues at run time: paused, resumed and resized, by a program or an operator. Workers follow: ``worker/promote.py``."""

from collections.abc import Callable

from litestar_jobs.request import check_queue, whole_number
from litestar_jobs.store import QueueSettings, Store

__all__ = ("MOST_AT_ONCE", "Queues")

MOST_AT_ONCE = 10_000


class Queues:
    """What is said here of a queue holds for all workers, restarts or not, until somebody says something else.

    When a change returns it is committed. Workers that hear notifications follow some milliseconds later, others within
    their ``poll_interval``. Jobs that run go on. Jobs that were claimed ahead and have not begun go back, uncounted.
    """

    def __init__(self, store: Store, told: Callable[[], None] = lambda: None) -> None:
        """``told`` is called after each change."""
        self._store = store
        self._told = told

    async def pause(self, name: str) -> bool:
        """Begin no more jobs of this queue. They may still be enqueued, cancelled, and become due. False if it is paused
        already."""
        return self._tell(changed=await self._store.pause_queue(check_queue(name)))

    async def resume(self, name: str) -> bool:
        """Begin jobs of this queue again. False if it is not paused."""
        return self._tell(changed=await self._store.resume_queue(check_queue(name)))

    async def resize(self, name: str, concurrency: int | None) -> bool:
        """Run at most so many jobs of this queue at once **in each worker**, within ``WorkerConfig.concurrency``; None:
        within that alone. False if it is so already."""
        if concurrency is not None:
            whole_number(concurrency, "concurrency", 1, MOST_AT_ONCE)
        return self._tell(changed=await self._store.resize_queue(check_queue(name), concurrency))

    async def settings(self) -> list[QueueSettings]:
        """The queues that are paused or resized."""
        return await self._store.queue_settings()

    def _tell(self, *, changed: bool) -> bool:
        if changed:
            self._told()
        return changed
