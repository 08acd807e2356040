"""Logging is a hook: what the worker says happened, as log records.

Lines about a job name it and its trace in their text, and in the attributes that the logging span has, inside of the
job's context and outside of it. Payloads and tracebacks are never logged above DEBUG; they are in the database. Nor is
more of an error than its first line: drivers append the values of a statement.
"""

import logging
from typing import Any, TypeAlias

from litestar_jobs.context import JobContext
from litestar_jobs.errors import StartupError
from litestar_jobs.outcome import (
    Cancelled,
    Committed,
    Completed,
    Failed,
    Failure,
    Interrupted,
    Lost,
    Retry,
    Snoozed,
    Unanswered,
)
from litestar_jobs.telemetry import (
    AttemptAbandoned,
    AttemptEnded,
    AttemptStarted,
    ChoreFailed,
    CleanupFailed,
    Event,
    HandlerStuck,
    JobLapsed,
    JobRescued,
    JobsPruned,
    JobUnknown,
    LeaseEnded,
    ListenerDeaf,
    OutcomeRefused,
    QueueLimited,
    SlotEnqueued,
    SlotsSkipped,
    StepSkipped,
    SuspectReleased,
    WorkerStarted,
    WorkerStopped,
)

__all__ = ("log_events",)

logger = logging.getLogger("litestar_jobs")

LONGEST_LINE = 200
DEAF = (
    "no notification reaches this worker, so jobs of other processes may wait up to %g s for its next look. LISTEN does "
    "not work through a pooler in transaction mode: give the worker a direct way with WorkerConfig(listen_dsn=...) or "
    "LITESTAR_JOBS_LISTEN_DSN, or a shorter poll_interval"
)

Elsewhere: TypeAlias = (
    JobRescued
    | JobLapsed
    | SuspectReleased
    | JobUnknown
    | OutcomeRefused
    | AttemptAbandoned
    | HandlerStuck
    | StepSkipped
)
"""What happens to a job outside of its own context."""


def log_events(event: Event) -> None:
    """Log one event."""
    match event:
        case AttemptStarted(job):
            logger.debug("%s started", job.job_type)
        case AttemptEnded():
            _log_end(event)
        case JobRescued() | JobLapsed() | SuspectReleased() | JobUnknown():
            _log_elsewhere(event)
        case OutcomeRefused() | AttemptAbandoned() | HandlerStuck():
            _log_elsewhere(event)
        case StepSkipped():
            _log_elsewhere(event)
        case CleanupFailed(job, error):
            _log_job(logging.ERROR, job, "a dependency failed while it was cleaned up: %s", _brief(error))
        case SlotEnqueued() | SlotsSkipped():
            _log_schedule(event)
        case QueueLimited(queue, most):
            how = {None: "without a limit", 0: "paused"}.get(most, f"limited to {most} jobs at once in this worker")
            logger.info("queue %s is %s", _printable(queue), how)
        case WorkerStarted() | WorkerStopped() | LeaseEnded() | ListenerDeaf() | JobsPruned() | ChoreFailed():
            _log_worker(event)


def _log_worker(event: WorkerStarted | WorkerStopped | LeaseEnded | ListenerDeaf | JobsPruned | ChoreFailed) -> None:
    match event:
        case WorkerStarted(worker_id, queues, concurrency):
            logger.info("worker %s takes jobs of %s, %d at once", worker_id, ", ".join(queues), concurrency)
        case WorkerStopped(worker_id, interrupted):
            logger.info("worker %s stopped, %d jobs handed back", worker_id, interrupted)
        case LeaseEnded(worker_id, jobs, reason):
            logger.error(
                "worker %s lost its lease and stopped %d jobs, others may run them: %s", worker_id, jobs, reason
            )
        case ListenerDeaf(poll_interval):
            logger.warning(DEAF, poll_interval)
        case JobsPruned(completed, failed, cancelled):
            text = "%d completed, %d failed and %d cancelled jobs were kept long enough and are deleted"
            logger.info(text, completed, failed, cancelled)
        case ChoreFailed(chore, error, delay):
            logger.error("%s failed and will be tried again in %g s: %s", chore, delay, _brief(error))


