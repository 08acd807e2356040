from datetime import UTC, datetime, timedelta
from uuid import UUID

from msgspec import Struct

from litestar_jobs import JobsClient, job


class Report(Struct):
    year: int


@job(queue="reports", priority=10)
async def write_report(payload: Report) -> None: ...


@job
async def tidy_up() -> None: ...


async def enqueue_some(jobs: JobsClient) -> list[UUID]:
    report = Report(year=2026)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    return [
        await jobs.enqueue(write_report(report)),
        await jobs.enqueue(write_report(report, priority=-5)),  # before others
        await jobs.enqueue(
            write_report(report, delay=60)
        ),  # seconds, or a timedelta
        await jobs.enqueue(write_report(report, run_at=tomorrow)),  # aware
        await jobs.enqueue(write_report(report, queue="urgent", max_retries=0)),
        # In one transaction:
        *await jobs.enqueue_many(
            [tidy_up(), tidy_up(delay=timedelta(hours=1))]
        ),
    ]
