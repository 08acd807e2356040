"""Step 4, execute: work becomes an outcome. Whatever a handler does, there is an outcome, and it is a value."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from types import TracebackType
from typing import Any

import msgspec

from litestar_jobs.alchemy import is_unanswered
from litestar_jobs.context import JobContext, current_job
from litestar_jobs.define import Job
from litestar_jobs.errors import JobTimeout, LeaseLost
from litestar_jobs.inject import CONTEXT_KEY, JobSession, Plan, Scope
from litestar_jobs.logs import bind_structlog
from litestar_jobs.outcome import (
    Committed,
    Completed,
    Failed,
    Interrupted,
    Lost,
    Outcome,
    Retry,
    Snooze,
    Unanswered,
    after_failure,
)
from litestar_jobs.store import Claimed, Statements
from litestar_jobs.telemetry import (
    AttemptEnded,
    AttemptStarted,
    CleanupFailed,
    Event,
    HandlerStuck,
    JobUnknown,
    Tracing,
)
from litestar_jobs.trace import current_carrier, current_trace_id

__all__ = ("THREADS", "Attempt", "Executor")

logger = logging.getLogger("litestar_jobs")

THREADS = "litestar-jobs-thread"
"""What the names of the threads begin with."""
MOST_THREADS = 10_000
"""There are as many as run at once, and one more for each that never returns."""
UNKNOWN_FIRST, UNKNOWN_LONGEST = 5.0, 300.0
"""Seconds that a job of an unknown type waits for a worker that knows it; doubled each time, per type."""


class Attempt:
    """A claimed job on its way through this process."""

    __slots__ = ("claimed", "committing", "ending", "given_up", "outcome", "stopped_with", "task", "until")

    def __init__(self, claimed: Claimed) -> None:
        self.claimed = claimed
        self.task: asyncio.Task[None] | None = None
        self.until: float | None = None
        """When its timeout is over, by the clock of the loop, or when it was cancelled."""
        self.ending = False
        """The handler has returned and its transaction is being committed: too late to be cancelled."""
        self.committing = False
        """What it has written, with the end of the job in it, was sent to be committed."""
        self.stopped_with: Outcome | None = None
        """Set before the task is cancelled: what that means."""
        self.given_up = False
        """It has its outcome, although the handler goes on: nobody is to hear of its late end."""
        self.outcome: Outcome | None = None


class Executor:
    """Runs handlers with what they need around them."""

    def __init__(  # noqa: PLR0913 - the parts of an execution
        self,
        jobs: Mapping[str, Job[Any, Any]],
        plans: Mapping[str, Plan],
        constants: Mapping[str, Any],
        *,
        tracing: Tracing,
        emit: Callable[[Event], None],
        statements: Statements,
    ) -> None:
        self._jobs = jobs
        self._plans = plans
        self._constants = constants
        self._tracing = tracing
        self._emit = emit
        self._sql = statements
        self._unknown: dict[str, float] = {}
        self._threads = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix=THREADS)
        self._stuck: set[asyncio.Future[None] | Future[Any]] = set()
        self.own_sessions: set[str] = set()
        """Names of the sessions that lead to the jobs' database: a job can be finished in their transaction."""

    async def run(self, attempt: Attempt) -> Outcome:
        """One attempt, from the claim to its outcome. Runs in a context of its own, which the span stays in."""
        claimed = attempt.claimed
        job = self._jobs.get(claimed.job_type)
        if job is None:
            return self._wait_for_a_newer_worker(claimed)
        try:
            return await self._traced(job, attempt)
        except BaseException as error:
            if _is_closed(attempt, error):
                raise
            logger.error("the trace of job %s failed: %s", claimed.id, type(error).__qualname__)  # noqa: TRY400 - not its text
            return attempt.outcome or self._judge(job, attempt, error)

    def judge_silent(self, attempt: Attempt) -> Outcome:
        """The outcome of an attempt whose task has ended without one: it was cancelled before it ran a line, and goes
        back as it came; or its coroutine was closed, by an error that does that to whoever awaits it."""
        job = self._jobs.get(attempt.claimed.job_type)
        if attempt.stopped_with is not None or job is None or attempt.task is None or attempt.task.cancelled():
            return attempt.stopped_with or Interrupted()
        return self._judge(job, attempt, attempt.task.exception() or GeneratorExit())

    def give_up(self, attempt: Attempt) -> Outcome:
        """The outcome of an attempt that did not end when it was cancelled. It may go on, but its end is not heard."""
        attempt.given_up = True
        if attempt.task is not None:
            self._tell_stuck(attempt, attempt.task)
        if attempt.stopped_with is None:
            job = self._jobs[attempt.claimed.job_type]
            error = JobTimeout(job.timeout or 0)
            attempt.stopped_with = self._judge(job, attempt, error)
            duration = asyncio.get_running_loop().time() - (attempt.until or 0) + error.timeout
            self._emit(AttemptEnded(_context(attempt.claimed), attempt.stopped_with, duration, error))
        return attempt.stopped_with

    def close(self) -> None:
        """Let the threads go. One that has not returned goes on to its end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _traced(self, job: Job[Any, Any], attempt: Attempt) -> Outcome:
        context = _enter_span(attempt.claimed)
        with self._tracing.attempt(context, current_carrier.get()) as tell_failure:
            started = time.perf_counter()
            self._emit(AttemptStarted(context))
            attempt.outcome, error = await self._outcome(job, attempt, context)
            if error is not None and isinstance(attempt.outcome, Failed | Retry | Lost | Unanswered):
                tell_failure(error)
            if not attempt.given_up:
                self._emit(AttemptEnded(context, attempt.outcome, time.perf_counter() - started, error))
        return attempt.outcome

    async def _outcome(
        self, job: Job[Any, Any], attempt: Attempt, context: JobContext
    ) -> tuple[Outcome, BaseException | None]:
        try:
            return await self._attempt(job, attempt, context), None
        except BaseException as raised:
            if _is_closed(attempt, raised):
                raise
            return self._judge(job, attempt, raised), raised

    async def _attempt(self, job: Job[Any, Any], attempt: Attempt, context: JobContext) -> Outcome:
        payload = () if job.codec is None else (job.codec.decode(attempt.claimed.payload),)
        plan = self._plans[job.name]
        if not plan.steps:  # nothing to make, to clean up or to commit
            dependencies = plan.wanted.of({**self._constants, CONTEXT_KEY: context})
            if job.timeout is None:
                returned = await self._call(job, attempt, payload, dependencies)
            else:
                async with _Limit(attempt, job.timeout):
                    returned = await self._call(job, attempt, payload, dependencies)
            return Completed() if job.result_codec is None else Completed(_result(job, returned))
        scope = Scope(plan, self._constants, context)
        try:
            async with _Limit(attempt, job.timeout):
                returned = await self._call(job, attempt, payload, await scope.fill())
            completed = Completed(_result(job, returned))
            attempt.ending = True
            await scope.clean_up(None)
            attempt.until = None  # the rest is the database's
            return await self._commit(scope.sessions, attempt, completed)
        except BaseException as error:
            await self._undo(scope, context, error)
            raise
        finally:
            await self._close(scope, context)

    async def _call(
        self, job: Job[Any, Any], attempt: Attempt, payload: tuple[Any, ...], dependencies: dict[str, Any]
    ) -> Any:
        if job.is_async:
            return await job.fn(*payload, **dependencies)
        if job.in_thread:
            run = copy_context().run
            thread = self._threads.submit(run, _in_thread, job.fn, *payload, **dependencies)
            try:
                return await asyncio.wrap_future(thread)
            except asyncio.CancelledError:
                if thread.running():
                    self._tell_stuck(attempt, thread)
                raise
        return job.fn(*payload, **dependencies)

    def _tell_stuck(self, attempt: Attempt, handler: asyncio.Future[None] | Future[Any]) -> None:
        self._stuck.add(handler)
        handler.add_done_callback(self._stuck.discard)
        job = attempt.claimed
        self._emit(HandlerStuck(job.id, job.job_type, job.queue, job.trace_id, job.attempt, len(self._stuck)))

    async def _commit(self, sessions: Mapping[str, JobSession], attempt: Attempt, completed: Completed) -> Outcome:
        """Commit what the handler wrote; the session of the jobs' database last, with the end of the job in it, and its
        result."""
        claimed = attempt.claimed
        own: JobSession | None = None
        for name, session in sessions.items():
            if not session.in_transaction():
                continue
            if own is None and name in self.own_sessions:
                own = session
            else:
                await session.commit()
        if own is None:
            return completed
        if attempt.given_up or not await self._complete(own, claimed, completed.result):
            attempt.stopped_with = attempt.stopped_with or Lost()
            raise LeaseLost(claimed.id)
        attempt.committing = True
        await own.commit()
        return Committed()

    async def _complete(self, own: JobSession, claimed: Claimed, result: str | None) -> Sequence[Any]:
        fence = ([str(claimed.id)], [claimed.token])
        if result is None:
            return await own.execute(self._sql["complete"], fence)
        return await own.execute(self._sql["complete_with_results"], (*fence, [result]))

    async def _undo(self, scope: Scope, context: JobContext, error: BaseException) -> None:
        try:
            await scope.clean_up(error)
        except BaseException as second:  # noqa: BLE001 - the first error is the one that decides
            self._emit(CleanupFailed(context, second))
        for session in scope.sessions.values():
            try:
                await session.rollback()
            except BaseException as second:  # noqa: BLE001 - closing the session below rolls back as well
                self._emit(CleanupFailed(context, second))

    async def _close(self, scope: Scope, context: JobContext) -> None:
        for session in scope.sessions.values():
            try:
                await session.close()
            except BaseException as error:  # noqa: BLE001 - the job has its outcome already
                self._emit(CleanupFailed(context, error))

    def _judge(self, job: Job[Any, Any], attempt: Attempt, raised: BaseException) -> Outcome:
        if attempt.stopped_with is not None:
            return attempt.stopped_with
        outcome = after_failure(raised, attempt.claimed.attempt, attempt.claimed.max_retries, job.retry)
        return Unanswered(outcome) if attempt.committing and is_unanswered(raised) else outcome

    def _wait_for_a_newer_worker(self, claimed: Claimed) -> Outcome:
        """Old code must not destroy new jobs: a job of an unknown type goes back, uncounted, for a while."""
        delay = self._unknown.get(claimed.job_type, UNKNOWN_FIRST)
        self._unknown[claimed.job_type] = min(delay * 2, UNKNOWN_LONGEST)
        self._emit(JobUnknown(claimed.id, claimed.job_type, claimed.queue, claimed.trace_id, delay))
        return Snooze(delay)


def _is_closed(attempt: Attempt, raised: BaseException) -> bool:
    """Whether this is no error, but Python taking away a coroutine that nobody will go on with."""
    if not isinstance(raised, GeneratorExit):
        return False
    try:
        return asyncio.current_task() is not attempt.task
    except RuntimeError:  # no loop runs any more
        return True


def _result(job: Job[Any, Any], returned: Any) -> str | None:
    """What is stored of what the handler returned. Whatever is wrong with it ends the job: its work is done."""
    return None if job.result_codec is None else job.result_codec.encode(returned).decode()


def _in_thread(fn: Callable[..., Any], /, *payload: Any, **dependencies: Any) -> Any:
    """A future cannot carry these two: whoever awaits it would wait for ever, or be closed."""
    try:
        return fn(*payload, **dependencies)
    except (StopIteration, GeneratorExit) as error:
        raise RuntimeError(f"{fn.__qualname__} raised {type(error).__name__}") from error


def _enter_span(claimed: Claimed) -> JobContext:
    """Make this context the job's: whatever logs or enqueues in it does so in the job's trace."""
    context = _context(claimed)
    current_job.set(context)
    current_trace_id.set(claimed.trace_id)
    current_carrier.set(None if claimed.headers is None else msgspec.json.decode(claimed.headers))
    bind_structlog()
    return context


def _context(claimed: Claimed) -> JobContext:
    return JobContext(
        id=claimed.id,
        job_type=claimed.job_type,
        queue=claimed.queue,
        attempt=claimed.attempt,
        max_retries=claimed.max_retries,
        trace_id=claimed.trace_id,
        enqueued_at=claimed.created_at,
        token=claimed.token,
    )


class _Limit:
    """The timeout of an attempt. Unlike :func:`asyncio.timeout` it also fails a handler that swallows the cancellation,
    and never takes a ``TimeoutError`` of the handler's own for its own."""

    __slots__ = ("_attempt", "_seconds", "_timeout")

    def __init__(self, attempt: Attempt, seconds: float | None) -> None:
        self._attempt = attempt
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._attempt.until = self._timeout.when()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as expired:
            raise JobTimeout(self._seconds or 0) from expired
        if error is None and self._timeout.expired():
            raise JobTimeout(self._seconds or 0)
