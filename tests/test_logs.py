"""The logging span: records made in a job or a request say which, however and wherever they are logged."""

import asyncio
import atexit
import copy
import io
import json
import logging
import logging.handlers
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextvars import Context
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import structlog
from litestar import Litestar, get
from litestar.logging import LoggingConfig
from litestar.logging.standard import LoggingQueueListener
from msgspec import Struct
from opentelemetry.instrumentation.logging import LoggingInstrumentor
from uuid_utils.compat import uuid7

from litestar_jobs import Fixed, JobContext, JobsConfig, JobsPlugin, job
from litestar_jobs.context import current_job
from litestar_jobs.logs import bind_structlog, install_record_factory, reset_structlog, span_fields
from litestar_jobs.middleware import TraceMiddleware
from litestar_jobs.testing import ended, running
from litestar_jobs.trace import current_trace_id

ALL = "%(message)s|%(trace_id)s|%(job_id)s|%(job_type)s|%(queue)s|%(attempt)s"

logger = logging.getLogger(__name__)


@pytest.fixture(autouse=True)
def _factory() -> Iterator[None]:
    """The record factory is there, and afterwards it is as it was."""
    before = logging.getLogRecordFactory()
    install_record_factory()
    yield
    logging.setLogRecordFactory(before)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What a plain formatter makes of the records of this file's logger."""
    made: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            made.append(self.format(record))

    handler = Kept()
    handler.setFormatter(logging.Formatter(ALL))
    logger.addHandler(handler)
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.manager._clear_cache()  # type: ignore[attr-defined]
    yield made
    logger.removeHandler(handler)
    logger.manager._clear_cache()  # type: ignore[attr-defined]


def a_job(name: str = "mail", *, trace_id: str | None = "t1") -> JobContext:
    return JobContext(
        id=uuid7(), job_type=name, queue="q", attempt=2, max_retries=3, trace_id=trace_id, enqueued_at=datetime.now(UTC)
    )


@pytest.fixture
def inside() -> Iterator[JobContext]:
    """This test is a job."""
    context = a_job()
    token = current_job.set(context)
    yield context
    current_job.reset(token)


def made(**extra: Any) -> logging.LogRecord:
    return logger.makeRecord(logger.name, logging.INFO, __file__, 1, "hello", (), None, extra=extra or None)


# stdlib


def test_outside_of_jobs_and_requests_a_formatter_finds_every_field(lines: list[str]) -> None:
    logger.info("hello")
    assert lines == ["hello|-|-|-|-|0"]


def test_inside_of_a_job_a_record_says_which(lines: list[str], inside: JobContext) -> None:
    logger.info("hello")
    assert lines == [f"hello|t1|{inside.id}|mail|q|2"]


def test_a_job_without_a_trace_has_a_dash(lines: list[str]) -> None:
    def run() -> None:
        current_job.set(context)
        logger.info("hello")

    context = a_job(trace_id=None)
    Context().run(run)
    assert lines == [f"hello|-|{context.id}|mail|q|2"]


@pytest.mark.parametrize(
    ("style", "format_"),
    [("%", "%(message)s %(trace_id)s"), ("{", "{message} {trace_id}"), ("$", "$message $trace_id")],
)
@pytest.mark.parametrize("defaults", [None, {"trace_id": "default", "other": "x"}])
def test_formatters_of_every_style_find_the_fields(
    style: Any, format_: str, defaults: dict[str, str] | None, inside: JobContext
) -> None:
    assert logging.Formatter(format_, style=style, defaults=defaults).format(made()) == "hello t1"


def test_what_somebody_gives_as_extra_wins_and_is_no_conflict(inside: JobContext) -> None:
    record = made(queue="checkout", trace_id="theirs")
    assert (record.queue, record.trace_id, record.job_type) == ("checkout", "theirs", "mail")  # type: ignore[attr-defined]


def test_extra_that_shadows_the_record_itself_is_still_refused() -> None:
    with pytest.raises(KeyError, match="overwrite"):
        made(message="mine")


@pytest.mark.parametrize(
    "duplicate",
    [
        copy.copy,
        copy.deepcopy,
        lambda record: pickle.loads(pickle.dumps(record)),
        logging.handlers.QueueHandler(queue.Queue()).prepare,
        lambda record: logging.makeLogRecord(dict(record.__dict__)),
    ],
    ids=["copy", "deepcopy", "pickle", "queue", "socket"],
)
def test_the_fields_survive_copying(duplicate: Any, inside: JobContext) -> None:
    record = made()
    assert logging.Formatter(ALL).format(duplicate(record)) == f"hello|t1|{inside.id}|mail|q|2"


def test_a_pickled_record_can_be_read_where_this_package_is_not() -> None:
    reader = "import pickle, sys; print(pickle.load(sys.stdin.buffer).job_id, 'litestar_jobs' in sys.modules)"
    read = subprocess.run([sys.executable, "-c", reader], input=pickle.dumps(made()), capture_output=True, check=True)
    assert read.stdout.split() == [b"-", b"False"]


