"""Reporting: what is told of jobs while they run, and when they end, to those who watch them.

Who watches a job says so on the channel of the workers, again and again. Workers keep it in mind, and tell on a channel of
its own when they have written something of such a job; jobs that nobody watches cost nothing. Whatever is missed, who
watches finds by looking.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable
from uuid import UUID

from litestar_jobs.context import JobContext
from litestar_jobs.database import UNAVAILABLE
from litestar_jobs.store import WATCHED_FOR, Store
from litestar_jobs.telemetry import Event
from litestar_jobs.worker.chore import Chore

__all__ = ("Reporter",)

logger = logging.getLogger("litestar_jobs")

PROGRESS_PAUSE = 0.25
"""Seconds between two writes of progress."""
FORGET_AFTER = 5.0
"""Seconds after a write of progress until that of ended attempts is deleted."""
NOT_BEFORE_WOKEN = 3600.0
MOST_WATCHED = 100_000


class Reporter:
    """Writes the progress of running jobs, and tells of changes."""

    def __init__(self, store: Store, emit: Callable[[Event], None]) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._news: dict[int, tuple[UUID, float, str | None]] = {}
        """The latest progress that is not written, by token."""
        self._write_at = 0.0
        self._forget_at: float | None = None
        self._watched: dict[UUID, float] = {}
        """Jobs that somebody watches, and until when."""
        self._changes: set[UUID] = set()
        self._chore = Chore("report", self._step, emit)
        self.start = self._chore.start

    def progress(self, context: JobContext, part: float, message: str | None) -> None:
        """An attempt has come so far. Called in the event loop or in a thread."""
        with self._lock:
            is_first = not self._news
            self._news[context.token] = (context.id, part, message)
        if is_first and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._chore.wake)

    def watched(self, ids: Iterable[UUID]) -> None:
        """Somebody watches these."""
        now = time.monotonic()
        if len(self._watched) >= MOST_WATCHED:
            self._watched = {job_id: until for job_id, until in self._watched.items() if until > now}
        self._watched.update(dict.fromkeys(ids, now + WATCHED_FOR))

    def changed(self, ids: Iterable[UUID]) -> None:
        """Something new of these was committed."""
        if self._watched and (told := self._watched.keys() & set(ids)):
            self._changes |= told
            self._chore.wake()

    async def stop(self) -> None:
        """Write and tell what is left."""
        await self._chore.stop()
        self._write_at = 0.0
        try:
            await self._step()
        except UNAVAILABLE as error:
            logger.warning("the last progress was not written: %s", error)

    async def _step(self) -> float:
        now = time.monotonic()
        if self._news and now >= self._write_at:
            await self._write()
            self._write_at = now + PROGRESS_PAUSE
            self._forget_at = now + FORGET_AFTER
        if self._changes:
            told, self._changes = self._changes, set()
            await self._store.tell_changes(list(told))
        if self._forget_at is not None and now >= self._forget_at:
            await self._store.forget_progress()
            self._forget_at = None
        self._watched = {job_id: until for job_id, until in self._watched.items() if until > now}
        waits = [
            self._write_at - now if self._news else NOT_BEFORE_WOKEN,
            NOT_BEFORE_WOKEN if self._forget_at is None else self._forget_at - now,
            WATCHED_FOR if self._watched else NOT_BEFORE_WOKEN,
        ]
        return max(0.0, min(waits))

    async def _write(self) -> None:
        with self._lock:
            news, self._news = self._news, {}
        try:
            self.changed(await self._store.progress(news))
        except BaseException:
            with self._lock:
                self._news = news | self._news
            raise