def _log_end(event: AttemptEnded) -> None:
    job = event.job
    match event.outcome:
        case Completed() | Committed():
            logger.debug("%s completed in %.1f ms", job.job_type, event.duration * 1000)
        case Retry(failure, delay):
            _log_job(
                logging.WARNING,
                job,
                "attempt %d of %d failed, the next one is in %.1f s: %s",
                job.attempt,
                job.max_retries + 1,
                delay,
                _brief(failure),
            )
        case Failed(failure):
            _log_job(logging.ERROR, job, "failed for good at attempt %d: %s", job.attempt, _brief(failure))
        case Interrupted():
            _log_job(logging.WARNING, job, "was interrupted and handed back, uncounted")
        case Lost():
            _log_job(logging.ERROR, job, "was stopped, its lease is lost; it runs or ran elsewhere")
        case Unanswered(Failed(failure) | Retry(failure)):
            text = "its commit was not answered, so it is completed, or attempt %d has failed: %s"
            _log_job(logging.WARNING, job, text, job.attempt, _brief(failure))
        case Snoozed(delay, reason):
            _log_job(
                logging.INFO, job, "waits %g s%s", delay, f": {_printable(reason[:LONGEST_LINE])}" if reason else ""
            )
        case Cancelled(failure):
            _log_job(logging.INFO, job, "was cancelled%s", "" if failure is None else f": {_brief(failure)}")
    if event.error is not None:
        logger.debug("%s raised", job.job_type, exc_info=event.error)


def _log_elsewhere(event: Elsewhere) -> None:
    """Log what happened to a job outside of its own context."""
    match event:
        case JobRescued(attempt=attempt, was_last=was_last, overdue=overdue):
            _log_job(
                logging.ERROR if was_last else logging.WARNING,
                event,
                "attempt %d %s, %s",
                attempt,
                "ran on long after its timeout" if overdue else "was lost with its process",
                _what_follows(event),
            )
        case JobLapsed(is_expired=True):
            _log_job(logging.WARNING, event, "was not begun in time, and is cancelled")
        case JobLapsed():
            _log_job(logging.ERROR, event, "failed for good: its deadline was over while it waited")
        case SuspectReleased():
            _log_job(logging.WARNING, event, "was lost with its process more than once; it is its turn to run again")
        case JobUnknown(delay=delay):
            text = "no job of this name is known here, it waits %g s for a worker that knows it"
            _log_job(logging.WARNING, event, text, delay)
        case OutcomeRefused(attempt=attempt, verdict=verdict):
            text = (
                "attempt %d was not recorded as %s: its job was cancelled, or its lease was lost and it runs elsewhere"
            )
            _log_job(logging.WARNING, event, text, attempt, verdict)
        case AttemptAbandoned(attempt=attempt):
            text = "attempt %d did not end when it was cancelled, and was handed back"
            _log_job(logging.ERROR, event, text, attempt)
        case HandlerStuck(attempt=attempt, count=count):
            text = "attempt %d is over, but its handler cannot be stopped and goes on; this process has %d such"
            _log_job(logging.ERROR, event, text, attempt, count)
        case StepSkipped(reason=reason):
            _log_job(logging.WARNING, event, "was cancelled: %s", _printable(reason))


def _log_schedule(event: SlotEnqueued | SlotsSkipped) -> None:
    match event:
        case SlotEnqueued(schedule, slot, job_id):
            logger.debug("schedule %s: job %s for %s", schedule, job_id, slot.isoformat())
        case SlotsSkipped(schedule, _, slots, until, "missed"):
            text = "schedule %s: %d slots up to %s were missed and are not made up for"
            logger.warning(text, schedule, slots, until.isoformat())
        case SlotsSkipped(schedule, until=until):
            text = "schedule %s: nothing for %s, a job of it has not finished"
            logger.warning(text, schedule, until.isoformat())


def _what_follows(rescued: JobRescued) -> str:
    if rescued.was_last:
        return "and was the last one: failed for good"
    if rescued.suspect:
        return "not for the first time: it is held until no other such job runs"
    return "so it runs again"


def _log_job(
    level: int,
    job: JobContext | Elsewhere,
    text: str,
    *args: Any,
) -> None:
    """Log a line that says which job it is about."""
    job_id = str(job.id if isinstance(job, JobContext) else job.job_id)
    trace_id = job.trace_id or "-"
    span: dict[str, Any] = {"trace_id": trace_id, "job_id": job_id, "job_type": job.job_type, "queue": job.queue}
    if not isinstance(job, JobUnknown | JobLapsed | SuspectReleased | StepSkipped):
        span["attempt"] = job.attempt
    logger.log(
        level,
        f"%s %s (queue %s, trace %s) {text}",  # noqa: G004 - only our own texts are put in
        *map(_printable, (job.job_type, job_id, job.queue, trace_id)),
        *args,
        extra=span,
    )


def _brief(error: BaseException | Failure) -> str:
    """The type and the first line of an error, printable."""
    failure = error if isinstance(error, Failure) else Failure.of(error)
    line = next(iter(failure.message.splitlines()), "")
    if len(line) > LONGEST_LINE and not isinstance(error, StartupError):  # whose text is ours, and ends with a remedy
        line = f"{line[:LONGEST_LINE]}…"
    line = _printable(line)
    return f"{failure.error_type}: {line}" if line else failure.error_type


def _printable(text: str) -> str:
    """The text; if it would break the line or move the cursor, in the way Python writes it."""
    return text if text.isprintable() else ascii(text)
