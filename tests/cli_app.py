"""The application that the tests of the command line load, in this process or in another."""

import asyncio
import os
import time
from pathlib import Path

from litestar import Litestar
from litestar.datastructures import State

from litestar_jobs import Cron, Fixed, JobContext, JobsConfig, JobsPlugin, WorkerConfig, job

PATIENCE = "CLI_APP_PATIENCE"
"""The shutdown_timeout; without it the application has no worker of its own."""


@job(queue="held")
async def hold(path: str, state: State) -> None:
    """Runs until somebody puts a file there."""
    assert state.started
    while not await asyncio.to_thread(Path(path).exists):  # noqa: ASYNC110 - another process puts it there
        await asyncio.sleep(0.01)


@job(queue="held")
def hold_thread(path: str) -> None:
    """The same in a thread, which nothing can interrupt."""
    while not Path(path).exists():
        time.sleep(0.01)


@job(queue="held")
async def quick() -> None:
    """Nothing."""


@job(queue="held")
async def mark_and_hold(directory: str, *, job: JobContext) -> None:
    """Leaves a file that names its process, then does as ``hold`` does."""
    place = Path(directory)
    place.joinpath(f"{os.getpid()}-{job.id}").touch()
    while not place.joinpath("go").exists():  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.01)


@job(queue="failing", max_retries=1, retry=Fixed(0))
async def fail(payload: str) -> None:
    raise ConnectionError(payload)


@job(queue="held", schedules=[Cron("0 0 1 1 *", timezone="Europe/Berlin", payload="everybody")])
async def new_year(payload: str) -> None:
    """Rarely."""


@job(queue="failing")
async def add(payload: list[int]) -> int:
    return sum(payload)


class OwnPlugin(JobsPlugin):
    """Somebody's subclass."""


def create_app() -> Litestar:
    patience = os.environ.get(PATIENCE)
    worker = None if patience is None else WorkerConfig(shutdown_timeout=float(patience), queues=["other"])
    config = JobsConfig(jobs=[hold, hold_thread, quick, mark_and_hold, fail, add, new_year], worker=worker)
    return Litestar([], on_startup=[_start], plugins=[OwnPlugin(config)])


def _start(app: Litestar) -> None:
    app.state.started = True
