"""What to tell workers of after jobs were written, and telling them."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from litestar_jobs.database import UNAVAILABLE
from litestar_jobs.request import JobRequest
from litestar_jobs.store import Store

__all__ = ("Bell", "Due", "Listener", "News", "due_of")

logger = logging.getLogger("litestar_jobs")

Due: TypeAlias = tuple[str, float] | str
"""A queue, and in how many seconds one of its jobs may run, by this machine's clock: good enough to set an alarm. Or where
a job waits for its limit or its rate: a kind and a key, as workers are notified of them."""

Listener: TypeAlias = Callable[[set[str], float | None], None]
"""Hears which queues have jobs that may run, and in how many seconds the next scheduled one is due."""

COMMIT_PAUSE = 0.001
"""Seconds between two looks at whether a commit that was sent is over."""


class News:
    """Queues with jobs that may run, and when the next scheduled one is due."""

    def __init__(self, dues: Iterable[Due] = ()) -> None:
        self.ready: set[str] = set()
        self.due: datetime | None = None
        self.add(dues)

    def add(self, dues: Iterable[Due]) -> None:
        for each in dues:
            if isinstance(each, str):  # workers listen for these
                continue
            queue, delay = each
            if delay <= 0:
                self.ready.add(queue)
                continue
            due = datetime.now(UTC) + timedelta(seconds=delay)
            self.due = due if self.due is None else min(self.due, due)


def due_of(request: JobRequest) -> Due:
    """What there is to tell of a job that was written as asked."""
    delay = request.delay_seconds
    if request.run_at is not None:
        delay = (request.run_at - datetime.now(UTC)).total_seconds()
    return request.limited.gate if request.limited is not None and delay <= 0 else (request.queue, delay)


class Bell:
    """Wakes workers: those of this process without the database, others after somebody else's commit. Whatever writes jobs
    in a transaction of its own notifies others itself."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._of_cancels: list[Callable[[], None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, store: Store) -> None:
        """Belong to the running event loop from now on."""
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._unsent: set[str] = set()
        self._sending: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """Send what was begun, and nothing further."""
        await asyncio.sleep(0)  # commits of this moment still wake workers
        self._loop = None
        if self._sending is not None:
            await asyncio.wait([self._sending])

    def listen(self, listener: Listener, cancelled: Callable[[], None] | None = None) -> Callable[[], None]:
        """Tell this one too; ``cancelled`` hears that jobs were cancelled that may be running. Answers how to stop that."""
        self._listeners.append(listener)
        if cancelled is not None:
            self._of_cancels.append(cancelled)

        def stop() -> None:
            self._listeners.remove(listener)
            if cancelled is not None:
                self._of_cancels.remove(cancelled)

        return stop

    def ring_off(self) -> None:
        """Jobs were cancelled that may be running in this process."""
        for cancelled in self._of_cancels:
            cancelled()

    def tell_of(self, due: Due) -> None:
        """A job was committed."""
        if self._listeners:
            self.tell(News([due]))

    def tell(self, news: News) -> None:
        """Jobs were committed."""
        self.ring(news.ready, None if news.due is None else max(0.0, (news.due - datetime.now(UTC)).total_seconds()))

    def ring(self, ready: set[str], soonest: float | None = None) -> None:
        """These queues have jobs that may run, and one is due in so many seconds."""
        for listener in self._listeners:
            listener(ready, soonest)

    def committed(self, news: Iterable[Due], is_over: Callable[[], bool]) -> None:
        """Jobs are being committed in a transaction of somebody else's. Called in whatever thread that happens."""
        if self._loop is not None and not self._loop.is_closed():
            for due in news:
                self._loop.call_soon_threadsafe(self._wake_later, due, is_over)

    def _wake_later(self, due: Due, is_over: Callable[[], bool]) -> None:
        """Commits that come together send one statement."""
        if self._loop is None:
            return
        if not is_over():
            self._loop.call_later(COMMIT_PAUSE, self._wake_later, due, is_over)
            return
        self.tell_of(due)
        if isinstance(due, str):
            self._unsent.add(due)
        elif due[1] <= 0:
            self._unsent.add(f"ready:{due[0]}")
        else:
            return
        if self._sending is None:
            self._sending = self._loop.create_task(self._send_wakes(), name="litestar-jobs-wake")

    async def _send_wakes(self) -> None:
        try:
            while self._unsent:
                messages, self._unsent = self._unsent, set()
                await self._store.tell(list(messages))
        except UNAVAILABLE as error:
            logger.warning("workers of other processes were not woken, they will find the jobs by polling: %s", error)
        finally:
            self._sending = None
