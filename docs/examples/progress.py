import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

import msgspec
from litestar import Litestar, get, post
from litestar.exceptions import NotFoundException
from litestar.params import FromPath
from litestar.response import ServerSentEvent, ServerSentEventMessage

from litestar_jobs import JobContext, Jobs, JobsClient, JobsPlugin, job


class Report(msgspec.Struct):
    pages: int


@job
async def make_report(pages: int, *, job: JobContext) -> Report:
    for page in range(pages):
        await job.progress(page / pages, f"page {page + 1} of {pages}")
        await asyncio.sleep(0.2)
    return Report(pages)


@post("/reports")
async def order(jobs: Jobs) -> dict[str, UUID]:
    return {"job": await jobs.enqueue(make_report(5))}


@get("/reports/{job_id:uuid}")
async def report(job_id: FromPath[UUID], jobs: Jobs) -> Report:
    try:
        return await jobs.result(job_id, of=make_report, timeout=10)
    except LookupError as error:
        raise NotFoundException(str(error)) from error


@get("/reports/{job_id:uuid}/events")
async def events(job_id: FromPath[UUID], jobs: Jobs) -> ServerSentEvent:
    return ServerSentEvent(changes(jobs, job_id))


async def changes(
    jobs: JobsClient, job_id: UUID
) -> AsyncGenerator[ServerSentEventMessage]:
    async with aclosing(jobs.watch(job_id)) as rows:
        async for row in rows:
            news = {
                "progress": row.progress,
                "message": row.progress_message,
                "result": row.result,
            }
            yield ServerSentEventMessage(
                msgspec.json.encode(news).decode(), event=row.status
            )


app = Litestar([order, report, events], plugins=[JobsPlugin()])
