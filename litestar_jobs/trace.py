"""The trace: one id from the request, through the row, to every line that the job logs.

An id lives in a :class:`~contextvars.ContextVar`; whatever comes from outside is checked before it is kept.
"""

import re
import secrets
from collections.abc import Callable, Mapping
from contextvars import ContextVar

__all__ = (
    "CARRIER_HEADERS",
    "accept",
    "carrier_of",
    "current_carrier",
    "current_trace_id",
    "new_carrier",
    "new_trace_id",
    "trace_id_of",
)

current_trace_id: ContextVar[str | None] = ContextVar("litestar_jobs_trace_id", default=None)
"""The trace id of the request or the job that runs in this context."""

current_carrier: ContextVar[Mapping[str, str] | None] = ContextVar("litestar_jobs_carrier", default=None)
"""W3C headers (``traceparent``, ``tracestate``, ``baggage``) of the request or the job in this context."""

CARRIER_HEADERS = ("traceparent", "tracestate", "baggage")
MAX_TRACESTATE, MAX_BAGGAGE = 512, 8192
"""What the W3C asks everybody to pass on; longer ones are dropped whole."""

ACCEPTED = re.compile(r"[\x21-\x7e]{1,64}\Z")
TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    r"(?P<more>-[\x20-\x7e]{0,200})?\Z"
)


def accept(value: str | None) -> str | None:
    """The id if it is one to 64 printable characters, else None: what clients send must not reach logs unseen."""
    return value if value is not None and ACCEPTED.match(value) else None


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace id in a W3C ``traceparent`` header, None if it is not valid. Versions after 00 may append fields."""
    match = TRACEPARENT.match(traceparent) if traceparent else None
    if match is None or (match["version"] == "00" and match["more"]):
        return None
    return match["trace"]


def new_trace_id() -> str:
    """A random id in the form of the W3C's."""
    return secrets.token_hex(16)


def new_carrier(trace_id: str) -> Mapping[str, str]:
    """W3C headers of a trace that begins here, with nothing that has a span of its own."""
    return {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}


def carrier_of(header: Callable[[str], str | None]) -> Mapping[str, str] | None:
    """The W3C headers of a request that are valid, None if none is. ``tracestate`` goes with ``traceparent`` only."""
    carrier: dict[str, str] = {}
    traceparent = header("traceparent")
    if traceparent is not None and trace_id_of(traceparent) is not None:
        carrier["traceparent"] = traceparent
        _carry(carrier, "tracestate", header("tracestate"), MAX_TRACESTATE)
    _carry(carrier, "baggage", header("baggage"), MAX_BAGGAGE)
    return carrier or None


def _carry(carrier: dict[str, str], name: str, value: str | None, most: int) -> None:
    if value and len(value) <= most and value.isascii() and value.isprintable():
        carrier[name] = value
