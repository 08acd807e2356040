"""Everything that can go wrong, grouped by when it meets you.

::

    JobsError
    ├── DefinitionError       while modules are imported: a function cannot be a job
    ├── ConfigurationError    while Litestar(...) is constructed: settings or dependencies do not fit
    ├── StartupError          while the application starts
    │   ├── DatabaseUnreachable
    │   └── SchemaError           the tables are missing, older or newer than this library
    ├── EnqueueError          at the call: nothing was written
    │   ├── PayloadRefused        the payload would not come back as it went in
    │   ├── AlreadyEnqueued       another job has the key of a unique one
    │   ├── ConnectionRefused     enqueue_with cannot use this connection
    │   ├── WrongEventLoop        the client belongs to another event loop
    │   └── NotRunning            outside the lifespan of the application
    ├── EnqueueUncertain      at the call: the connection broke before the database answered
    ├── JobFailed             where a result is awaited: the job has failed for good
    ├── JobCancelled          where a result is awaited: the job was cancelled
    └── on the job, kept in its failures
        ├── PayloadError          a stored payload no longer decodes
        ├── ResultError           what a handler returned cannot be kept, or does not decode where it is awaited
        ├── JobTimeout            an attempt ran longer than its timeout
        ├── JobDeadline           the time for all its attempts is over
        ├── JobExpired            no attempt was begun in time
        ├── StepCancelled         one that a step of a workflow needs did not complete
        ├── SnoozedTooOften       its handler said that it waits more often than it may
        ├── WorkerLost            the process that ran it is gone
        └── LeaseLost             this worker may no longer write for the job

Errors of the database driver are never hidden: they are the ``__cause__``.
"""

from uuid import UUID

__all__ = (
    "AlreadyEnqueued",
    "ConfigurationError",
    "ConnectionRefused",
    "DatabaseUnreachable",
    "DefinitionError",
    "EnqueueError",
    "EnqueueUncertain",
    "JobCancelled",
    "JobDeadline",
    "JobExpired",
    "JobFailed",
    "JobTimeout",
    "JobsError",
    "LeaseLost",
    "NotRunning",
    "PayloadError",
    "PayloadRefused",
    "ResultError",
    "SchemaError",
    "SnoozedTooOften",
    "StartupError",
    "StepCancelled",
    "WorkerLost",
    "WrongEventLoop",
)


class JobsError(Exception):
    """The root of all errors of this library."""


class DefinitionError(JobsError):
    """A function cannot become a job, or options and conditions make no sense. Raised by ``@job``, by a call of a job, and
    by ``JobFilter`` and the operations that take one."""


class ConfigurationError(JobsError):
    """Settings, names or dependencies do not fit together. Raised while ``Litestar(...)`` is constructed."""


class StartupError(JobsError):
    """The application cannot start. Nothing that was begun is left behind."""


class DatabaseUnreachable(StartupError):
    """PostgreSQL does not answer at the address that was configured, or takes no writes there. The driver's error is the
    cause."""


class SchemaError(StartupError):
    """The tables of this library are missing, or of another version than it needs.

    ``found`` is the version in the database (0: none), ``needed`` the library's.
    """

    def __init__(self, message: str, *, found: int, needed: int) -> None:
        super().__init__(message)
        self.found = found
        self.needed = needed


class EnqueueError(JobsError):
    """A job was not enqueued, and nothing was written."""


class PayloadRefused(EnqueueError, ValueError):
    """The payload would not come back from the database as it went in. ``job_type`` says of which job."""

    def __init__(self, message: str, *, job_type: str) -> None:
        super().__init__(message)
        self.job_type = job_type


class AlreadyEnqueued(EnqueueError):
    """Another job holds the key of a unique one with ``on_conflict="error"``. ``job_id`` is the one that does."""

    def __init__(self, message: str, *, job_id: UUID) -> None:
        super().__init__(message)
        self.job_id = job_id


class ConnectionRefused(EnqueueError):
    """``enqueue_with`` cannot promise to commit or roll back with this connection."""


class WrongEventLoop(EnqueueError, RuntimeError):
    """The client was called in another event loop than the one its application runs in."""


class NotRunning(EnqueueError, RuntimeError):
    """The client was called before the application started or after it stopped."""


class EnqueueUncertain(JobsError):
    """The connection broke after the job was sent and before the database answered: it may be enqueued or not.

    ``job_id`` is the id that it has if it is: ask with ``jobs.get(job_id)``.
    """

    def __init__(self, message: str, *, job_id: UUID) -> None:
        super().__init__(message)
        self.job_id = job_id


class PayloadError(JobsError):
    """A stored payload does not decode as the type its job has now. The message says where.

    The job ends as failed without further attempts, keeps its payload, and can be retried after a fix.
    """


class ResultError(JobsError):
    """What a handler returned is not what its annotation says, is too large or is no JSON; or a result that is awaited
    does not decode as the type its job has now.

    A job that cannot keep its result ends as failed without further attempts: its handler has done its work.
    """


class JobFailed(JobsError):
    """A job whose result is awaited has failed for good, with its last attempt. The attributes say how."""

    def __init__(self, job_id: UUID, job_type: str, attempts: int, error_type: str, message: str) -> None:
        super().__init__(f"job {job_type} {job_id} failed in attempt {attempts}: {error_type}: {message}")
        self.job_id = job_id
        self.job_type = job_type
        self.attempts = attempts
        self.error_type = error_type
        self.message = message


class JobCancelled(JobsError):
    """A job whose result is awaited was cancelled."""

    def __init__(self, job_id: UUID, job_type: str) -> None:
        super().__init__(f"job {job_type} {job_id} was cancelled, so there is no result")
        self.job_id = job_id
        self.job_type = job_type


class JobTimeout(JobsError, TimeoutError):
    """An attempt ran longer than the ``timeout`` of its job, in seconds."""

    def __init__(self, timeout: float) -> None:
        super().__init__(f"the attempt ran longer than its timeout of {timeout:g} s")
        self.timeout = timeout


class JobDeadline(JobsError):
    """The ``deadline`` of a job, over all its attempts, is over, or would be before the next one could begin. The job has
    failed for good."""


class StepCancelled(JobsError):
    """A step of a workflow was cancelled, because one that it needs failed or was cancelled. The message says which."""


class JobExpired(JobsError):
    """No attempt of a job was begun within its ``expires_in``: it has ended as cancelled."""

    def __init__(self) -> None:
        super().__init__("no attempt was begun in time")


class SnoozedTooOften(JobsError):
    """The handler of a job raised or returned ``Snooze`` more often than the ``max_snoozes`` of the job allow."""

    def __init__(self, max_snoozes: int) -> None:
        super().__init__(
            f"the job has snoozed {max_snoozes} times, as often as it may: what does it wait for? "
            "@job(max_snoozes=...) sets how often"
        )
        self.max_snoozes = max_snoozes


class WorkerLost(JobsError):
    """The process that ran the job stopped renewing its lease."""


class LeaseLost(JobsError):
    """Another worker may run the job now; nothing that this attempt does can be recorded for it."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__(f"the lease on job {job_id} was lost, this attempt may write nothing for it any more")
        self.job_id = job_id
