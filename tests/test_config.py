"""Settings: what each refuses when it is made, naming itself and what it takes."""

from datetime import timedelta
from typing import Any

import pytest
from litestar.di import Provide

from litestar_jobs import JobsConfig, JobsPlugin, WorkerConfig, job
from litestar_jobs.errors import ConfigurationError

NAN, INFINITY = float("nan"), float("inf")


@job
async def task() -> None: ...


def test_nothing_has_to_be_set() -> None:
    config = JobsConfig()
    assert (config.dsn, config.schema, config.jobs, config.migrate) == (None, "litestar_jobs", None, "auto")
    assert (config.trace_header, config.dependency_key, config.max_payload) == ("x-trace-id", "jobs", 1_000_000)
    assert config.worker == WorkerConfig(queues=None, concurrency=10, poll_interval=5, lease=15, shutdown_timeout=30)


def test_what_makes_sense_is_taken() -> None:
    JobsConfig(
        dsn="postgresql://me@here/there",
        schema="other_jobs",
        jobs=[task],
        worker=None,
        dependencies={"mailer": Provide(lambda: 1, sync_to_thread=False)},
        migrate="never",
        trace_header="x-request-id",
        dependency_key="job_queue",
        max_payload=1,
        hooks=[print],
    )
    WorkerConfig(
        queues=["it's", "two words"],
        concurrency=1,
        poll_interval=timedelta(seconds=1),
        lease=timedelta(minutes=1),
        shutdown_timeout=0,
    )


def test_settings_are_values_and_do_not_tell_the_password() -> None:
    config = JobsConfig(dsn="postgresql://me:secret@here/there")
    assert "secret" not in repr(config)
    with pytest.raises(AttributeError):
        config.dsn = None  # type: ignore[misc]


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("queues", [], "queues must have at least one name; None takes every queue"),
        ("queues", "emails", "queues must be a list of names, not 'emails'"),
        ("queues", 5, "queues must be a list of names, not 5"),
        ("queues", ["ok", ""], "a queue's name must be text of 1 to 100 characters"),
        ("queues", ["q" * 300], "a queue's name must be text of 1 to 100 characters"),
        ("queues", ["a\x00"], "a queue's name must not contain control characters"),
        ("queues", [None], "a queue's name must be text"),
        ("concurrency", 0, "concurrency must be a whole number from 1 to 10000, not 0"),
        ("concurrency", -1, "concurrency must be a whole number"),
        ("concurrency", 10_001, "concurrency must be a whole number"),
        ("concurrency", 2.5, "concurrency must be a whole number"),
        ("concurrency", True, "concurrency must be a whole number"),
        ("concurrency", "10", "concurrency must be a whole number from 1 to 10000, not '10'"),
        ("concurrency", None, "concurrency must be a whole number"),
        ("poll_interval", 0, "poll_interval must lie between 0.1 and 3600 seconds, not 0"),
        ("poll_interval", NAN, "poll_interval must lie between"),
        ("poll_interval", "5", "poll_interval must be a number of seconds or a timedelta, not '5'"),
        ("poll_interval", None, "poll_interval must be a number of seconds"),
        ("lease", 0.5, "lease must lie between 1 and 3600 seconds"),
        ("lease", INFINITY, "lease must lie between"),
        ("lease", timedelta(days=1), "lease must lie between"),
        ("lease", True, "lease must be a number of seconds"),
        ("shutdown_timeout", -1, "shutdown_timeout must lie between 0 and 86400 seconds"),
        ("shutdown_timeout", 10**400, "shutdown_timeout must lie between"),
        ("shutdown_timeout", None, "shutdown_timeout must be a number of seconds"),
    ],
)
def test_a_worker_refuses(setting: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match="WorkerConfig: " + says):
        WorkerConfig(**{setting: value})


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("dsn", "", "dsn must be text such as postgresql://user@host/name, or None"),
        ("dsn", 5, "dsn must be text such as"),
        ("schema", "", "the schema must be a plain lower-case name"),
        ("schema", "Jobs", "the schema must be a plain lower-case name .* not 'Jobs'"),
        ("schema", "jobs; drop", "the schema must be a plain lower-case name"),
        ("schema", 'j"', "the schema must be a plain lower-case name"),
        ("schema", "j" * 52, "the schema must be a plain lower-case name"),
        ("schema", "1jobs", "the schema must be a plain lower-case name"),
        ("schema", "jobs\n", "the schema must be a plain lower-case name"),
        ("schema", "pg_jobs", "the schema must be a plain lower-case name"),
        ("schema", None, "the schema must be a plain lower-case name"),
        ("jobs", task, "jobs must be a list of functions decorated with @job"),
        ("jobs", "task", "jobs must be a list of functions decorated with @job"),
        ("worker", True, "worker must be a WorkerConfig, or None for an application that only enqueues, not True"),
        ("worker", {"concurrency": 5}, "worker must be a WorkerConfig"),
        ("dependencies", [], "dependencies must be a dict of names and litestar.di.Provide"),
        ("dependencies", None, "dependencies must be a dict of names"),
        ("dependencies", {"mailer": print}, r"dependencies\['mailer'\] must be a litestar.di.Provide"),
        ("migrate", "yes", "migrate must be one of auto, check, never, not 'yes'"),
        ("migrate", None, "migrate must be one of"),
        ("trace_header", "", "trace_header must be the name of a header such as x-trace-id, not ''"),
        ("trace_header", "x trace", "trace_header must be the name of a header"),
        ("trace_header", "x-trace\r\n", "trace_header must be the name of a header"),
        ("trace_header", "x-träce", "trace_header must be the name of a header"),
        ("trace_header", None, "trace_header must be the name of a header"),
        ("dependency_key", "", "dependency_key must be a name for a parameter such as 'jobs', not ''"),
        ("dependency_key", "job queue", "dependency_key must be a name for a parameter"),
        ("dependency_key", "class", "dependency_key must be a name for a parameter"),
        ("dependency_key", 5, "dependency_key must be a name for a parameter"),
        ("dependency_key", "job", "dependency_key must not be 'job', which jobs and handlers have for something else"),
        ("dependency_key", "request", "dependency_key must not be 'request'"),
        ("max_payload", 0, "max_payload must be a whole number from 1 to 200000000, not 0"),
        ("max_payload", 1.5, "max_payload must be a whole number"),
        ("max_payload", "1MB", "max_payload must be a whole number"),
        ("hooks", print, "hooks must be a list of functions that take an event"),
        ("hooks", [5], "hooks must be functions that take an event, not 5"),
        ("hooks", None, "hooks must be a list of functions that take an event, not None"),
    ],
)
def test_an_application_refuses(setting: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match="JobsConfig: " + says):
        JobsConfig(**{setting: value})


@pytest.mark.parametrize("dsn", ["sqlite:///jobs.db", "mysql://me@here/there", "here", "postgresql"])
def test_another_database_is_refused_when_the_application_is_made(dsn: str) -> None:
    from litestar import Litestar

    with pytest.raises(ConfigurationError, match="litestar-jobs needs PostgreSQL"):
        Litestar(plugins=[JobsPlugin(JobsConfig(dsn=dsn, jobs=[]))])
