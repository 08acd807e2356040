"""Logging is a hook: what the worker says happened, as log records.

Payloads and tracebacks are never logged above DEBUG; they are in the database.
"""

import logging

from litestar_jobs.outcome import Cancelled, Committed, Completed, Failed, Interrupted, Lost, Retry, Snooze
from litestar_jobs.telemetry import (
    AttemptEnded,
    AttemptStarted,
    ChoreFailed,
    CleanupFailed,
    Event,
    JobRescued,
    JobUnknown,
    LeaseEnded,
    WorkerStarted,
    WorkerStopped,
)

__all__ = ("log_events",)

logger = logging.getLogger("litestar_jobs")


def log_events(event: Event) -> None:
    """Log one event."""
    match event:
        case AttemptStarted(job):
            logger.debug("%s started", job.job_type)
        case AttemptEnded():
            _log_end(event)
        case WorkerStarted(worker_id, queues, concurrency):
            logger.info("worker %s takes jobs of %s, %d at once", worker_id, ", ".join(queues), concurrency)
        case WorkerStopped(worker_id, interrupted):
            logger.info("worker %s stopped, %d jobs handed back", worker_id, interrupted)
        case JobRescued(job_id, job_type, queue, trace_id, attempt, was_last, overdue):
            logger.warning(
                "%s %s (queue %s, trace %s): attempt %d %s, %s",
                job_type,
                job_id,
                queue,
                trace_id or "-",
                attempt,
                "ran on long after its timeout" if overdue else "was lost with its process",
                "and was the last one" if was_last else "so it runs again",
            )
        case JobUnknown(job_id, job_type, queue, trace_id, delay):
            logger.warning(
                "%s %s (queue %s, trace %s): no job of this name is known here, it waits %g s for a worker that knows it",
                job_type,
                job_id,
                queue,
                trace_id or "-",
                delay,
            )
        case LeaseEnded(worker_id, jobs, reason):
            logger.error("worker %s lost its lease and stopped %d jobs, others may run them: %s", worker_id, jobs, reason)
        case CleanupFailed(job, error):
            logger.error("%s %s: a dependency failed while it was cleaned up: %r", job.job_type, job.id, error)
        case ChoreFailed(chore, error, delay):
            logger.error("%s failed and will be tried again in %g s: %s", chore, delay, error or repr(error))


def _log_end(event: AttemptEnded) -> None:
    job, took = event.job, event.duration * 1000
    match event.outcome:
        case Completed() | Committed():
            logger.debug("%s completed in %.1f ms", job.job_type, took)
        case Retry(failure, delay):
            logger.warning(
                "%s failed, attempt %d of %d runs in %.1f s: %s: %s",
                job.job_type,
                job.attempt + 1,
                job.max_retries + 1,
                delay,
                failure.error_type,
                failure.message,
            )
        case Failed(failure):
            logger.error(
                "%s failed for good after %d attempts: %s: %s",
                job.job_type,
                job.attempt,
                failure.error_type,
                failure.message,
            )
        case Interrupted():
            logger.warning("%s was interrupted and handed back", job.job_type)
        case Snooze(delay):
            logger.info("%s waits %g s", job.job_type, delay)
        case Cancelled():
            logger.info("%s was cancelled", job.job_type)
        case Lost():
            logger.error("%s was stopped, its lease is lost", job.job_type)
    if event.error is not None:
        logger.debug("%s raised", job.job_type, exc_info=event.error)
