"""Settings. Each says what it accepts when it is made, not at three in the morning."""

import keyword
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, Literal, cast

from litestar.di import Provide

from litestar_jobs.define import Job
from litestar_jobs.durations import Duration, seconds
from litestar_jobs.errors import ConfigurationError, DefinitionError
from litestar_jobs.request import check_queue, whole_number
from litestar_jobs.store import Statements
from litestar_jobs.telemetry import Hook

__all__ = ("JobsConfig", "Retention", "WorkerConfig")

Migrate = Literal["auto", "check", "never"]
MIGRATE = ("auto", "check", "never")
TAKEN = frozenset({"job", "state", "request", "socket", "headers", "query", "cookies", "body", "data", "scope"})


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
    listen_dsn: str | None = field(default=None, repr=False)
    """A way to the jobs' database that bypasses a pooler, to listen on. None: ``LITESTAR_JOBS_LISTEN_DSN``, or the same
    way as everything else."""

    def __post_init__(self) -> None:
        with _as_configuration("WorkerConfig"):
            if self.queues is not None:
                _check_queues(self.queues)
            whole_number(self.concurrency, "concurrency", 1, 10_000)
            seconds(self.poll_interval, "poll_interval", least=0.1, most=3600)
            seconds(self.lease, "lease", least=1, most=3600)
            seconds(self.shutdown_timeout, "shutdown_timeout", most=24 * 3600)
            _check_dsn(self.listen_dsn, "listen_dsn")


@dataclass(frozen=True)
class Retention:
    """How long jobs are kept after they ended, by how they ended. Seconds or ``timedelta``; None: for ever."""

    completed: Duration | None = timedelta(days=1)
    failed: Duration | None = timedelta(days=14)
    cancelled: Duration | None = timedelta(days=14)

    def __post_init__(self) -> None:
        with _as_configuration("Retention"):
            for setting in fields(self):
                if (kept := getattr(self, setting.name)) is not None:
                    seconds(kept, setting.name)

    @property
    def limits(self) -> dict[str, float]:
        """Seconds by status, without those that are kept for ever."""
        kept = {setting.name: getattr(self, setting.name) for setting in fields(self)}
        return {name: seconds(value, name) for name, value in kept.items() if value is not None}


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
    retention: Retention = field(default_factory=Retention)
    """How long jobs are kept after they ended. Workers delete those that were kept long enough."""
    dependencies: Mapping[str, Provide] = field(default_factory=dict[str, Provide])
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
            _check_dsn(self.dsn, "dsn")
            _check_schema(self.schema)
            if self.jobs is not None:
                _check_list(self.jobs, "jobs", "functions decorated with @job")
            _check_worker(self.worker)
            _check_retention(self.retention)
            _check_dependencies(self.dependencies, ("job", "state", self.dependency_key))
            if self.migrate not in MIGRATE:
                raise DefinitionError(f"migrate must be one of {', '.join(MIGRATE)}, not {self.migrate!r}")
            _check_header(self.trace_header)
            _check_key(self.dependency_key)
            whole_number(self.max_payload, "max_payload", 1, 200_000_000)
            _check_list(self.hooks, "hooks", "functions that take an event")
            for hook in self.hooks:
                _check_hook(hook)


@contextmanager
def _as_configuration(what: str) -> Generator[None]:
    """Settings have the same checks as definitions, but are errors of configuration."""
    try:
        yield
    except (DefinitionError, ConfigurationError) as error:
        raise ConfigurationError(f"{what}: {error}") from None


def _check_list(value: object, setting: str, of: str) -> None:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise DefinitionError(f"{setting} must be a list of {of}, not {value!r}")


def _check_queues(queues: Sequence[str]) -> None:
    _check_list(queues, "queues", "names")
    if not queues:
        raise DefinitionError("queues must have at least one name; None takes every queue that a job names")
    for queue in queues:
        check_queue(queue)


def _check_dsn(dsn: object, setting: str) -> None:
    if dsn is not None and (not isinstance(dsn, str) or not dsn):
        raise DefinitionError(
            f"{setting} must be text such as postgresql://user@host/name, or None to look elsewhere for it"
        )


def _check_schema(schema: object) -> None:
    if not isinstance(schema, str):
        raise DefinitionError(f"the schema must be a plain lower-case name, not {schema!r}")
    Statements(schema)


def _check_worker(worker: object) -> None:
    if worker is not None and not isinstance(worker, WorkerConfig):
        raise DefinitionError(
            f"worker must be a WorkerConfig, or None for an application that only enqueues, not {worker!r}"
        )


def _check_retention(retention: object) -> None:
    if not isinstance(retention, Retention):
        raise DefinitionError(
            "retention must be a Retention, such as Retention(completed=timedelta(days=1)), or to keep everything "
            f"Retention(completed=None, failed=None, cancelled=None), not {retention!r}"
        )


def _check_dependencies(dependencies: object, taken: Sequence[str]) -> None:
    if not isinstance(dependencies, Mapping):
        raise DefinitionError(f"dependencies must be a dict of names and litestar.di.Provide, not {dependencies!r}")
    for name, provide in cast("Mapping[object, object]", dependencies).items():
        if not isinstance(provide, Provide):
            raise DefinitionError(f"dependencies[{name!r}] must be a litestar.di.Provide, not {provide!r}")
        if name in taken:
            raise DefinitionError(f"dependencies[{name!r}] would never be used: every job has its own {name!r}")


def _check_header(name: object) -> None:
    if not isinstance(name, str) or not name.isascii() or not name.replace("-", "").isalnum():
        raise DefinitionError(f"trace_header must be the name of a header such as x-trace-id, not {name!r}")


def _check_key(key: object) -> None:
    if not isinstance(key, str) or not key.isidentifier() or keyword.iskeyword(key):
        raise DefinitionError(f"dependency_key must be a name for a parameter such as 'jobs', not {key!r}")
    if key in TAKEN:
        raise DefinitionError(f"dependency_key must not be {key!r}, which jobs and handlers have for something else")


def _check_hook(hook: object) -> None:
    if not callable(hook):
        raise DefinitionError(f"hooks must be functions that take an event, not {hook!r}")
