"""OpenTelemetry: enqueues and attempts are spans of the application's traces, and nothing needs it."""

import asyncio
import logging
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest
from litestar import Litestar, post
from litestar.plugins.opentelemetry import OpenTelemetryConfig, OpenTelemetryPlugin
from msgspec import Struct
from opentelemetry import baggage, propagate, trace
from opentelemetry._logs import get_logger_provider, set_logger_provider
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanKind, StatusCode
from sqlalchemy.ext.asyncio import create_async_engine
from uuid_utils.compat import uuid7

from litestar_jobs import Fixed, JobContext, Jobs, JobsConfig, JobsPlugin, Never, WorkerConfig, job
from litestar_jobs.errors import EnqueueError
from litestar_jobs.otel import OpenTelemetryTracing
from litestar_jobs.testing import ended, running, until
from litestar_jobs.trace import current_carrier, current_trace_id

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"

logger = logging.getLogger(__name__)
tracer = trace.get_tracer(__name__)

EXPORTER = InMemorySpanExporter()
LOGS = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # it is not annotated


@pytest.fixture(scope="session")
def _sdk() -> None:
    """Providers are global, and can be set once in a process."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(EXPORTER))
    trace.set_tracer_provider(provider)
    log_provider = LoggerProvider()
    log_provider.add_log_record_processor(SimpleLogRecordProcessor(LOGS))
    set_logger_provider(log_provider)


@pytest.fixture
def spans(_sdk: None) -> Iterator[InMemorySpanExporter]:
    """What was exported in this test."""
    EXPORTER.clear()
    LOGS.clear()
    yield EXPORTER
    EXPORTER.clear()


def of_kind(spans: InMemorySpanExporter, kind: SpanKind) -> list[ReadableSpan]:
    """The finished spans of a kind, in the order in which they began."""
    return sorted(
        (span for span in spans.get_finished_spans() if span.kind is kind), key=lambda span: span.start_time or 0
    )


def context_of(span: ReadableSpan) -> trace.SpanContext:
    context: trace.SpanContext | None = span.context
    assert context is not None
    return context


def attributes_of(span: ReadableSpan) -> Mapping[str, Any]:
    return dict(span.attributes or {})


def plugin_for(dsn: str, jobs: Sequence[Any], **settings: Any) -> JobsPlugin:
    return JobsPlugin(JobsConfig(dsn=dsn, jobs=jobs, **settings))


def app_with(plugin: JobsPlugin, *handlers: Any) -> Litestar:
    return Litestar(handlers, plugins=[plugin], logging_config=None)


class Order(Struct):
    number: int


SEEN: dict[int, Any] = {}


@job(queue="orders", retry=Fixed(0), max_retries=2)
async def ship(payload: Order, job: JobContext) -> None:
    SEEN[job.attempt] = (trace.get_current_span().get_span_context(), baggage.get_baggage("who"))
    logger.warning("shipping %d", payload.number)
    if job.attempt <= payload.number:
        raise ValueError(f"attempt {job.attempt}")


@job(queue="orders", retry=Never())
async def leads_on(*, jobs: Jobs) -> None:
    await jobs.enqueue(ship(Order(0)))


# Enqueues.


async def test_the_attempt_of_a_slot_is_in_the_trace_that_its_row_names(dsn: str, spans: InMemorySpanExporter) -> None:
    traces: list[str | None] = []

    @job(every=1)
    async def tick(*, job: JobContext) -> None:
        traces.append(job.trace_id)

    async def ran() -> bool:
        return len(of_kind(spans, SpanKind.CONSUMER)) >= 2

    with tracer.start_as_current_span("around"):
        async with running(app_with(plugin_for(dsn, [tick]))):
            await until(ran)
    consumers = [trace.format_trace_id(context_of(span).trace_id) for span in of_kind(spans, SpanKind.CONSUMER)]
    assert consumers == traces
    assert len(set(traces)) == len(traces)
    assert of_kind(spans, SpanKind.PRODUCER) == []


async def test_an_enqueue_is_a_producer_span_named_and_described_by_the_conventions(
    dsn: str, spans: InMemorySpanExporter
) -> None:
    plugin = plugin_for(dsn, [ship], worker=None)
    async with running(app_with(plugin)):
        with tracer.start_as_current_span("around") as around:
            job_id = await plugin.client.enqueue(ship(Order(1)))
    (span,) = of_kind(spans, SpanKind.PRODUCER)
    assert span.name == "enqueue orders"
    assert span.parent == around.get_span_context()
    assert span.status.status_code is StatusCode.UNSET
    assert attributes_of(span) == {
        "messaging.system": "litestar_jobs",
        "messaging.operation.name": "enqueue",
        "messaging.operation.type": "send",
        "messaging.destination.name": "orders",
        "messaging.message.id": str(job_id),
        "messaging.message.body.size": len(b'{"number":1}'),
        "litestar_jobs.job_type": "ship",
    }


async def test_an_enqueue_in_somebodys_transaction_is_one_too(dsn: str, spans: InMemorySpanExporter) -> None:
    plugin = plugin_for(dsn, [ship], worker=None)
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"))
    try:
        async with running(app_with(plugin)), engine.begin() as connection:
            job_id = await plugin.client.enqueue_with(connection, ship(Order(1)))
    finally:
        await engine.dispose()
    (span,) = of_kind(spans, SpanKind.PRODUCER)
    assert (span.name, attributes_of(span)["messaging.message.id"]) == ("enqueue orders", str(job_id))


@pytest.mark.parametrize(
    ("queues", "name", "destination"), [(["a", "a"], "enqueue a", "a"), (["a", "b"], "enqueue", None)]
)
async def test_many_are_one_span_with_their_number(
    queues: list[str], name: str, destination: str | None, dsn: str, spans: InMemorySpanExporter
) -> None:
    plugin = plugin_for(dsn, [ship], worker=None)
    async with running(app_with(plugin)):
        await plugin.client.enqueue_many(ship(Order(1), queue=queue) for queue in queues)
    (span,) = of_kind(spans, SpanKind.PRODUCER)
    attributes = attributes_of(span)
    assert span.name == name
    assert attributes["messaging.batch.message_count"] == 2
    assert attributes.get("messaging.destination.name") == destination
    assert "messaging.message.id" not in attributes


async def test_an_enqueue_that_fails_says_why(dsn: str, spans: InMemorySpanExporter) -> None:
    plugin = plugin_for(dsn, [ship], worker=None, migrate="never")
    async with running(app_with(plugin)):
        connection = await asyncpg.connect(dsn)
        await connection.execute("ALTER TABLE litestar_jobs.job RENAME TO gone")
        try:
            with pytest.raises(EnqueueError):
                await plugin.client.enqueue(ship(Order(1)))
        finally:
            await connection.execute("ALTER TABLE litestar_jobs.gone RENAME TO job")
            await connection.close()
    (span,) = of_kind(spans, SpanKind.PRODUCER)
    assert span.status.status_code is StatusCode.ERROR
    assert attributes_of(span)["error.type"].startswith("litestar_jobs.errors.")
    assert [event.name for event in span.events] == ["exception"]


# Attempts.


async def test_the_first_attempt_is_a_consumer_span_and_a_child_of_its_enqueue(
    dsn: str, spans: InMemorySpanExporter
) -> None:
    plugin = plugin_for(dsn, [ship])
    async with running(app_with(plugin)):
        job_id = await plugin.client.enqueue(ship(Order(0)))
        await ended(plugin.client, job_id)
    (producer,) = of_kind(spans, SpanKind.PRODUCER)
    (consumer,) = of_kind(spans, SpanKind.CONSUMER)
    assert consumer.name == "process orders"
    assert consumer.parent is not None
    assert consumer.parent.span_id == context_of(producer).span_id
    assert context_of(consumer).trace_id == context_of(producer).trace_id
    assert consumer.links == ()
    assert consumer.status.status_code is StatusCode.UNSET
    assert attributes_of(consumer) == {
        "messaging.system": "litestar_jobs",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "orders",
        "messaging.message.id": str(job_id),
        "litestar_jobs.job_type": "ship",
        "litestar_jobs.attempt": 1,
    }
    assert SEEN[1][0] == consumer.context


async def test_a_retry_begins_a_trace_that_links_to_the_enqueue_and_a_failure_is_recorded(
    dsn: str, spans: InMemorySpanExporter
) -> None:
    plugin = plugin_for(dsn, [ship])
    async with running(app_with(plugin)):
        row = await ended(plugin.client, await plugin.client.enqueue(ship(Order(1))))
    (producer,) = of_kind(spans, SpanKind.PRODUCER)
    first, second = of_kind(spans, SpanKind.CONSUMER)

    assert first.status.status_code is StatusCode.ERROR
    assert first.status.description == "ValueError: attempt 1"
    assert attributes_of(first)["error.type"] == "ValueError"
    assert [event.name for event in first.events] == ["exception"]

    assert second.parent is None
    assert context_of(second).trace_id != context_of(producer).trace_id
    assert [link.context.span_id for link in second.links] == [context_of(producer).span_id]
    assert second.status.status_code is StatusCode.UNSET
    assert attributes_of(second)["litestar_jobs.attempt"] == 2
    assert row.trace_id == trace.format_trace_id(context_of(producer).trace_id)


async def test_baggage_reaches_every_attempt(dsn: str, spans: InMemorySpanExporter) -> None:
    plugin = plugin_for(dsn, [ship])

    @post("/")
    async def order(jobs: Jobs) -> str:
        return str(await jobs.enqueue(ship(Order(1))))

    headers = {"traceparent": TRACEPARENT, "baggage": "who=me"}
    async with running(app_with(plugin, order)) as http:
        response = await http.post("/", headers=headers)
        row = await ended(plugin.client, UUID(response.text))
    assert (SEEN[1][1], SEEN[2][1]) == ("me", "me")
    assert row.trace_id == TRACE
    (producer,) = of_kind(spans, SpanKind.PRODUCER)
    assert producer.parent is not None
    assert trace.format_span_id(producer.parent.span_id) == SPAN


async def test_follow_up_jobs_are_in_the_same_trace(
    dsn: str, spans: InMemorySpanExporter, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    plugin = plugin_for(dsn, [ship, leads_on])
    async with running(app_with(plugin)):
        await plugin.client.enqueue(leads_on())
        done = "SELECT count(*) = 2 FROM litestar_jobs.finished"
        await until(lambda: connection.fetchval(done))
    outer, inner = of_kind(spans, SpanKind.PRODUCER)
    leading, shipping = of_kind(spans, SpanKind.CONSUMER)
    assert inner.parent is not None
    assert inner.parent.span_id == context_of(leading).span_id
    assert {context_of(span).trace_id for span in (outer, inner, leading, shipping)} == {context_of(outer).trace_id}
    rows = await connection.fetch("SELECT trace_id, headers FROM litestar_jobs.job ORDER BY id")
    assert {row["trace_id"] for row in rows} == {trace.format_trace_id(context_of(outer).trace_id)}


async def test_an_interrupted_attempt_is_no_error(dsn: str, spans: InMemorySpanExporter) -> None:
    entered = asyncio.Event()

    @job(queue="orders")
    async def waits() -> None:
        entered.set()
        await asyncio.Event().wait()

    plugin = plugin_for(dsn, [waits], worker=WorkerConfig(shutdown_timeout=0))
    async with running(app_with(plugin)):
        await plugin.client.enqueue(waits())
        await entered.wait()
    (consumer,) = of_kind(spans, SpanKind.CONSUMER)
    assert consumer.status.status_code is StatusCode.UNSET
    assert consumer.events == ()
    assert "error.type" not in attributes_of(consumer)


async def test_what_is_no_exception_but_fails_a_job_is_an_error_too(dsn: str, spans: InMemorySpanExporter) -> None:
    @job(queue="orders", retry=Never())
    async def exits() -> None:
        raise SystemExit(3)

    plugin = plugin_for(dsn, [exits])
    async with running(app_with(plugin)):
        await ended(plugin.client, await plugin.client.enqueue(exits()))
    (consumer,) = of_kind(spans, SpanKind.CONSUMER)
    assert attributes_of(consumer)["error.type"] == "SystemExit"


async def test_an_error_that_cannot_be_printed_fails_its_job_and_nothing_else(
    dsn: str, spans: InMemorySpanExporter
) -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    @job(queue="orders", retry=Never())
    async def raises() -> None:
        raise Unprintable

    plugin = plugin_for(dsn, [raises], worker=WorkerConfig(concurrency=1))
    async with running(app_with(plugin)):
        for _ in range(2):
            row = await ended(plugin.client, await plugin.client.enqueue(raises()))
            assert row.status.value == "failed"
    for consumer in of_kind(spans, SpanKind.CONSUMER):
        assert attributes_of(consumer)["error.type"].endswith("Unprintable")


async def test_tracing_that_breaks_does_not_break_the_job(
    dsn: str, spans: InMemorySpanExporter, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            if span.kind is SpanKind.CONSUMER:
                raise RuntimeError("broken processor")

    plugin = plugin_for(dsn, [ship])
    provider: Any = trace.get_tracer_provider()
    processors = provider._active_span_processor
    monkeypatch.setattr(processors, "_span_processors", (*processors._span_processors, Broken()))
    async with running(app_with(plugin)):
        row = await ended(plugin.client, await plugin.client.enqueue(ship(Order(0))))
    assert row.status.value == "completed"
    assert f"attempt 1 of ship {row.id} has no span" in caplog.text


# Requests and logs.


async def test_the_servers_span_gives_the_trace_id(dsn: str, spans: InMemorySpanExporter) -> None:
    @post("/")
    async def order(jobs: Jobs) -> str:
        return str(await jobs.enqueue(ship(Order(0))))

    plugin = plugin_for(dsn, [ship])
    otel = OpenTelemetryPlugin(OpenTelemetryConfig())
    async with running(Litestar([order], plugins=[plugin, otel], logging_config=None)) as http:
        response = await http.post("/", headers={"x-trace-id": "mine"})
        row = await ended(plugin.client, UUID(response.text))
    (server,) = of_kind(spans, SpanKind.SERVER)
    (producer,) = of_kind(spans, SpanKind.PRODUCER)
    trace_id = trace.format_trace_id(context_of(server).trace_id)
    assert response.headers["x-trace-id"] == trace_id
    assert row.trace_id == trace_id
    assert producer.parent is not None
    assert producer.parent.span_id == context_of(server).span_id


async def test_logs_of_an_attempt_carry_its_span_and_our_attributes(dsn: str, spans: InMemorySpanExporter) -> None:
    plugin = plugin_for(dsn, [ship])
    handler = LoggingHandler(logger_provider=get_logger_provider())
    ours = logging.getLogger("litestar_jobs")
    for one in (logger, ours):
        one.addHandler(handler)
    try:
        async with running(app_with(plugin)):
            row = await ended(plugin.client, await plugin.client.enqueue(ship(Order(1))))
    finally:
        for one in (logger, ours):
            one.removeHandler(handler)
    consumers = {context_of(span).span_id: span for span in of_kind(spans, SpanKind.CONSUMER)}
    records = [data.log_record for data in LOGS.get_finished_logs()]
    shipping = [record for record in records if str(record.body).startswith("shipping")]
    failures = [record for record in records if "attempt 1 of 3 failed" in str(record.body)]
    assert (len(shipping), len(failures)) == (2, 1)
    for record in shipping + failures:
        attributes = dict(record.attributes or {})
        span = consumers[record.span_id or 0]
        assert record.trace_id == context_of(span).trace_id
        assert attributes["attempt"] == attributes_of(span)["litestar_jobs.attempt"]
        assert attributes["job_id"] == str(row.id)
        assert (attributes["job_type"], attributes["queue"], attributes["trace_id"]) == ("ship", "orders", row.trace_id)


# Without a provider, and without OpenTelemetry.


def test_without_a_provider_there_are_no_spans_and_carriers_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    tracing = OpenTelemetryTracing()
    context = JobContext(
        id=uuid7(), job_type="ship", queue="q", attempt=1, max_retries=0, trace_id=None, enqueued_at=datetime.now(UTC)
    )
    carrier = {"traceparent": TRACEPARENT}
    token = current_carrier.set(carrier)
    try:
        with tracing.enqueue([ship(Order(1))], [uuid7()]) as passed_on:
            assert passed_on == carrier
            assert tracing.trace_id() is None
        with tracing.attempt(context, carrier):
            assert trace.get_current_span() is trace.INVALID_SPAN
    finally:
        current_carrier.reset(token)


async def test_a_trace_that_is_not_sampled_is_passed_on_as_that(dsn: str, spans: InMemorySpanExporter) -> None:
    plugin = plugin_for(dsn, [ship], worker=None)
    connection = await asyncpg.connect(dsn)
    not_sampled = NonRecordingSpan(trace.SpanContext(int(TRACE, 16), int(SPAN, 16), is_remote=True))
    try:
        async with running(app_with(plugin)):
            with trace.use_span(not_sampled):
                job_id = await plugin.client.enqueue(ship(Order(1)))
        headers = await connection.fetchval("SELECT headers FROM litestar_jobs.job WHERE id = $1", job_id)
    finally:
        await connection.close()
    carried = trace.get_current_span(propagate.extract(msgspec.json.decode(headers))).get_span_context()
    assert trace.format_trace_id(carried.trace_id) == TRACE
    assert not carried.trace_flags.sampled
    assert spans.get_finished_spans() == ()


PROGRAM = """
import asyncio, logging, sys
{block}
from litestar import Litestar, post
from litestar_jobs import Jobs, JobsConfig, JobsPlugin, job
from litestar_jobs.testing import ended, running
from litestar_jobs.trace import current_carrier
from uuid import UUID

