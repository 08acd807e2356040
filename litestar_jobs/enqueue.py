"""Step 2, enqueue: a request becomes a row.

The client writes and asks; it runs nothing. What callers enqueue together is written together (``gather.py``).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import Any, TypeVar, overload
from uuid import UUID

import msgspec
from uuid_utils import uuid7

from litestar_jobs.bulk import CHUNK, BulkWriter, in_chunks
from litestar_jobs.course import Course
from litestar_jobs.database import WAITED, Database, Link
from litestar_jobs.define import Job
from litestar_jobs.durations import Duration, seconds
from litestar_jobs.errors import (
    EnqueueError,
    JobCancelled,
    JobFailed,
    NotRunning,
    PayloadRefused,
    WrongEventLoop,
)
from litestar_jobs.filter import JobFilter
from litestar_jobs.gather import Gatherer, translated
from litestar_jobs.news import Bell, Due, Listener, News, due_of
from litestar_jobs.operate import Operator
from litestar_jobs.queues import Queues
from litestar_jobs.request import JobId, JobRequest, NewJob
from litestar_jobs.row import JobRow, JobStatus
from litestar_jobs.special import Written, write_special_alone
from litestar_jobs.store import Statements, Store
from litestar_jobs.telemetry import Tracing
from litestar_jobs.trace import current_trace_id
from litestar_jobs.transaction import enqueue_in_transaction
from litestar_jobs.watch import Watcher, result_of
from litestar_jobs.workflows import Workflows

__all__ = ("JobsClient",)

ResultT = TypeVar("ResultT")

WRITE_TIMEOUT = 15.0
"""Seconds after which an enqueue that the database does not answer is uncertain."""


class JobsClient:
    """Enqueues jobs and looks after them. One per application, in its event loop, inside its lifespan."""

    def __init__(self, statements: Statements, tracing: Tracing, *, max_payload: int = 1_000_000) -> None:
        self._sql = statements
        self._tracing = tracing
        self._max_payload = max_payload
        self._bell = Bell()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self, database: Database) -> None:
        """Belong to the running event loop from now on. Connections are opened when they are needed."""
        self._loop = asyncio.get_running_loop()
        self._database = database
        self._writes = Link(database, timeout=WRITE_TIMEOUT)
        self._control = Link(database)
        self._store = Store(self._control.fetch, self._sql)
        self._special_writes = Link(database, timeout=WRITE_TIMEOUT)
        self._gatherer = Gatherer(Store(self._writes.fetch, self._sql).enqueue)
        self._special = Gatherer(partial(write_special_alone, self._special_writes, self._sql), WAITED)
        self._watcher = Watcher(database, self._sql)
        self._bell.start(self._store)
        course = Course(self._control, self._sql)
        self._workflows = Workflows(course, self._sql, self._tracing, self._bell, self._check)

    async def stop(self) -> None:
        """Write what was accepted, then close the connections."""
        if self._loop is None:
            return
        await self._bell.stop()
        self._loop = None
        await self._gatherer.join()
        await self._special.join()
        await self._watcher.stop()
        await self._writes.close()
        await self._special_writes.close()
        await self._control.close()

    async def enqueue(self, request: JobRequest) -> JobId:
        """Write a job in a transaction of its own; when this returns, it is committed.

        Raises :exc:`PayloadRefused` if the payload is larger than allowed, :exc:`EnqueueError` if it could not be
        written (:exc:`AlreadyEnqueued` if another has its key), and :exc:`EnqueueUncertain` if the connection broke
        before the database answered.
        """
        self._check(request)
        job_id = _new_id()
        with self._tracing.enqueue([request], [job_id]) as carrier:
            gatherer = self._gatherer if request.is_plain else self._special
            written = await gatherer.write(self._new(job_id, request, _encoded(carrier)))
        if written is None:
            self._bell.tell_of(due_of(request))
            return job_id
        if written.due is not None:
            self._bell.tell_of(written.due)
        return written.answer(request)

    async def enqueue_with(self, connection: Any, request: JobRequest) -> JobId:
        """Write a job with the caller's own transaction: it is enqueued when that commits, and never if it does not.

        ``connection`` is an SQLAlchemy ``AsyncSession`` (subclasses and scoped sessions too), ``AsyncConnection``,
        ``Session`` or ``Connection``, an asyncpg connection, or a psycopg ``AsyncConnection``. The synchronous ones
        block the event loop for the time of one statement, as any statement on them does.

        Raises :exc:`ConnectionRefused` if the connection is not in a transaction, in autocommit mode, or not
        PostgreSQL. Errors of the statement itself are the driver's.
        """
        self._check(request)
        job_id = _new_id()
        news: list[Due] = []  # what there is to tell of at the commit, which comes after this
        with self._tracing.enqueue([request], [job_id]) as carrier:
            new = self._new(job_id, request, _encoded(carrier))
            told = partial(self._bell.committed, news)
            written = await enqueue_in_transaction(connection, self._sql, new, told)
        if written is None:
            news.append(due_of(request))
            return job_id
        if written.due is not None:
            news.append(written.due)
        return written.answer(request)

    async def enqueue_many(self, requests: Iterable[JobRequest] | AsyncIterable[JobRequest]) -> list[JobId]:
        """Write many jobs in one transaction: all of them or none. The ids are in the order of the requests.

        A generator is read while the jobs are being written, some thousands at a time; if it raises, nothing was
        enqueued. Raises as :meth:`enqueue` does; an :exc:`EnqueueUncertain` names the first job.
        """
        self._in_loop()
        ids: list[JobId] = []
        news = News()
        async with AsyncExitStack() as stack:
            writer: BulkWriter | None = None
            async for chunk in in_chunks(requests, CHUNK):
                for request in chunk:
                    self._check(request)
                new_ids = [_new_id() for _ in chunk]
                with self._tracing.enqueue(chunk, new_ids) as carrier, translated(None):
                    if writer is None:
                        writer = await self._bulk_writer(stack, is_long=len(chunk) == CHUNK)
                    headers = _encoded(carrier)
                    new = [self._new(*each, headers) for each in zip(new_ids, chunk, strict=True)]
                    became = await writer.write(new)
                ids += [_answer(*each, became) for each in zip(new_ids, chunk, strict=True)] if became else new_ids
                news.add(due_of(each) for each in chunk if each.is_plain)
                news.add(written.due for written in became.values() if written.due is not None)
            if writer is not None:
                with translated(ids[0]):
                    await writer.notify()
                    await stack.aclose()  # commits
        self._bell.tell(news)
        return ids

    async def _bulk_writer(self, stack: AsyncExitStack, *, is_long: bool) -> BulkWriter:
        """Begin a transaction. A long one has a connection of its own, so that other calls need not wait for it."""
        link = self._control
        if is_long:
            link = Link(self._database)
            stack.push_async_callback(link.close)
        return BulkWriter(await stack.enter_async_context(link.transaction()), self._sql)

    async def get(self, job_id: UUID) -> JobRow | None:
        """The job as it is now; None if there is none of this id."""
        self._in_loop()
        return await self._store.get(job_id)

    @overload
    async def result(self, job_id: UUID, *, of: Job[Any, ResultT], timeout: Duration | None = ...) -> ResultT: ...

    @overload
    async def result(self, job_id: UUID, *, of: None = ..., timeout: Duration | None = ...) -> Any: ...

    async def result(self, job_id: UUID, *, of: Any = None, timeout: Duration | None = None) -> Any:
        """Wait until the job has ended, wherever it runs, and give what its handler returned: with ``of``, the job as it
        is defined, in the type of its annotation, otherwise as JSON has it.

        Raises :exc:`JobFailed`, :exc:`JobCancelled`, :exc:`TimeoutError` after ``timeout`` seconds, :exc:`LookupError`
        if there is no such job (deleted ones included), and :exc:`ResultError` if the result does not fit.
        """
        try:
            async with asyncio.timeout(None if timeout is None else seconds(timeout, "timeout")):
                async with aclosing(self.watch(job_id)) as rows:
                    (row,) = [row async for row in rows if row.has_ended]
        except TimeoutError:
            raise TimeoutError(f"job {job_id} has not ended within {timeout} s") from None
        match row.status:
            case JobStatus.COMPLETED:
                return result_of(row, of)
            case JobStatus.CANCELLED:
                raise JobCancelled(row.id, row.job_type)
            case _:
                failures = await self._store.failures(job_id)
                how = (failures[-1].error_type, failures[-1].message) if failures else ("JobFailed", "")
                raise JobFailed(row.id, row.job_type, row.attempts, *how)

    async def watch(self, job_id: UUID) -> AsyncGenerator[JobRow]:
        """The job as it is now, and again after each change (status, attempt, progress), until it has ended. Changes that
        come faster than they are taken are left out, but never the last one.

        Raises :exc:`LookupError` if there is no such job, or no longer.
        """
        self._in_loop()
        async with aclosing(self._watcher.watch(job_id)) as rows:
            async for row in rows:
                yield row

    async def cancel(self, job_id: UUID) -> bool:
        """End a job as cancelled. One that runs is stopped, wherever that is, and can commit nothing with its injected
        session. False, and nothing changed, if it has ended."""
        self._in_loop()
        while not await self._store.cancel(job_id):
            row = await self._store.get(job_id)
            if row is None or row.has_ended:
                return False  # otherwise it was on its way from one state to another
        self._bell.ring_off()
        await self._workflows.lead_on([job_id])
        return True

    async def retry(self, job_id: UUID) -> bool:
        """Run a failed or cancelled job again, with all its attempts anew. False if it is neither."""
        self._in_loop()
        queue = await self._store.retry(job_id)
        if queue is not None:
            self._bell.ring({queue})
        return queue is not None

    async def find(self, which: JobFilter, *, limit: int = 100, before: UUID | None = None) -> list[JobRow]:
        """The newest jobs that the filter means. For the next page, ``before`` is the id of the last one of this."""
        self._in_loop()
        return await self._store.find(which, limit, before)

    async def retry_all(self, which: JobFilter, *, dry_run: bool = False) -> int:
        """Run the failed and cancelled jobs again that the filter means, with all their attempts anew.

        Answers how many; with ``dry_run`` how many it would be, and nothing changes. The same holds for the methods
        below. They work in transactions of a thousand jobs each, on the jobs that are there when they begin.
        """
        return await self._operator().retry(which, dry_run=dry_run)

    async def cancel_all(self, which: JobFilter, *, dry_run: bool = False) -> int:
        """End the pending and running jobs as cancelled that the filter means, as :meth:`cancel` does one."""
        cancelled = await self._operator().cancel(which, dry_run=dry_run)
        self._bell.ring_off()
        return cancelled

    async def delete_all(self, which: JobFilter, *, dry_run: bool = False) -> int:
        """Delete the jobs that have ended and that the filter means. Pending ones have to be cancelled first."""
        return await self._operator().delete(which, dry_run=dry_run)

    async def move_all(self, which: JobFilter, *, queue: str, dry_run: bool = False) -> int:
        """Give the pending jobs that the filter means another queue, for this attempt and those that follow."""
        return await self._operator().move(which, queue=queue, dry_run=dry_run)

    async def reprioritise_all(self, which: JobFilter, *, priority: int, dry_run: bool = False) -> int:
        """Give the pending jobs that the filter means another priority, for this attempt and those that follow."""
        return await self._operator().move(which, priority=priority, dry_run=dry_run)

    def _operator(self) -> Operator:
        self._in_loop()
        return Operator(self._database, self._sql, self._store, self._bell.ring, self._workflows.lead_on)

    @property
    def workflows(self) -> Workflows:
        """Many jobs as one: starts workflows, and looks after them."""
        self._in_loop()
        return self._workflows

    @property
    def queues(self) -> Queues:
        """Pause, resume and resize queues."""
        self._in_loop()
        return Queues(self._store, lambda: self._bell.ring(set(), 0.0))

    def listen(self, listener: Listener, cancelled: Callable[[], None] | None = None) -> Callable[[], None]:
        """Be told of jobs enqueued, and cancelled, in this process, without the database. Answers how to stop listening."""
        return self._bell.listen(listener, cancelled)

    @property
    def store(self) -> Store:
        """The statements, for commands and tests."""
        self._in_loop()
        return self._store

    def _check(self, request: object) -> None:
        if not isinstance(request, JobRequest):
            raise EnqueueError(
                f"{request!r} is not a job request. Call the job with its payload: jobs.enqueue(my_job(payload))."
            )
        if len(request.payload) > self._max_payload:
            raise PayloadRefused(
                f"payload of job {request.job_type!r} refused, nothing was enqueued: it has {len(request.payload)} "
                f"bytes and at most {self._max_payload} are allowed (JobsConfig.max_payload). "
                "Store large data elsewhere and enqueue a reference to it.",
                job_type=request.job_type,
            )
        self._in_loop()

    def _in_loop(self) -> None:
        if self._loop is None:
            raise NotRunning(
                "the jobs client runs inside the lifespan of its application: use it in handlers, jobs, and hooks, "
                "or in a script under `async with app.lifespan():`"
            )
        if asyncio.get_running_loop() is not self._loop:
            raise WrongEventLoop(
                "this jobs client belongs to another event loop. TestClient and AsyncTestClient run the application "
                "in a thread and loop of their own: enqueue through a request to it, or run the application in the "
                "loop of your test with litestar_jobs.testing.running(app)."
            )

    def _new(self, job_id: UUID, request: JobRequest, headers: bytes | None) -> NewJob:
        return NewJob(job_id, request, current_trace_id.get() or self._tracing.trace_id(), headers)


def _new_id() -> JobId:
    return JobId(uuid7().int)


def _answer(job_id: JobId, request: JobRequest, became: Mapping[UUID, Written]) -> JobId:
    return job_id if request.is_plain else became[job_id].answer(request)


def _encoded(carrier: Any) -> bytes | None:
    return msgspec.json.encode(carrier) if carrier else None
