"""The middleware that gives every request a trace id."""

from collections.abc import Callable

from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from litestar_jobs.logs import bind_structlog, reset_structlog
from litestar_jobs.trace import (
    CARRIER_HEADERS,
    accept,
    carrier_of,
    current_carrier,
    current_trace_id,
    new_trace_id,
    trace_id_of,
)

__all__ = ("TraceMiddleware",)

COMMON_HEADER = "x-request-id"


class TraceMiddleware(ASGIMiddleware):
    """Take the trace id of the request, or make one; keep it in this context; answer with it.

    In this order: the current OpenTelemetry span, a valid ``traceparent``, the trace header, ``x-request-id``. A
    header that is not one to 64 printable characters is ignored.
    """

    scopes = (ScopeType.HTTP, ScopeType.WEBSOCKET)

    def __init__(self, header: str, span_trace_id: Callable[[], str | None]) -> None:
        self._header = header.lower()
        self._span_trace_id = span_trace_id
        self._wanted = {name.encode(): name for name in (*CARRIER_HEADERS, self._header, COMMON_HEADER)}

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        header = self._given(scope).get
        trace_id = (
            self._span_trace_id()
            or trace_id_of(header("traceparent"))
            or accept(header(self._header))
            or accept(header(COMMON_HEADER))
            or new_trace_id()
        )
        answer = (self._header.encode(), trace_id.encode())

        async def send_with_header(message: Message) -> None:
            if message["type"] == "http.response.start" or message["type"] == "websocket.accept":
                # A list of its own: a response that is sent again must not carry the id of the first request.
                others = [pair for pair in message.get("headers", ()) if pair[0].lower() != answer[0]]
                message["headers"] = [*others, answer]
            await send(message)

        id_token = current_trace_id.set(trace_id)
        carrier_token = current_carrier.set(carrier_of(header))
        structlog_tokens = bind_structlog()
        try:
            await next_app(scope, receive, send_with_header)
        finally:
            reset_structlog(structlog_tokens)
            current_carrier.reset(carrier_token)
            current_trace_id.reset(id_token)

    def _given(self, scope: Scope) -> dict[str, str]:
        """The headers that matter here. One that comes twice is a list, which as an id is not valid."""
        given: dict[str, str] = {}
        for raw_name, raw_value in scope["headers"]:
            name = self._wanted.get(raw_name.lower())
            if name is not None:
                value = raw_value.decode("latin-1")
                given[name] = f"{given[name]}, {value}" if name in given else value
        return given