def test_the_factory_that_was_there_goes_on(inside: JobContext) -> None:
    ours = logging.getLogRecordFactory()

    class Record(logging.LogRecord):
        theirs = "theirs"

    try:
        logging.setLogRecordFactory(Record)
        install_record_factory()
        record = made()
    finally:
        logging.setLogRecordFactory(ours)
    assert isinstance(record, Record)
    assert (record.theirs, record.job_id) == ("theirs", str(inside.id))  # type: ignore[attr-defined]


def test_installing_again_changes_nothing_even_below_another_factory() -> None:
    ours = logging.getLogRecordFactory()
    install_record_factory()
    assert logging.getLogRecordFactory() is ours

    def on_top(*args: Any, **kwargs: Any) -> logging.LogRecord:
        return ours(*args, **kwargs)

    logging.setLogRecordFactory(on_top)
    install_record_factory()
    assert logging.getLogRecordFactory() is on_top


async def test_tasks_and_threads_of_a_job_are_in_its_span(lines: list[str], inside: JobContext) -> None:
    await asyncio.create_task(asyncio.to_thread(logger.info, "hello"))
    assert lines == [f"hello|t1|{inside.id}|mail|q|2"]


# On the way of a job.


class Number(Struct):
    number: int


@job(queue="logs", retry=Fixed(0), max_retries=1)
async def says(payload: Number, job: JobContext) -> None:
    logger.info("a")
    await asyncio.gather(*(asyncio.create_task(asyncio.to_thread(logger.info, "a")) for _ in range(2)))
    if job.attempt == 1:
        raise RuntimeError


@job(queue="logs")
def says_in_a_thread() -> None:
    assert threading.current_thread() is not threading.main_thread()
    logger.info("b")


async def test_everything_that_a_job_logs_is_in_its_span_and_jobs_do_not_mix(dsn: str, lines: list[str]) -> None:
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[says, says_in_a_thread]))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        requests = [says(Number(number)) for number in range(5)] + [says_in_a_thread() for _ in range(5)]
        ids = []
        for number, request in enumerate(requests):
            token = current_trace_id.set(f"t{number}")
            ids.append(await plugin.client.enqueue(request))
            current_trace_id.reset(token)
        for job_id in ids:
            await ended(plugin.client, job_id)
    expected = [
        f"a|t{number}|{job_id}|says|logs|{attempt}"
        for number, job_id in enumerate(ids[:5])
        for attempt in (1, 2)
        for _ in range(3)
    ] + [f"b|t{number}|{job_id}|says_in_a_thread|logs|1" for number, job_id in enumerate(ids[5:], 5)]
    assert sorted(lines) == sorted(expected)


QUEUED = (
    {"class": "litestar.logging.standard.QueueListenerHandler", "handlers": ["cfg://handlers.kept"]}
    if sys.version_info < (3, 12)
    else {
        "class": "logging.handlers.QueueHandler",
        "queue": {"()": "queue.Queue", "maxsize": -1},
        "listener": "litestar.logging.standard.LoggingQueueListener",
        "handlers": ["kept"],
    }
)
"""As Litestar itself configures it on each Python."""


async def test_litestars_queue_listener_shows_the_span_of_the_record(dsn: str) -> None:
    """The listener formats in a thread of its own, whose context is nobody's."""
    out = io.StringIO()
    config = LoggingConfig(
        handlers={
            "kept": {"class": "logging.StreamHandler", "stream": out, "formatter": "all"},
            "queued": QUEUED,
        },
        formatters={"all": {"format": ALL}},
        loggers={__name__: {"level": "INFO", "handlers": ["queued"], "propagate": False}},
        configure_root_logger=False,
        disable_existing_loggers=False,
    )
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[says_in_a_thread]))
    try:
        async with running(Litestar(plugins=[plugin], logging_config=config)):
            row = await ended(plugin.client, await plugin.client.enqueue(says_in_a_thread()))
        (handler,) = logger.handlers
        stopped(handler.listener)  # type: ignore[attr-defined]
    finally:
        logger.handlers.clear()
        logger.propagate = True
    assert out.getvalue().splitlines() == [f"b|-|{row.id}|says_in_a_thread|logs|1"]


def stopped(listener: LoggingQueueListener) -> None:
    """Let the listener write what is queued."""
    listener.stop()
    atexit.unregister(listener.stop)


def test_a_queue_listener_that_formats_behind_the_queue_shows_the_span(inside: JobContext) -> None:
    """As Litestar configures it on Python 3.12: the formatter is with the listener's handler only."""
    out = io.StringIO()
    console = logging.StreamHandler(out)
    console.setFormatter(logging.Formatter(ALL))
    records: queue.Queue[logging.LogRecord] = queue.Queue()
    listener = LoggingQueueListener(records, console)
    logging.handlers.QueueHandler(records).handle(made())
    stopped(listener)
    assert out.getvalue() == f"hello|t1|{inside.id}|mail|q|2\n"


