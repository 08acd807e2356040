"""What to tell workers of after jobs were written, and telling them: those of this process in memory, others through the
database."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from litestar_jobs.database import UNAVAILABLE
from litestar_jobs.request import JobRequest

__all__ = ("Bell", "Due", "Gated", "Listener", "News", "due_of")

logger = logging.getLogger("litestar_jobs")

Due: TypeAlias = tuple[str, float]
"""A queue, and in how many seconds one of its jobs may run, by this machine's clock: good enough to set an alarm."""

Gated: TypeAlias = str
"""What to notify workers of where a job waits for its limit or its rate: its kind and its key."""

Listener: TypeAlias = Callable[[set[str], float | None], None]
"""Hears which queues have jobs that may run, and in how many seconds the next scheduled one is due."""

COMMIT_PAUSE = 0.001
"""Seconds between two looks at whether a commit that was sent is over."""


def due_of(request: JobRequest) -> Due:
    """What there is to tell of a job that was written as asked."""
    if request.run_at is not None:
        return request.queue, (request.run_at - datetime.now(UTC)).total_seconds()
    return request.queue, request.delay_seconds


class News:
    """What to tell workers of: queues with jobs that may run, and when the next scheduled one is due."""

    def __init__(self, dues: Iterable[Due] = ()) -> None:
        self.ready: set[str] = set()
        self.due: datetime | None = None
        self.add(dues)

    def add(self, dues: Iterable[Due]) -> None:
        for queue, delay in dues:
            if delay <= 0:
                self.ready.add(queue)
                continue
            due = datetime.now(UTC) + timedelta(seconds=delay)
            self.due = due if self.due is None else min(self.due, due)


class Bell:
    """Wakes workers. Belongs to the event loop in which it is made."""

    def __init__(self, wake_others: Callable[[list[str]], Awaitable[None]]) -> None:
        """``wake_others`` notifies workers, as ``notify.sql`` says."""
        self._loop = asyncio.get_running_loop()
        self._wake_others = wake_others
        self._is_open = True
        self._unsent: set[str] = set()
        self._sending: asyncio.Task[None] | None = None
        self._listeners: list[Listener] = []

    async def stop(self) -> None:
        """Tell what is left."""
        await asyncio.sleep(0)  # commits of this moment still wake workers
        self._is_open = False
        if self._sending is not None:
            await asyncio.wait([self._sending])

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell this one too. Answers how to stop that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def ring(self, ready: set[str], soonest: float | None = None) -> None:
        """Wake the workers of this process."""
        for listener in self._listeners:
            listener(ready, soonest)

    def tell(self, news: News) -> None:
        """The same, of what was written."""
        self.ring(news.ready, None if news.due is None else max(0.0, (news.due - datetime.now(UTC)).total_seconds()))

    def tell_of(self, due: Due) -> None:
        """The same, of one job."""
        if self._listeners:
            self.tell(News([due]))

    def committed(self, due: Due | Gated, is_over: Callable[[], bool]) -> None:
        """Wake workers after somebody else's commit. Called when it is sent, in whatever thread that happens."""
        if self._is_open and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake_later, due, is_over)

    def _wake_later(self, due: Due | Gated, is_over: Callable[[], bool]) -> None:
        """Commits that come together send one statement."""
        if not self._is_open:
            return
        if not is_over():
            self._loop.call_later(COMMIT_PAUSE, self._wake_later, due, is_over)
            return
        if isinstance(due, str):
            self._unsent.add(due)
        else:
            self.tell_of(due)
            queue, delay = due
            if delay > 0:
                return
            self._unsent.add(f"ready:{queue}")
        if self._sending is None:
            self._sending = self._loop.create_task(self._send(), name="litestar-jobs-wake")

    async def _send(self) -> None:
        try:
            while self._unsent:
                messages, self._unsent = self._unsent, set()
                await self._wake_others(list(messages))
        except UNAVAILABLE as error:
            logger.warning("workers of other processes were not woken, they will find the jobs by polling: %s", error)
        finally:
            self._sending = None
