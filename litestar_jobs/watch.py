"""Watching: whoever waits for jobs shares one connection, which listens for changes, and looks in case it missed one.

Looking is one statement for all jobs that are due for it: soon after somebody began to watch, then every second.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextvars import Context
from typing import Any
from uuid import UUID

import msgspec

from litestar_jobs.database import UNAVAILABLE, Database, Link, may_have_been_written
from litestar_jobs.define import Job
from litestar_jobs.errors import NotRunning, ResultError
from litestar_jobs.row import JobRow
from litestar_jobs.store import WATCHED_FOR, Mark, Statements, Store, mark_of

__all__ = ("Watcher", "result_of")

logger = logging.getLogger("litestar_jobs")

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
"""Seconds between two looks at a job, doubled from the first to the longest."""
ANSWER_TIMEOUT = 10.0


class Watcher:
    """Tells of changes of jobs. Nothing is opened, and nothing runs, before somebody watches."""

    def __init__(self, database: Database, statements: Statements) -> None:
        self._channel = statements.changes
        self._link = Link(database, timeout=ANSWER_TIMEOUT, on_open=self._listen, planned_once=True)
        self._store = Store(self._link.fetch, statements)
        self._watched: dict[UUID, _Watched] = {}
        self._wake = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    async def watch(self, job_id: UUID) -> AsyncGenerator[JobRow]:
        """The job now, and after each change, until it has ended. :exc:`LookupError` if there is none."""
        waiter = _Waiter()
        watched = self._watched.setdefault(job_id, _Watched())
        watched.begin(waiter)
        self._wake.set()
        if self._looking is None:
            # A context of its own: it outlives the request that happened to be first.
            self._looking = asyncio.get_running_loop().create_task(
                self._look(), name="litestar-jobs-watch", context=Context()
            )
        try:
            while True:
                row = await waiter.news()
                yield row
                if row.has_ended:
                    return
        finally:
            watched.waiters.remove(waiter)
            if not watched.waiters and self._watched.get(job_id) is watched:
                del self._watched[job_id]

    async def stop(self) -> None:
        """Whoever still watches gets :exc:`NotRunning`."""
        self._fail(NotRunning("the application stops, and nothing more will be heard of the job here"))
        self._wake.set()
        if self._looking is not None:
            await asyncio.wait([self._looking])
        await self._link.close()

    async def _look(self) -> None:
        try:
            while self._watched:
                self._wake.clear()
                try:
                    await self._look_at([job_id for job_id, watched in self._watched.items() if watched.is_due()])
                except Exception as error:
                    if not (isinstance(error, UNAVAILABLE) or may_have_been_written(error)):
                        raise
                    logger.warning("jobs that are watched cannot be looked at: %s", str(error) or type(error).__name__)
                await self._sleep()
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._looking = None

    async def _look_at(self, due: Sequence[UUID]) -> None:
        if not due:
            return
        unasked = [job_id for job_id in due if self._watched[job_id].look()]
        if unasked:
            await self._store.ask_for_changes(unasked)
        marks = await self._store.marks(due)
        known = {job_id: self._watched[job_id].mark for job_id in due if job_id in self._watched}
        changed = [job_id for job_id, mark in known.items() if job_id in marks and marks[job_id] != mark]
        for row in await self._store.get_all(changed) if changed else ():
            if (watched := self._watched.get(row.id)) is not None:
                watched.tell(row)
        for job_id in known.keys() - marks.keys():
            self._fail(LookupError(f"there is no job {job_id}: it was never committed, or it was deleted"), [job_id])

    async def _sleep(self) -> None:
        if not self._watched:
            return
        try:
            async with asyncio.timeout_at(min(watched.look_at for watched in self._watched.values())):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _listen(self, connection: Any) -> None:
        await connection.add_listener(self._channel, self._hear)

    def _hear(self, _connection: object, _pid: int, _channel: str, message: object) -> None:
        for job_id in map(UUID, str(message).split(",")):
            if (watched := self._watched.get(job_id)) is not None:
                watched.look_at = 0.0
                self._wake.set()

    def _fail(self, error: BaseException, ids: Sequence[UUID] | None = None) -> None:
        for job_id in list(self._watched) if ids is None else ids:
            if (watched := self._watched.pop(job_id, None)) is not None:
                for waiter in watched.waiters:
                    waiter.fail(error)


class _Watched:
    """One job that somebody watches."""

    def __init__(self) -> None:
        self.waiters: set[_Waiter] = set()
        self.mark: Mark | None = None
        self.look_at = 0.0
        self._pause = FIRST_PAUSE
        self._asked_until = 0.0
        self._loop = asyncio.get_running_loop()

    def begin(self, waiter: "_Waiter") -> None:
        self.waiters.add(waiter)
        self.mark, self.look_at, self._pause = None, 0.0, FIRST_PAUSE

    def is_due(self) -> bool:
        return self.look_at <= self._loop.time()

    def look(self) -> bool:
        """It is being looked at. Answers whether workers have to be asked to tell of changes, for the first time or
        again."""
        now = self._loop.time()
        self.look_at = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        if now < self._asked_until:
            return False
        self._asked_until = now + WATCHED_FOR / 3
        return True

    def tell(self, row: JobRow) -> None:
        self.mark = mark_of(row)
        for waiter in self.waiters:
            waiter.tell(self.mark, row)


class _Waiter:
    """One who watches: has the latest news, or what keeps it from any."""

    def __init__(self) -> None:
        self._mark: Mark | None = None
        self._news: asyncio.Queue[JobRow | BaseException] = asyncio.Queue(1)

    def tell(self, mark: Mark, row: JobRow) -> None:
        if mark != self._mark:
            self._mark = mark
            self._put(row)

    def fail(self, error: BaseException) -> None:
        self._put(error)

    def _put(self, news: JobRow | BaseException) -> None:
        if self._news.full():
            self._news.get_nowait()
        self._news.put_nowait(news)

    async def news(self) -> JobRow:
        news = await self._news.get()
        if isinstance(news, BaseException):
            raise news
        return news


def result_of(row: JobRow, of: Job[Any, Any] | None) -> Any:
    """The result of a completed job, as the handler of ``of`` returned it; plain JSON without one."""
    if of is None:
        return row.result
    if of.name != row.job_type:
        raise ResultError(f"job {row.id} is a {row.job_type}, so it has no result of {of.name}")
    return None if of.result_codec is None else of.result_codec.decode(msgspec.json.encode(row.result).decode())
