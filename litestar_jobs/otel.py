"""OpenTelemetry: enqueues are PRODUCER spans, attempts are CONSUMER spans.

Names and attributes follow the semantic conventions for messaging. The first attempt is a child of its enqueue; a
retry begins a trace of its own that links to it, because it may come hours later. Baggage reaches every attempt.
"""

import logging
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib.metadata import version
from uuid import UUID

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NoOpTracerProvider, ProxyTracerProvider, Span, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from litestar_jobs.context import JobContext
from litestar_jobs.request import JobRequest
from litestar_jobs.telemetry import NOBODY
from litestar_jobs.trace import current_carrier

__all__ = ("OpenTelemetryTracing",)

logger = logging.getLogger("litestar_jobs")

SYSTEM = "litestar_jobs"
LOOK_PAUSE = 0.001
"""Seconds between two looks for a provider. Each reads the environment, and takes a twentieth of what a job takes."""


class OpenTelemetryTracing:
    """Joins enqueues and attempts to the traces of the application, through the global tracer provider.

    As long as no provider is set there are no spans, and what a request brought is passed on as it is.
    """

    def __init__(self) -> None:
        self._tracer = trace.get_tracer(SYSTEM, version("litestar-jobs"))
        self._has_provider = False
        self._look_at = 0.0

    def trace_id(self) -> str | None:
        """The id of the current span's trace."""
        current = trace.get_current_span().get_span_context()
        return trace.format_trace_id(current.trace_id) if current.is_valid else None

    def enqueue(
        self, requests: Sequence[JobRequest], ids: Sequence[UUID]
    ) -> AbstractContextManager[Mapping[str, str] | None]:
        """A PRODUCER span around the write; gives its carrier."""
        return self._producer(requests, ids) if self._is_on() else nullcontext(current_carrier.get())

    def attempt(
        self, job: JobContext, carrier: Mapping[str, str] | None
    ) -> AbstractContextManager[Callable[[BaseException], None]]:
        """A CONSUMER span around the attempt, in the context that was stored with the job."""
        return self._consumer(job, carrier) if self._is_on() else NOBODY

    def _is_on(self) -> bool:
        """A provider can be set at any time, but only once."""
        if not self._has_provider and (now := time.monotonic()) >= self._look_at:
            self._look_at = now + LOOK_PAUSE
            provider = trace.get_tracer_provider()
            self._has_provider = not isinstance(provider, ProxyTracerProvider | NoOpTracerProvider)
        return self._has_provider

    @contextmanager
    def _producer(
        self, requests: Sequence[JobRequest], ids: Sequence[UUID]
    ) -> Generator[Mapping[str, str] | None, None, None]:
        came_from = _surroundings()
        name, attributes = _description(requests, ids)
        with self._tracer.start_as_current_span(name, came_from, SpanKind.PRODUCER, attributes) as span:
            carrier: dict[str, str] = {}
            propagate.inject(carrier, trace.set_span_in_context(span, came_from))
            try:
                yield carrier or None
            except Exception as error:
                span.set_attribute("error.type", _type_of(error))
                raise

    @contextmanager
    def _consumer(
        self, job: JobContext, carrier: Mapping[str, str] | None
    ) -> Generator[Callable[[BaseException], None], None, None]:
        try:
            span, surroundings = self._begin(job, carrier)
        except Exception:
            logger.exception("OpenTelemetry raised, attempt %d of %s %s has no span", job.attempt, job.job_type, job.id)
            span, surroundings = trace.INVALID_SPAN, Context()
        attached = otel_context.attach(surroundings)
        try:
            yield partial(_record, span)
        finally:
            otel_context.detach(attached)
            try:
                span.end()
            except Exception:
                logger.exception("OpenTelemetry raised when the span of %s %s ended", job.job_type, job.id)

    def _begin(self, job: JobContext, carrier: Mapping[str, str] | None) -> tuple[Span, Context]:
        came_with = propagate.extract(carrier or {}, Context())
        links: list[Link] = []
        if job.attempt > 1:
            enqueued = trace.get_current_span(came_with).get_span_context()
            links = [Link(enqueued)] if enqueued.is_valid else []
            came_with = trace.set_span_in_context(trace.INVALID_SPAN, came_with)
        attributes: dict[str, AttributeValue] = {
            "messaging.system": SYSTEM,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": job.queue,
            "messaging.message.id": str(job.id),
            "litestar_jobs.job_type": job.job_type,
            "litestar_jobs.attempt": job.attempt,
        }
        span = self._tracer.start_span(f"process {job.queue}", came_with, SpanKind.CONSUMER, attributes, links)
        return span, trace.set_span_in_context(span, came_with)


def _surroundings() -> Context:
    """Where an enqueue happens: in the current span; without one, in what the request or the job came with."""
    current = otel_context.get_current()
    if trace.get_current_span(current).get_span_context().is_valid:
        return current
    return propagate.extract(current_carrier.get() or {}, current)


def _description(requests: Sequence[JobRequest], ids: Sequence[UUID]) -> tuple[str, dict[str, AttributeValue]]:
    """The name and the attributes of a PRODUCER span."""
    attributes: dict[str, AttributeValue] = {
        "messaging.system": SYSTEM,
        "messaging.operation.name": "enqueue",
        "messaging.operation.type": "send",
    }
    if len(requests) == 1:
        attributes["messaging.message.id"] = str(ids[0])
        attributes["messaging.message.body.size"] = len(requests[0].payload)
        attributes["litestar_jobs.job_type"] = requests[0].job_type
    else:
        attributes["messaging.batch.message_count"] = len(requests)
    queue, *others = {request.queue for request in requests}
    if others:
        return "enqueue", attributes
    attributes["messaging.destination.name"] = queue
    return f"enqueue {queue}", attributes


def _record(span: Span, error: BaseException) -> None:
    try:
        span.set_attribute("error.type", _type_of(error))
        span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
    except Exception:
        logger.exception("OpenTelemetry raised when it was told of a %s", type(error).__name__)


def _type_of(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