async def test_a_worker_finds_its_factory_gone_and_brings_it_back(dsn: str, lines: list[str]) -> None:
    """OpenTelemetry's instrumentation puts the factory back that it once found."""
    logging.setLogRecordFactory(logging.LogRecord)
    instrumentor = LoggingInstrumentor()
    instrumentor.instrument(inject_trace_context=True, enable_log_auto_instrumentation=False)
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[says_in_a_thread]))

    def uninstrument() -> None:
        instrumentor.uninstrument()
        assert logging.getLogRecordFactory() is logging.LogRecord

    async with running(Litestar(plugins=[plugin], on_startup=[uninstrument], logging_config=None)):
        row = await ended(plugin.client, await plugin.client.enqueue(says_in_a_thread()))
    assert lines == [f"b|-|{row.id}|says_in_a_thread|logs|1"]


# In requests.


@get("/")
async def log_something() -> None:
    logger.info("hello")
    await asyncio.to_thread(logger.info, "from a thread")
    structlog.get_logger().info("hello")


async def test_records_of_a_request_have_its_trace_id(lines: list[str]) -> None:
    app = Litestar([log_something], middleware=[TraceMiddleware("x-trace-id", lambda: None)], logging_config=None)
    with structlog.testing.capture_logs():
        async with running(app) as http:
            await http.get("/", headers={"x-trace-id": "t1"})
    logger.info("after")
    assert lines == ["hello|t1|-|-|-|0", "from a thread|t1|-|-|-|0", "after|-|-|-|-|0"]


# structlog


@pytest.fixture
def events() -> Iterator[list[dict[str, Any]]]:
    """What structlog is about to write, merged with its context."""
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as captured:
        yield captured  # type: ignore[misc]


@job(queue="logs")
async def says_it_structured(payload: Number, job: JobContext) -> None:
    structlog.contextvars.bind_contextvars(mine=payload.number)
    structlog.get_logger().info("hello")
    await asyncio.to_thread(structlog.get_logger().info, "hello")


async def test_structlog_has_the_span_of_each_job_and_no_other(dsn: str, events: list[dict[str, Any]]) -> None:
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[says_it_structured]))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        ids = await plugin.client.enqueue_many(says_it_structured(Number(number)) for number in range(5))
        for job_id in ids:
            await ended(plugin.client, job_id)
    expected = {"event": "hello", "log_level": "info", "job_type": "says_it_structured", "queue": "logs", "attempt": 1}
    assert sorted(events, key=lambda event: str(event["job_id"])) == [
        {**expected, "job_id": str(job_id), "mine": number} for number, job_id in enumerate(ids) for _ in range(2)
    ]
    assert structlog.contextvars.get_contextvars() == {}


async def test_structlog_has_the_trace_of_a_request_and_is_clean_afterwards(events: list[dict[str, Any]]) -> None:
    app = Litestar([log_something], middleware=[TraceMiddleware("x-trace-id", lambda: None)], logging_config=None)
    async with running(app) as http:
        await http.get("/", headers={"x-trace-id": "t1"})
        await http.get("/", headers={"x-trace-id": "t2"})
    assert [event["trace_id"] for event in events] == ["t1", "t2"]
    assert structlog.contextvars.get_contextvars() == {}


def test_what_was_bound_before_is_bound_again() -> None:
    def run() -> dict[str, Any]:
        structlog.contextvars.bind_contextvars(trace_id="outer", other=1)
        current_trace_id.set("inner")
        tokens = bind_structlog()
        assert structlog.contextvars.get_contextvars() == {"trace_id": "inner", "other": 1}
        reset_structlog(tokens)
        return structlog.contextvars.get_contextvars()

    assert Context().run(run) == {"trace_id": "outer", "other": 1}


def test_records_of_others_that_structlog_formats_have_the_span(inside: JobContext) -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
    )
    line = json.loads(formatter.format(made()))
    assert {name: line[name] for name in span_fields()} == dict(span_fields())


def test_an_application_without_structlog_does_not_get_it() -> None:
    program = (
        "import sys, litestar_jobs.logs as logs; "
        "sys.exit('structlog' in sys.modules or logs.bind_structlog() is not None)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


async def test_the_ids_in_a_span_are_those_of_the_row(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[says_in_a_thread]))
    with caplog.at_level(logging.INFO, logger.name):
        async with running(Litestar(plugins=[plugin], logging_config=None)):
            row = await ended(plugin.client, await plugin.client.enqueue(says_in_a_thread()))
    (record,) = [record for record in caplog.records if record.name == logger.name]
    assert UUID(record.job_id) == row.id  # type: ignore[attr-defined]
