"""What to tell workers of after jobs were written."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from litestar_jobs.request import JobRequest

__all__ = ("News", "delay_of")


class News:
    """What to tell workers of: queues with jobs that may run, and when the next scheduled one is due, by this machine's
    clock, which is good enough to set an alarm."""

    def __init__(self) -> None:
        self.ready: set[str] = set()
        self.due: datetime | None = None

    def add(self, requests: Iterable[JobRequest]) -> None:
        for request in requests:
            delay = delay_of(request)
            if delay <= 0:
                self.ready.add(request.queue)
                continue
            due = datetime.now(UTC) + timedelta(seconds=delay)
            self.due = due if self.due is None else min(self.due, due)


def delay_of(request: JobRequest) -> float:
    """Seconds until the job is due, by this machine's clock: good enough to set an alarm."""
    if request.run_at is not None:
        return (request.run_at - datetime.now(UTC)).total_seconds()
    return request.delay_seconds
