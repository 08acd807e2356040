"""Step 4, execute: work becomes an outcome. Whatever a handler does, there is an outcome, and it is a value."""

import asyncio
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import msgspec
from litestar.concurrency import sync_to_thread

from litestar_jobs.context import JobContext, current_job
from litestar_jobs.define import Job
from litestar_jobs.errors import JobTimeout, LeaseLost
from litestar_jobs.inject import CONTEXT_KEY, JobSession, Plan, Scope
from litestar_jobs.logs import bind_structlog
from litestar_jobs.outcome import Committed, Completed, Failed, Lost, Outcome, Retry, Snooze, after_failure
from litestar_jobs.store import Claimed
from litestar_jobs.telemetry import AttemptEnded, AttemptStarted, CleanupFailed, Event, JobUnknown, Tracing
from litestar_jobs.trace import accept, current_carrier, current_trace_id

__all__ = ("Attempt", "Executor")

UNKNOWN_FIRST, UNKNOWN_LONGEST = 5.0, 300.0
"""Seconds that a job of an unknown type waits for a worker that knows it; doubled each time, per type."""

decode_carrier = msgspec.json.Decoder(dict[str, str]).decode


class Attempt:
    """A claimed job on its way through this process."""

    __slots__ = ("claimed", "ending", "stopped_with")

    def __init__(self, claimed: Claimed) -> None:
        self.claimed = claimed
        self.ending = False
        """The handler has returned and its transaction is being committed: too late to be cancelled."""
        self.stopped_with: Outcome | None = None
        """Set before the task is cancelled: what that means."""


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
        complete_sql: str,
    ) -> None:
        self._jobs = jobs
        self._plans = plans
        self._constants = constants
        self._tracing = tracing
        self._emit = emit
        self._complete_sql = complete_sql
        self._unknown: dict[str, float] = {}
        self.own_sessions: set[str] = set()
        """Names of the sessions that lead to the jobs' database: a job can be finished in their transaction."""

    async def run(self, attempt: Attempt) -> Outcome:
        """One attempt, from the claim to its outcome. Runs in a context of its own, which the span stays in."""
        claimed = attempt.claimed
        job = self._jobs.get(claimed.job_type)
        if job is None:
            return self._wait_for_a_newer_worker(claimed)
        context = _enter_span(claimed)
        with self._tracing.attempt(context, current_carrier.get()) as tell_failure:
            started = time.perf_counter()
            self._emit(AttemptStarted(context))
            outcome, error = await self._outcome(job, attempt, context)
            if error is not None and isinstance(outcome, Failed | Retry | Lost):
                tell_failure(error)
            self._emit(AttemptEnded(context, outcome, time.perf_counter() - started, error))
        return outcome

    async def _outcome(
        self, job: Job[Any, Any], attempt: Attempt, context: JobContext
    ) -> tuple[Outcome, BaseException | None]:
        try:
            return await self._attempt(job, attempt, context), None
        except GeneratorExit:
            raise
        except BaseException as raised:  # noqa: BLE001 - every end is an outcome
            return self._judge(job, attempt, raised), raised

    async def _attempt(self, job: Job[Any, Any], attempt: Attempt, context: JobContext) -> Outcome:
        payload = () if job.codec is None else (job.codec.decode(attempt.claimed.payload),)
        plan = self._plans[job.name]
        if not plan.steps:  # nothing to make, to clean up or to commit
            dependencies = plan.wanted.of({**self._constants, CONTEXT_KEY: context})
            if job.timeout is None:
                await _call(job, payload, dependencies)
            else:
                async with _Limit(job.timeout):
                    await _call(job, payload, dependencies)
            return Completed()
        scope = Scope(plan, self._constants, context)
        try:
            async with _Limit(job.timeout):
                await _call(job, payload, await scope.fill())
            attempt.ending = True
            await scope.clean_up(None)
            return await self._commit(scope.sessions, attempt.claimed)
        except BaseException as error:
            await self._undo(scope, context, error)
            raise
        finally:
            await self._close(scope, context)

    async def _commit(self, sessions: Mapping[str, JobSession], claimed: Claimed) -> Outcome:
        """Commit what the handler wrote; the session of the jobs' database last, with the end of the job in it."""
        own: JobSession | None = None
        for name, session in sessions.items():
            if not session.in_transaction():
                continue
            if own is None and name in self.own_sessions:
                own = session
            else:
                await session.commit()
        if own is None:
            return Completed()
        if not await own.execute(self._complete_sql, ([str(claimed.id)], [claimed.token])):
            raise LeaseLost(claimed.id)
        await own.commit()
        return Committed()

    async def _undo(self, scope: Scope, context: JobContext, error: BaseException) -> None:
        try:
            await scope.clean_up(error)
        except BaseException as second:  # noqa: BLE001 - the first error is the one that decides
            self._emit(CleanupFailed(context, second))
        for session in scope.sessions.values():
            try:
                await session.rollback()
            except Exception as second:  # noqa: BLE001 - closing the session below rolls back as well
                self._emit(CleanupFailed(context, second))

    async def _close(self, scope: Scope, context: JobContext) -> None:
        for session in scope.sessions.values():
            try:
                await session.close()
            except Exception as error:  # noqa: BLE001 - the job has its outcome already
                self._emit(CleanupFailed(context, error))

    def _judge(self, job: Job[Any, Any], attempt: Attempt, raised: BaseException) -> Outcome:
        if attempt.stopped_with is not None:
            return attempt.stopped_with
        if isinstance(raised, LeaseLost):
            return Lost()
        return after_failure(raised, attempt.claimed.attempt, attempt.claimed.max_retries, job.retry)

    def _wait_for_a_newer_worker(self, claimed: Claimed) -> Outcome:
        """Old code must not destroy new jobs: a job of an unknown type goes back, uncounted, for a while."""
        delay = self._unknown.get(claimed.job_type, UNKNOWN_FIRST)
        self._unknown[claimed.job_type] = min(delay * 2, UNKNOWN_LONGEST)
        self._emit(JobUnknown(claimed.id, claimed.job_type, claimed.queue, claimed.trace_id, delay))
        return Snooze(delay)


