"""The middleware that gives every request a trace id."""

from collections.abc import Callable

from litestar.datastructures import Headers, MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from litestar_jobs.logs import bind_structlog
from litestar_jobs.trace import accept, carrier_of, current_carrier, current_trace_id, new_trace_id, trace_id_of

__all__ = ("TraceMiddleware",)

COMMON_HEADER = "x-request-id"


class TraceMiddleware(ASGIMiddleware):
    """Take the trace id of the request, or make one; keep it in this context; answer with it.

    In this order: the current OpenTelemetry span, a valid ``traceparent``, the trace header, ``x-request-id``. A
    header that is not one to 64 printable characters is ignored.
    """

    scopes = (ScopeType.HTTP, ScopeType.WEBSOCKET)

    def __init__(self, header: str, span_trace_id: Callable[[], str | None]) -> None:
        self._header = header
        self._span_trace_id = span_trace_id

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        headers = Headers.from_scope(scope)
        trace_id = (
            self._span_trace_id()
            or trace_id_of(headers.get("traceparent"))
            or accept(headers.get(self._header))
            or accept(headers.get(COMMON_HEADER))
            or new_trace_id()
        )

        async def send_with_header(message: Message) -> None:
            if message["type"] in {"http.response.start", "websocket.accept"}:
                message.setdefault("headers", [])
                MutableScopeHeaders.from_message(message)[self._header] = trace_id
            await send(message)

        id_token = current_trace_id.set(trace_id)
        carrier_token = current_carrier.set(carrier_of(headers.get))
        bind_structlog()
        try:
            await next_app(scope, receive, send_with_header)
        finally:
            current_trace_id.reset(id_token)
            current_carrier.reset(carrier_token)