@job
async def tell() -> None:
    logging.getLogger("told").warning("carrier %s", dict(current_carrier.get()))

@post("/")
async def handler(jobs: Jobs) -> str:
    return str(await jobs.enqueue(tell()))

async def main() -> None:
    logging.basicConfig(format="%(trace_id)s %(job_id)s %(message)s", level="WARNING", stream=sys.stdout)
    plugin = JobsPlugin(JobsConfig(dsn={dsn!r}, jobs=[tell]))
    async with running(Litestar([handler], plugins=[plugin], logging_config=None)) as http:
        response = await http.post("/", headers={{"traceparent": {traceparent!r}}})
        row = await ended(plugin.client, UUID(response.text))
    print(row.trace_id, row.id, row.status.value, "opentelemetry.sdk.trace" in sys.modules)

asyncio.run(main())
"""

MISSING = "sys.modules['opentelemetry'] = None"
EMPTY = """
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
# The name is shared, and stays behind: a namespace without the API.
sys.modules["opentelemetry"] = module_from_spec(ModuleSpec("opentelemetry", None, is_package=True))
"""


@pytest.mark.parametrize("block", [MISSING, EMPTY, ""], ids=["not installed", "an empty namespace", "only the API"])
async def test_a_job_with_its_trace_needs_no_opentelemetry(block: str, dsn: str) -> None:
    program = PROGRAM.format(block=block, dsn=dsn, traceparent=TRACEPARENT)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    told, done = out.decode().splitlines()
    assert re.fullmatch(rf"{TRACE} [0-9a-f-]{{36}} carrier {{'traceparent': '{TRACEPARENT}'}}", told)
    assert re.fullmatch(rf"{TRACE} [0-9a-f-]{{36}} completed False", done)


async def test_the_trace_of_the_request_goes_before_a_span_of_the_handler(
    dsn: str, spans: InMemorySpanExporter
) -> None:
    """All that a request causes has one trace id, whatever spans a handler opens."""
    plugin = plugin_for(dsn, [ship], worker=None)
    async with running(app_with(plugin)):
        token = current_trace_id.set("of-the-request")
        with tracer.start_as_current_span("around"):
            row = await plugin.client.get(await plugin.client.enqueue(ship(Order(1))))
        current_trace_id.reset(token)
    assert row is not None
    assert row.trace_id == "of-the-request"
