"""What type checkers make of enqueuing. Never run: each line that must not pass says with which error it fails."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from datetime import timedelta
from typing import Any, assert_type
from uuid import UUID

from litestar import post
from litestar.di import NamedDependency
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncSession

from litestar_jobs import (
    JobContext,
    JobFilter,
    JobId,
    JobRequest,
    JobRow,
    Jobs,
    JobsConfig,
    JobsPlugin,
    JobStatus,
    Retention,
    WorkerConfig,
    job,
)


class Mail(Struct):
    to: str


@job
async def send(payload: Mail, jobs: Jobs) -> None:
    await jobs.enqueue(report())


@job
async def report() -> None: ...


@job(result=True)
def add(payload: list[int], *, job: JobContext) -> int:
    job.progress(0.5)
    return sum(payload)


@post("/")
async def handler(data: Mail, jobs: Jobs, db_session: NamedDependency[AsyncSession]) -> str:
    assert_type(await jobs.enqueue(send(data)), JobId)
    assert_type(await jobs.enqueue(report()), JobId)
    assert_type(await jobs.enqueue(JobRequest(job_type="elsewhere", payload=b"{}")), JobId)
    assert_type(await jobs.enqueue_with(db_session, send(data)), JobId)
    assert_type(await jobs.enqueue_many(send(Mail(to)) for to in ("you", "me")), list[JobId])
    assert_type((await jobs.enqueue(report())).is_new, bool)
    assert_type(await jobs.get(await jobs.enqueue(report())), JobRow | None)
    assert_type(await jobs.get(UUID(int=1)), JobRow | None)
    assert_type(await jobs.result(UUID(int=1), of=add, timeout=5), int)
    assert_type(await jobs.result(UUID(int=1), of=report), None)
    assert_type(await jobs.result(UUID(int=1)), Any)
    async for row in jobs.watch(UUID(int=1)):
        assert_type(row, JobRow)

    assert_type(await jobs.find(JobFilter(status="failed"), limit=5), list[JobRow])
    assert_type(await jobs.retry_all(JobFilter(status=JobStatus.FAILED, older_than=timedelta(days=1))), int)
    assert_type(await jobs.cancel_all(JobFilter(queue="mails"), dry_run=True), int)
    assert_type(await jobs.delete_all(JobFilter.everything()), int)
    assert_type(await jobs.move_all(JobFilter(ids=[UUID(int=1)]), queue="others"), int)
    assert_type(await jobs.reprioritise_all(JobFilter(error="no route"), priority=5), int)

    await jobs.retry_all(status="failed")  # type: ignore[call-arg]
    await jobs.move_all(JobFilter(queue="mails"))  # type: ignore[call-arg]
    await jobs.result(UUID(int=1), of=send.fn)  # type: ignore[call-overload]
    assert_type(await jobs.queues.pause("mail"), bool)
    assert_type(await jobs.queues.resize("mail", None), bool)

    await jobs.queues.resize("mail", "2")  # type: ignore[arg-type]
    await jobs.enqueue(send)  # type: ignore[arg-type]
    await jobs.enqueue(report)  # type: ignore[arg-type]
    await jobs.enqueue(send.fn)  # type: ignore[arg-type]
    await jobs.enqueue(data)  # type: ignore[arg-type]
    await jobs.enqueue(send(5))  # type: ignore[arg-type]
    await jobs.enqueue(send(data), data)  # type: ignore[call-arg]
    await jobs.enqueue_with(db_session, send)  # type: ignore[arg-type]
    await jobs.enqueue_with(send(data))  # type: ignore[call-arg]
    await jobs.enqueue_many([send])  # type: ignore[list-item]
    await jobs.enqueue_many(send(data))  # type: ignore[arg-type]
    return "sent"


JobsPlugin(JobsConfig(jobs=[send, report], worker=WorkerConfig(queues=["mails"], concurrency=5)))
JobsConfig(worker=None, migrate="check")

JobsConfig(retention=Retention(completed=timedelta(hours=1), failed=3600, cancelled=None))

JobsConfig(retention=None)  # type: ignore[arg-type]
JobsConfig(jobs=[Mail])  # type: ignore[list-item]
JobsConfig(migrate="sometimes")  # type: ignore[arg-type]
JobsConfig(worker=5)  # type: ignore[arg-type]
JobsPlugin(WorkerConfig())  # type: ignore[arg-type]
