"""A long export that somebody may call off while it runs."""

import time
from pathlib import Path
from uuid import UUID

from litestar import Litestar, post
from litestar.params import FromPath, JSONBody
from msgspec import Struct

from litestar_jobs import JobContext, Jobs, JobsPlugin, job


class Export(Struct):
    path: str


@job
def export(payload: Export, job: JobContext) -> None:
    with Path(payload.path).open("w") as file:
        for number in range(10_000):
            if job.is_cancelled:
                break
            file.write(f"row {number}\n")
            time.sleep(0.001)  # as if it were work


@post("/exports")
async def begin(data: JSONBody[Export], jobs: Jobs) -> UUID:
    return await jobs.enqueue(export(data))


@post("/exports/{export_id:uuid}/cancel")
async def call_off(jobs: Jobs, export_id: FromPath[UUID]) -> bool:
    return await jobs.cancel(export_id)


app = Litestar([begin, call_off], plugins=[JobsPlugin()])
