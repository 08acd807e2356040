"""Settings. Each says what it accepts when it is made, not at three in the morning."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from litestar.di import Provide

from litestar_jobs.define import Job
from litestar_jobs.durations import Duration, seconds
from litestar_jobs.errors import ConfigurationError, DefinitionError
from litestar_jobs.request import check_queue, whole_number
from litestar_jobs.telemetry import Hook

__all__ = ("JobsConfig", "WorkerConfig")

Migrate = Literal["auto", "check", "never"]
MIGRATE = ("auto", "check", "never")


@dataclass(frozen=True)
class WorkerConfig:
    """The worker of a process. Durations are seconds or ``timedelta``."""

    queues: Sequence[str] | None = None
    """The queues it takes jobs from. None: every queue that a job of the application names."""
    concurrency: int = 10
    """How many jobs run at once, in this process."""
    poll_interval: Duration = 5.0
    """How often an idle worker looks for jobs of which no notification reached it."""
    lease: Duration = 15.0
    """How long after its last sign of life a process loses its jobs to others."""
    shutdown_timeout: Duration = 30.0
    """How long running jobs may go on when the process stops; those left then are handed back, uncounted."""

    def __post_init__(self) -> None:
        with _as_configuration("WorkerConfig"):
            if isinstance(self.queues, str) or (self.queues is not None and not self.queues):
                raise DefinitionError(f"queues must be a list of at least one name, or None, not {self.queues!r}")
            for queue in self.queues or ():
                check_queue(queue)
            whole_number(self.concurrency, "concurrency", 1, 10_000)
            seconds(self.poll_interval, "poll_interval", least=0.1, most=3600)
            seconds(self.lease, "lease", least=1, most=3600)
            seconds(self.shutdown_timeout, "shutdown_timeout", most=24 * 3600)


@dataclass(frozen=True)
class JobsConfig:
    """The jobs of an application."""

    dsn: str | None = field(default=None, repr=False)
    """Where the jobs live: ``postgresql://…``. None: ``LITESTAR_JOBS_DSN``, the application's one advanced-alchemy
    configuration, ``DATABASE_URL``, or the embedded server if it is installed, in this order."""
    schema: str = "litestar_jobs"
    """The PostgreSQL schema of the tables."""
    jobs: Sequence[Job[Any, Any]] | None = None
    """The jobs that this application knows. None: every ``@job`` of every module that was imported."""
    worker: WorkerConfig | None = field(default_factory=WorkerConfig)
    """The in-app worker. None: this application only enqueues."""
    dependencies: Mapping[str, Provide] = field(default_factory=dict)
    """Dependencies of jobs alone; they go before the application's of the same name."""
    migrate: Migrate = "auto"
    """What happens to the tables at start-up: brought up to date, looked at, or left alone."""
    trace_header: str = "x-trace-id"
    """The header that carries the trace id, in and out."""
    dependency_key: str = "jobs"
    """The name under which handlers and jobs get the client."""
    max_payload: int = 1_000_000
    """The largest payload in bytes of JSON."""
    hooks: Sequence[Hook] = ()
    """Called with every event of :mod:`litestar_jobs.telemetry`."""

    def __post_init__(self) -> None:
        with _as_configuration("JobsConfig"):
            whole_number(self.max_payload, "max_payload", 1, 200_000_000)
            if self.migrate not in MIGRATE:
                raise DefinitionError(f"migrate must be one of {', '.join(MIGRATE)}, not {self.migrate!r}")
            if not self.dependency_key.isidentifier():
                raise DefinitionError(f"dependency_key must be a name for a parameter, not {self.dependency_key!r}")
            if not self.trace_header.replace("-", "").isalnum() or not self.trace_header.isascii():
                raise DefinitionError(f"trace_header must be the name of a header, not {self.trace_header!r}")
            for name, provide in self.dependencies.items():
                if not isinstance(provide, Provide):
                    raise DefinitionError(f"dependencies[{name!r}] must be a litestar.di.Provide, not {provide!r}")


@contextmanager
def _as_configuration(what: str) -> Iterator[None]:
    """Settings have the same checks as definitions, but are errors of configuration."""
    try:
        yield
    except DefinitionError as error:
        raise ConfigurationError(f"{what}: {error}") from None
