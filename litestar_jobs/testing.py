"""For the tests of applications: run one in the loop of the test, and wait for its jobs.

``TestClient`` and ``AsyncTestClient`` run the application in a thread and event loop of their own, where a test cannot
reach its jobs client. :func:`running` runs it where the test is::

    async with running(app) as http:
        response = await http.post("/users", json={"email": "a@example.com"})
        await drained(plugin.client)
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import UUID

import httpx
from litestar import Litestar

from litestar_jobs.embedded import temporary_dsn
from litestar_jobs.enqueue import JobsClient
from litestar_jobs.row import JobRow, JobStatus

__all__ = ("drained", "ended", "running", "temporary_dsn", "until")

T = TypeVar("T")

PAUSE = 0.005


@asynccontextmanager
async def running(app: Litestar) -> AsyncGenerator[httpx.AsyncClient, None]:
    """Run the application, its worker included, in this event loop; gives an HTTP client for it.

    It may be entered and left in different tasks, as fixtures of pytest-asyncio are.
    """
    started, stopping = asyncio.Event(), asyncio.Event()
    life = asyncio.create_task(_live(app, started, stopping))
    try:
        await started.wait()
        if not life.done():
            transport = httpx.ASGITransport(app)  # type: ignore[arg-type] # Litestar's scope is a TypedDict, not a dict
            async with httpx.AsyncClient(transport=transport, base_url="http://testserver.local") as http:
                yield http
    finally:
        stopping.set()
        await life


async def _live(app: Litestar, started: asyncio.Event, stopping: asyncio.Event) -> None:
    """The application's lifespan, in a task of its own as under a server. Errors are raised as they were there."""
    only: BaseException | None = None
    try:
        async with app.lifespan():
            started.set()
            await stopping.wait()
    except BaseExceptionGroup as group:
        # Litestar's event emitter is a task group, which wraps whatever passes through it.
        if len(group.exceptions) != 1:
            raise
        only = group.exceptions[0]
    finally:
        started.set()
    if only is not None:
        raise only


async def ended(client: JobsClient, job_id: UUID, timeout: float = 10.0) -> JobRow:
    """The job, once it has completed, failed or been cancelled.

    :exc:`TimeoutError` if it has not within so many seconds, :exc:`LookupError` if there is no such job.
    """
    seen: JobRow | None = None

    async def look() -> JobRow | None:
        nonlocal seen
        seen = await client.get(job_id)
        if seen is None:
            raise LookupError(f"there is no job {job_id}: was its transaction committed?")
        return None if seen.status in (JobStatus.PENDING, JobStatus.RUNNING) else seen

    def state() -> str:
        return f"job {job_id} has not ended: {_described(seen)}"

    return await until(look, timeout, state)


async def drained(client: JobsClient, timeout: float = 10.0) -> None:
    """Return when no job runs or may run now; jobs for later, retries among them, stay, and so do steps that wait for them.

    :exc:`TimeoutError` if that is not so within so many seconds.
    """
    left: Counter[str] = Counter()

    async def look() -> bool:
        paused = {each.name for each in await client.queues.settings() if each.paused_at is not None}
        counts, leading_on = await client.workflows.course.at_one_moment()
        left.clear()
        left["about to lead on to others"] = leading_on
        for count in counts:
            left[f"running in queue {count.queue!r}"] += count.jobs if count.status == JobStatus.RUNNING else 0
            left[f"waiting in queue {count.queue!r}{' (paused)' * (count.queue in paused)}"] += count.due
        return not left.total()

    def state() -> str:
        counts = ", ".join(f"{jobs} {where}" for where, jobs in left.items() if jobs)
        return f"there are still jobs: {counts}. Does a worker of this application take these queues?"

    await until(look, timeout, state)


async def until(
    look: Callable[[], Awaitable[T | None]], timeout: float = 10.0, what: str | Callable[[], str] = "it is not so"
) -> T:
    """What ``look`` answers, as soon as that is true.

    :exc:`TimeoutError` after so many seconds; ``what`` says, or is called to say, what is missing then.
    """
    try:
        async with asyncio.timeout(timeout):
            while not (seen := await look()):  # noqa: ASYNC110 - the database tells no events
                await asyncio.sleep(PAUSE)
            return seen
    except TimeoutError:
        raise TimeoutError(f"after {timeout:g} s {what() if callable(what) else what}") from None


def _described(row: JobRow | None) -> str:
    if row is None:
        return "the database did not answer"
    error = f", last error: {row.last_error}" if row.last_error else ""
    return f"it is {row.status} in queue {row.queue!r} after {row.attempts} attempts, run_at {row.run_at}{error}"
