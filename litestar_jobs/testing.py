"""For the tests of applications: run one in the loop of the test, and wait for its jobs.

``TestClient`` and ``AsyncTestClient`` run the application in a thread and event loop of their own, where a test cannot
reach its jobs client. :func:`running` runs it where the test is.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import UUID

import httpx
from litestar import Litestar

from litestar_jobs.embedded import embedded_dsn
from litestar_jobs.enqueue import JobsClient
from litestar_jobs.row import JobRow, JobStatus

__all__ = ("drained", "embedded_dsn", "ended", "running", "until")

T = TypeVar("T")

PAUSE = 0.005


@asynccontextmanager
async def running(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    """Run the application, its worker included, in this event loop; gives an HTTP client for it."""
    async with (
        app.lifespan(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver.local") as http,
    ):
        yield http


async def ended(client: JobsClient, job_id: UUID, timeout: float = 10.0) -> JobRow:
    """The job once it has completed, failed or been cancelled. :exc:`TimeoutError` if it has not within so many
    seconds."""

    async def look() -> JobRow | None:
        row = await client.get(job_id)
        if row is None:
            raise LookupError(f"there is no job {job_id}: was its transaction committed?")
        return None if row.status in (JobStatus.PENDING, JobStatus.RUNNING) else row

    return await until(look, timeout, f"job {job_id} has not ended")


async def drained(client: JobsClient, timeout: float = 10.0) -> None:
    """Return when no job runs or may run now; jobs for later stay. :exc:`TimeoutError` after so many seconds."""

    async def look() -> bool:
        counts = await client.store.count()
        return not any(count.due or count.status == JobStatus.RUNNING for count in counts)

    await until(look, timeout, "there are still jobs to run")


async def until(look: Callable[[], Awaitable[T | None]], timeout: float = 10.0, what: str = "it is not so") -> T:
    """What ``look`` answers, as soon as that is true."""
    try:
        async with asyncio.timeout(timeout):
            while not (seen := await look()):
                await asyncio.sleep(PAUSE)
            return seen
    except TimeoutError:
        raise TimeoutError(f"after {timeout:g} s {what}") from None
