"""The logging span: every record made in a job or a request says which.

A record factory is the only hook that runs where the record is made: filters and handlers may run in the thread of a
queue listener, where the context is another. structlog has context variables of its own; they are bound as well.
"""

import logging
import sys
from collections.abc import Mapping
from contextvars import Token
from typing import Any

from litestar_jobs.context import current_job
from litestar_jobs.trace import current_trace_id

__all__ = ("bind_structlog", "install_record_factory", "reset_structlog", "span_fields")

ABSENT = "-"
OUTSIDE = {"trace_id": ABSENT, "job_id": ABSENT, "job_type": ABSENT, "queue": ABSENT, "attempt": 0}


class _Fields(dict[str, Any]):
    """The attributes of a record. Ours do not count as present, so that ``extra={"queue": ...}`` of anybody's own
    is no conflict and wins. Copies are plain: who unpickles a record needs nothing of ours."""

    def __contains__(self, key: object) -> bool:
        return key not in OUTSIDE and super().__contains__(key)

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)


def span_fields() -> Mapping[str, Any]:
    """``trace_id``, ``job_id``, ``job_type``, ``queue`` and ``attempt`` of this context; ``-`` where there is none."""
    job = current_job.get()
    if job is None:
        trace_id = current_trace_id.get()
        return OUTSIDE if trace_id is None else {**OUTSIDE, "trace_id": trace_id}
    return {
        "trace_id": job.trace_id or ABSENT,
        "job_id": str(job.id),
        "job_type": job.job_type,
        "queue": job.queue,
        "attempt": job.attempt,
    }


def install_record_factory() -> None:
    """Put the span on every record from now on, on top of the factory that is there. Harmless if records have it."""
    inner = logging.getLogRecordFactory()
    probe = inner(__name__, logging.NOTSET, "", 0, "", (), None)
    if isinstance(probe.__dict__, _Fields):
        return

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = inner(*args, **kwargs)
        fields = _Fields(record.__dict__)
        fields.update(span_fields())
        record.__dict__ = fields
        return record

    logging.setLogRecordFactory(factory)


def bind_structlog() -> Mapping[str, Token[Any]] | None:
    """Bind the span for structlog in this context, if the application uses structlog. Gives what undoes it."""
    contextvars = sys.modules.get("structlog.contextvars")
    if contextvars is None:
        return None
    bound = {name: value for name, value in span_fields().items() if value != OUTSIDE[name]}
    tokens: Mapping[str, Token[Any]] = contextvars.bind_contextvars(**bound)
    return tokens


def reset_structlog(tokens: Mapping[str, Token[Any]] | None) -> None:
    """Bind again what was bound before."""
    if tokens:
        sys.modules["structlog.contextvars"].reset_contextvars(**tokens)
