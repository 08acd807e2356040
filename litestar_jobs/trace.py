"""The trace: one id from the request, through the row, to every line that the job logs.

An id lives in a :class:`~contextvars.ContextVar`; whatever comes from outside is checked before it is kept.
"""

import re
import secrets
from collections.abc import Callable, Mapping
from contextvars import ContextVar

__all__ = ("accept", "current_carrier", "current_trace_id", "new_trace_id", "trace_id_of")

current_trace_id: ContextVar[str | None] = ContextVar("litestar_jobs_trace_id", default=None)
"""The trace id of the request or the job that runs in this context."""

current_carrier: ContextVar[Mapping[str, str] | None] = ContextVar("litestar_jobs_carrier", default=None)
"""W3C headers (``traceparent``, ``tracestate``, ``baggage``) of the request or the job in this context."""

CARRIER_HEADERS = ("traceparent", "tracestate", "baggage")
MAX_CARRIED = 8192
"""Bytes of one carried header; the W3C asks for at least 512 of tracestate and 8192 of baggage."""

ACCEPTED = re.compile(r"[\x21-\x7e]{1,64}\Z")
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?\Z")


def accept(value: str | None) -> str | None:
    """The id if it is one to 64 printable characters, else None: what clients send must not reach logs unseen."""
    return value if value is not None and ACCEPTED.match(value) else None


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace id in a W3C ``traceparent`` header, None if it is not valid."""
    match = TRACEPARENT.match(traceparent) if traceparent else None
    return match[1] if match else None


def new_trace_id() -> str:
    """A random id in the form of the W3C's."""
    return secrets.token_hex(16)


def carrier_of(header: Callable[[str], str | None]) -> Mapping[str, str] | None:
    """The W3C headers of a request, None without a valid ``traceparent``."""
    if trace_id_of(header("traceparent")) is None:
        return None
    found = ((name, header(name)) for name in CARRIER_HEADERS)
    return {name: value for name, value in found if value and len(value) <= MAX_CARRIED and value.isprintable()}
