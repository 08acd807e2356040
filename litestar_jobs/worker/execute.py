"""Step 4, execute: work becomes an outcome. Whatever a handler does, there is an outcome, and it is a value."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from litestar_jobs.alchemy import is_unanswered
from litestar_jobs.context import JobContext
from litestar_jobs.define import Job
from litestar_jobs.errors import JobDeadline, JobExpired, JobTimeout, LeaseLost
from litestar_jobs.inject import CONTEXT_KEY, JobSession, Plan, Scope
from litestar_jobs.outcome import (
    Cancelled,
    Committed,
    Completed,
    Failed,
    Failure,
    Interrupted,
    Lost,
    Outcome,
    Retry,
    Snoozed,
    Unanswered,
    after_failure,
    after_snooze,
    in_time,
)
from litestar_jobs.signals import Signal, Snooze
from litestar_jobs.store import Claimed, Statements
from litestar_jobs.telemetry import (
    AttemptEnded,
    AttemptStarted,
    CleanupFailed,
    Event,
    HandlerStuck,
    JobLapsed,
    JobUnknown,
    Tracing,
)
from litestar_jobs.trace import current_carrier
from litestar_jobs.worker.attempt import Attempt, Limit, context_of, enter_span

__all__ = ("THREADS", "Executor")

logger = logging.getLogger("litestar_jobs")

THREADS = "litestar-jobs-thread"
"""What the names of the threads begin with."""
MOST_THREADS = 10_000
"""There are as many as run at once, and one more for each that never returns."""
UNKNOWN_FIRST, UNKNOWN_LONGEST = 5.0, 300.0
"""Seconds that a job of an unknown type waits for a worker that knows it; doubled each time, per type."""
COMES_BACK = (-0.05, 0.15)
"""Seconds, around the moment at which such a job may run, in which the worker that gave it back lets others go first."""


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
        self._comes_back: dict[str, float] = {}
        self._threads = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix=THREADS)
        self._stuck: set[asyncio.Future[None] | Future[Any]] = set()
        self.own_sessions: set[str] = set()
        """Names of the sessions that lead to the jobs' database: a job can be finished in their transaction."""

    async def run(self, attempt: Attempt) -> Outcome:
        """One attempt, from the claim to its outcome. Runs in a context of its own, which the span stays in."""
        claimed = attempt.claimed
        if claimed.expired or (claimed.deadline is not None and claimed.deadline <= time.monotonic()):
            return self._lapse(claimed)
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
        error: JobTimeout | JobDeadline | None = None
        if attempt.stopped_with is None:
            job = self._jobs[attempt.claimed.job_type]
            error = JobTimeout(job.timeout or 0) if attempt.limit is None else attempt.limit.error
            attempt.stopped_with = self._judge(job, attempt, error)
        duration = time.perf_counter() - attempt.started
        self._emit(AttemptEnded(context_of(attempt.claimed), attempt.stopped_with, duration, error))
        return attempt.stopped_with

    def close(self) -> None:
        """Let the threads go. One that has not returned goes on to its end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _traced(self, job: Job[Any, Any], attempt: Attempt) -> Outcome:
        context = enter_span(attempt)
        with self._tracing.attempt(context, current_carrier.get()) as tell_failure:
            attempt.started = time.perf_counter()
            self._emit(AttemptStarted(context))
            attempt.outcome, error = await self._outcome(job, attempt, context)
            if error is not None and isinstance(attempt.outcome, Failed | Retry | Lost | Unanswered):
                tell_failure(error)
            if not attempt.given_up:
                self._emit(AttemptEnded(context, attempt.outcome, time.perf_counter() - attempt.started, error))
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
            wanted = plan.wanted
            dependencies = wanted.of({**self._constants, CONTEXT_KEY: context}) if wanted.names else wanted.defaults
            if job.timeout is None and attempt.claimed.deadline is None:
                returned = await self._call(job, attempt, payload, dependencies)
            else:
                async with Limit(attempt, job.timeout):
                    returned = await self._call(job, attempt, payload, dependencies)
            return Completed() if job.result_codec is None else Completed(_result(job, returned))
        scope = Scope(plan, self._constants, context)
        try:
            async with Limit(attempt, job.timeout):
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
            result = await job.fn(*payload, **dependencies)
        elif job.in_thread:
            run = copy_context().run
            thread = self._threads.submit(run, _in_thread, job.fn, *payload, **dependencies)
            try:
                result = await asyncio.wrap_future(thread)
            except asyncio.CancelledError:
                attempt.unawaited = True
                if thread.running():
                    await self._leave(attempt, thread)
                raise
        else:
            result = job.fn(*payload, **dependencies)
        if isinstance(attempt.stopped_with, Cancelled):
            raise asyncio.CancelledError  # it was told, and goes on as if it had not been
        if isinstance(result, Signal):
            raise result
        return result

    async def _leave(self, attempt: Attempt, thread: Future[Any]) -> None:
        """A thread goes on. One whose job was cancelled may look for that, and has the time that async handlers have."""
        try:
            if isinstance(attempt.stopped_with, Cancelled):
                await asyncio.gather(asyncio.wrap_future(thread), return_exceptions=True)
        finally:
            if thread.running() and not attempt.given_up:
                self._tell_stuck(attempt, thread)

    def _tell_stuck(self, attempt: Attempt, handler: asyncio.Future[Any] | Future[Any]) -> None:
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
            attempt.stopped_with = attempt.stopped_with or await self._void(own, claimed)
            raise LeaseLost(claimed.id)
        attempt.committing = True
        await own.commit()
        return Committed()

    async def _complete(self, own: JobSession, claimed: Claimed, result: str | None) -> Sequence[Any]:
        fence = ([str(claimed.id)], [claimed.token])
        if result is None:
            return await own.execute(self._sql["complete"], fence)
        return await own.execute(self._sql["complete_with_results"], (*fence, [result]))

    async def _void(self, own: JobSession, claimed: Claimed) -> Outcome:
        """What it means that the token is void."""
        rows = await own.execute(self._sql["void"], ([str(claimed.id)], [claimed.token]))
        return Cancelled(is_written=True) if rows and rows[0]["cancelled"] else Lost()

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
        if isinstance(raised, Snooze):
            snoozed = after_snooze(raised, attempt.claimed.snoozes, job.max_snoozes)
            return in_time(snoozed, attempt.seconds_left, raised)
        failed = after_failure(raised, attempt.claimed.attempt, attempt.claimed.max_retries, job.retry)
        outcome = in_time(failed, attempt.seconds_left, raised)
        if isinstance(outcome, Cancelled) or not (attempt.committing and is_unanswered(raised)):
            return outcome
        return Unanswered(outcome)

    def _lapse(self, claimed: Claimed) -> Outcome:
        """It is too late to begin."""
        self._emit(JobLapsed(claimed.id, claimed.job_type, claimed.queue, claimed.trace_id, claimed.expired))
        if claimed.expired:
            return Cancelled(Failure.of(JobExpired()), has_begun=False)
        late = JobDeadline("the deadline of the job was over before an attempt could begin")
        return Failed(Failure.of(late), has_begun=False)

    def gives_way(self) -> bool:
        """Whether a job that this worker does not know may run at this moment: another one may know it."""
        now, (first, last) = time.monotonic(), COMES_BACK
        return any(first <= now - moment <= last for moment in self._comes_back.values())

    def _wait_for_a_newer_worker(self, claimed: Claimed) -> Outcome:
        """Old code must not destroy new jobs: a job of an unknown type goes back, uncounted, for a while."""
        delay = self._unknown.get(claimed.job_type, UNKNOWN_FIRST)
        self._unknown[claimed.job_type] = min(delay * 2, UNKNOWN_LONGEST)
        self._comes_back[claimed.job_type] = time.monotonic() + delay
        self._emit(JobUnknown(claimed.id, claimed.job_type, claimed.queue, claimed.trace_id, delay))
        return Snoozed(delay, is_asked_for=False)


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
