"""Durable, typed, observable background jobs for Litestar, in the PostgreSQL that the application already has.

``@job`` defines, ``jobs.enqueue(...)`` enqueues, ``JobsPlugin`` puts it all into an application.
"""

from litestar_jobs.config import JobsConfig, Retention, WorkerConfig
from litestar_jobs.context import JobContext
from litestar_jobs.course import StepRow, WorkflowRow
from litestar_jobs.define import Job, job
from litestar_jobs.enqueue import JobsClient
from litestar_jobs.filter import JobFilter
from litestar_jobs.limits import Limit, Rate
from litestar_jobs.plugin import Jobs, JobsPlugin
from litestar_jobs.request import JobId, JobRequest
from litestar_jobs.retry import Exponential, Fixed, Never
from litestar_jobs.row import FailedJob, JobRow, JobStatus
from litestar_jobs.schedule import Cron, Every
from litestar_jobs.signals import Cancel, Fail, RetryAfter, Snooze
from litestar_jobs.unique import Unique
from litestar_jobs.workflow import Finished, Workflow, chain, group
from litestar_jobs.workflows import StartedWorkflow

__all__ = (
    "Cancel",
    "Cron",
    "Every",
    "Exponential",
    "Fail",
    "FailedJob",
    "Finished",
    "Fixed",
    "Job",
    "JobContext",
    "JobFilter",
    "JobId",
    "JobRequest",
    "JobRow",
    "JobStatus",
    "Jobs",
    "JobsClient",
    "JobsConfig",
    "JobsPlugin",
    "Limit",
    "Never",
    "Rate",
    "Retention",
    "RetryAfter",
    "Snooze",
    "StartedWorkflow",
    "StepRow",
    "Unique",
    "WorkerConfig",
    "Workflow",
    "WorkflowRow",
    "chain",
    "group",
    "job",
)