async def _call(job: Job[Any, Any], payload: tuple[Any, ...], dependencies: dict[str, Any]) -> None:
    if job.is_async:
        await job.fn(*payload, **dependencies)
    elif job.in_thread:
        await sync_to_thread(_without_stop_iteration, job.fn, *payload, **dependencies)
    else:
        job.fn(*payload, **dependencies)


def _without_stop_iteration(fn: Callable[..., Any], /, *payload: Any, **dependencies: Any) -> None:
    """A future cannot carry ``StopIteration``: whoever awaits it would wait for ever."""
    try:
        fn(*payload, **dependencies)
    except StopIteration as error:
        raise RuntimeError(f"{fn.__qualname__} raised StopIteration") from error


def _enter_span(claimed: Claimed) -> JobContext:
    """Make this context the job's: whatever logs or enqueues in it does so in the job's trace."""
    context = JobContext(
        id=claimed.id,
        job_type=claimed.job_type,
        queue=claimed.queue,
        attempt=claimed.attempt,
        max_retries=claimed.max_retries,
        trace_id=accept(claimed.trace_id),
        enqueued_at=claimed.created_at,
    )
    current_job.set(context)
    current_trace_id.set(context.trace_id)
    current_carrier.set(_carrier(claimed.headers))
    bind_structlog()
    return context


def _carrier(stored: str | None) -> Mapping[str, str] | None:
    """The headers that came with a job; None for what is no carrier: any program can have written it."""
    if stored is None:
        return None
    try:
        return decode_carrier(stored)
    except (msgspec.DecodeError, RecursionError):
        return None


class _Limit:
    """The timeout of an attempt. Unlike :func:`asyncio.timeout` it also fails a handler that swallows the cancellation,
    and never takes a ``TimeoutError`` of the handler's own for its own."""

    __slots__ = ("_seconds", "_timeout")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as expired:
            raise JobTimeout(self._seconds or 0) from expired
        if error is None and self._timeout.expired():
            raise JobTimeout(self._seconds or 0)
