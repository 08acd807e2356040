"""OpenTelemetry: enqueues are PRODUCER spans, attempts are CONSUMER spans.

Names and attributes follow the semantic conventions for messaging. The first attempt is a child of its enqueue; a
retry begins a trace of its own that links to it, because it may come hours later. Baggage reaches every attempt.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from uuid import UUID

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.trace import Link, SpanKind
from opentelemetry.util.types import AttributeValue

from litestar_jobs.context import JobContext
from litestar_jobs.request import JobRequest

__all__ = ("OpenTelemetryTracing",)

SYSTEM = "litestar_jobs"
INSTRUMENTATION = "litestar_jobs"


class OpenTelemetryTracing:
    """Joins enqueues and attempts to the traces of the application, through the global tracer provider."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer(INSTRUMENTATION)

    def trace_id(self) -> str | None:
        """The id of the current span's trace."""
        current = trace.get_current_span().get_span_context()
        return trace.format_trace_id(current.trace_id) if current.is_valid else None

    @contextmanager
    def enqueue(self, requests: Sequence[JobRequest], ids: Sequence[UUID]) -> Iterator[Mapping[str, str] | None]:
        """A PRODUCER span around the write; gives its carrier."""
        queues = {request.queue for request in requests}
        queue = next(iter(queues)) if len(queues) == 1 else None
        attributes: dict[str, AttributeValue] = {
            "messaging.system": SYSTEM,
            "messaging.operation.name": "enqueue",
            "messaging.operation.type": "send",
        }
        if queue is not None:
            attributes["messaging.destination.name"] = queue
        if len(requests) == 1:
            attributes["messaging.message.id"] = str(ids[0])
            attributes["messaging.message.body.size"] = len(requests[0].payload)
            attributes["litestar_jobs.job_type"] = requests[0].job_type
        else:
            attributes["messaging.batch.message_count"] = len(requests)
        name = "enqueue" if queue is None else f"enqueue {queue}"
        with self._tracer.start_as_current_span(name, kind=SpanKind.PRODUCER, attributes=attributes):
            carrier: dict[str, str] = {}
            propagate.inject(carrier)
            yield carrier or None

    @contextmanager
    def attempt(self, job: JobContext, carrier: Mapping[str, str] | None) -> Iterator[None]:
        """A CONSUMER span around the attempt, in the context that was stored with the job."""
        came_with = propagate.extract(carrier or {}, otel_context.Context())
        enqueued = trace.get_current_span(came_with).get_span_context()
        links = []
        if job.attempt > 1:
            links = [Link(enqueued)] if enqueued.is_valid else []
            came_with = trace.set_span_in_context(trace.INVALID_SPAN, came_with)
        attached = otel_context.attach(came_with)
        try:
            with self._tracer.start_as_current_span(
                f"process {job.queue}",
                kind=SpanKind.CONSUMER,
                links=links,
                attributes={
                    "messaging.system": SYSTEM,
                    "messaging.operation.name": "process",
                    "messaging.operation.type": "process",
                    "messaging.destination.name": job.queue,
                    "messaging.message.id": str(job.id),
                    "litestar_jobs.job_type": job.job_type,
                    "litestar_jobs.attempt": job.attempt,
                },
            ):
                yield
        finally:
            otel_context.detach(attached)
