from datetime import timedelta
from typing import Annotated

from litestar import Litestar, post
from litestar.params import Parameter
from msgspec import Struct

from litestar_jobs import Jobs, JobsPlugin, Unique, job
from litestar_jobs.errors import AlreadyEnqueued

Account = Annotated[int, Parameter(ge=1)]


class Sync(Struct):
    account: int
    reason: str


# One at a time for each account, whatever the reason.
@job(unique=Unique(by=("account",)))
async def sync_account(payload: Sync) -> None: ...


# Debounced: runs ten seconds after the last edit, with what was asked last.
@job(unique=Unique(by=("account",), until="started", on_conflict="replace"))
async def index_account(payload: Sync) -> None: ...


# At most one an hour; who asks again is told so.
@job(unique=Unique(by="job", within=timedelta(hours=1), on_conflict="error"))
async def export() -> None: ...


@post("/accounts/{account:int}")
async def edit(account: Account, jobs: Jobs) -> dict[str, object]:
    job_id = await jobs.enqueue(sync_account(Sync(account, "edited")))
    await jobs.enqueue(index_account(Sync(account, "edited"), delay=10))
    return {"job": job_id, "is_new": job_id.is_new}


@post("/export")
async def begin_export(jobs: Jobs) -> dict[str, object]:
    try:
        return {"job": await jobs.enqueue(export())}
    except AlreadyEnqueued as already:
        return {"already": already.job_id}


app = Litestar([edit, begin_export], plugins=[JobsPlugin()])
