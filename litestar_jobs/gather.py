"""Single enqueues that come together become one statement.

While one batch is being written the next one gathers. There is no timer: a caller alone writes at once. One bad row
never fails its neighbours. Only so many jobs gather; further callers wait for room, in the order of their coming.
Plain jobs and special ones have a gatherer each, because these may have to wait for the transactions of others.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import Context
from typing import TypeAlias
from uuid import UUID

from litestar_jobs.database import BAD_ROW, MISSING_SCHEMA, may_have_been_written
from litestar_jobs.errors import DatabaseUnreachable, EnqueueError, EnqueueUncertain, PayloadRefused
from litestar_jobs.request import NewJob
from litestar_jobs.special import Written

__all__ = ("Gatherer", "translated")

Answer: TypeAlias = asyncio.Future[Written | None]
Batch: TypeAlias = list[tuple[Answer, NewJob]]
Write: TypeAlias = Callable[[Sequence[NewJob]], Awaitable[Sequence[Written | None] | None]]
"""Answers what became of each special job, where None means that it has to be asked for again; of plain ones nothing."""

BATCH = 1_000
"""Rows of one statement at the most, and ..."""
BATCH_BYTES = 4_000_000
"""... bytes of their payloads, unless a single one is larger."""
MOST_ACCEPTED = 5_000
"""Jobs that are waiting or being written at the most."""
PATIENCE = 15.0
"""Seconds for which a job waits for somebody's transaction, at the least."""


class Gatherer:
    """Gives each caller its own answer out of a common statement."""

    def __init__(self, write: Write, waited: tuple[type[BaseException], ...] = ()) -> None:
        """``waited`` are errors that say that one of a batch has to wait for somebody's transaction."""
        self._write = write
        self._waited = waited
        self._held: dict[Answer, float] = {}
        """Jobs that have to wait so, and since when."""
        self._room = asyncio.Semaphore(MOST_ACCEPTED)
        self._callers = 0
        self._waiting: dict[Answer, NewJob] = {}
        self._writing: asyncio.Task[None] | None = None

    async def write(self, job: NewJob) -> Written | None:
        """Return when the job is committed: what became of a special one; raise if it is not. A caller that is cancelled
        before its batch is sent takes its job back; after that the job is written all the same."""
        self._callers += 1
        try:
            async with self._room:
                return await self._answer_to(job)
        finally:
            self._callers -= 1

    async def _answer_to(self, job: NewJob) -> Written | None:
        loop = asyncio.get_running_loop()
        answer: Answer = loop.create_future()
        self._waiting[answer] = job
        if self._writing is None:
            # A context of its own: the writer outlives the request that happened to be first.
            self._writing = loop.create_task(self._write_all(), name="litestar-jobs-enqueue", context=Context())
        try:
            return await answer
        finally:
            self._waiting.pop(answer, None)
            self._held.pop(answer, None)

    async def join(self) -> None:
        """Return when all callers have their answers and nothing is being written."""
        while self._callers or self._writing is not None:
            if self._writing is None:
                await asyncio.sleep(0)  # those that waited for room are about to begin
            else:
                await asyncio.wait([self._writing])

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                await self._write_batch(self._take())
        finally:
            self._writing = None
            # Only if the writer itself was cancelled: nobody waits for ever, or looks cancelled who is not.
            cancelled = EnqueueError("nothing was enqueued: somebody cancelled the task that writes")
            _answer(list(self._waiting.items()), [cancelled] * len(self._waiting))

    def _take(self) -> Batch:
        """The next batch: those that have waited longest."""
        batch: Batch = []
        size = 0
        for answer, job in self._waiting.items():
            size += len(job.request.payload)
            if len(batch) == BATCH or (batch and size > BATCH_BYTES):
                break
            batch.append((answer, job))
        for answer, _ in batch:
            del self._waiting[answer]
        return batch

    async def _write_batch(self, batch: Batch) -> None:
        try:
            became = await self._write([job for _, job in batch])
        except (*BAD_ROW, *self._waited) as error:
            if len(batch) == 1:
                self._alone(*batch[0], error)
                return
            middle = len(batch) // 2
            await self._write_batch(batch[:middle])
            await self._write_batch(batch[middle:])
        except BaseException as error:
            _answer(batch, [explained(error, job.id) for _, job in batch])
            if not isinstance(error, Exception):
                raise
        else:
            if became is None:
                _answer(batch, [None] * len(batch))
            else:
                self._settle(batch, became)

    def _alone(self, answer: Answer, job: NewJob, error: BaseException) -> None:
        """A job that would fail its neighbours: it is refused, or if it only has to wait, the others go first."""
        if isinstance(error, BAD_ROW):
            _answer([(answer, job)], [_refused(job, error)])
        elif time.monotonic() - self._held.setdefault(answer, time.monotonic()) > PATIENCE:
            _answer([(answer, job)], [_held_up(job, error)])
        elif not answer.done():
            self._waiting[answer] = job

    def _settle(self, batch: Batch, became: Sequence[Written | None]) -> None:
        """Answer for what was written; the rest goes first into the next batch."""
        again: dict[Answer, NewJob] = {}
        for (answer, job), written in zip(batch, became, strict=True):
            if written is not None:
                _answer([(answer, job)], [written])
            elif not answer.done():
                again[answer] = job
        self._waiting = again | self._waiting


def _answer(batch: Batch, outcomes: Sequence[Written | BaseException | None]) -> None:
    for (answer, _), outcome in zip(batch, outcomes, strict=True):
        if answer.done():
            continue
        if isinstance(outcome, BaseException):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)


def _refused(job: NewJob, error: BaseException) -> PayloadRefused:
    refused = PayloadRefused(
        f"PostgreSQL refused job {job.request.job_type!r}, nothing was enqueued: {error}", job_type=job.request.job_type
    )
    refused.__cause__ = error
    return refused


def _held_up(job: NewJob, error: BaseException) -> EnqueueError:
    held_up = EnqueueError(
        f"nothing was enqueued: a transaction that is open has had the key of unique job {job.request.job_type!r} for "
        f"{PATIENCE:g} s. Commit it sooner, or enqueue later in it."
    )
    held_up.__cause__ = error
    return held_up


def explained(error: BaseException, job_id: UUID | None) -> BaseException:
    """What the failure of an enqueue means to its caller; the driver's error is the cause. Without ``job_id`` nothing
    was to be committed yet."""
    explanation: BaseException
    if isinstance(error, DatabaseUnreachable):
        explanation = EnqueueError(f"nothing was enqueued: {error}")
    elif isinstance(error, MISSING_SCHEMA):
        explanation = EnqueueError(f"nothing was enqueued: {error}. Run `litestar jobs upgrade`.")
    elif job_id is not None and (may_have_been_written(error) or isinstance(error, asyncio.CancelledError)):
        explanation = EnqueueUncertain(
            f"the connection broke before the database answered ({str(error) or type(error).__name__}): "
            f"the job is enqueued or not, ask with jobs.get({job_id!r})",
            job_id=job_id,
        )
    elif isinstance(error, Exception):
        explanation = EnqueueError(f"nothing was enqueued: {error}")
    else:
        return error
    explanation.__cause__ = error
    return explanation


@contextmanager
def translated(job_id: UUID | None) -> Generator[None]:
    """Raise what a failure means in place of the failure."""
    try:
        yield
    except Exception as error:
        raise explained(error, job_id) from error
