"""The application whose workers are killed. What they do can be counted afterwards.

Each job leaves an untransacted mark at its start, over a connection of its own in autocommit mode, and ``transacted``
an effect in the transaction of its session. What the worker says happened goes to a file that survives the process.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from advanced_alchemy.extensions.litestar import EngineConfig, SQLAlchemyAsyncConfig, SQLAlchemyPlugin
from litestar import Litestar
from litestar.datastructures import State
from litestar.di import NamedDependency
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from litestar_jobs import Fixed, Job, JobContext, JobsConfig, JobsPlugin, WorkerConfig, job
from litestar_jobs.database import Database, Link
from litestar_jobs.telemetry import AttemptEnded, AttemptStarted, Event

SETTINGS = "FAULTS_SETTINGS"
"""The environment variable that carries the settings to the processes."""
QUEUE = "faults"
PATIENT = 10_000
"""Retries: no fault may use them up."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a process of the suite is told."""

    dsn: str
    """Where the workers find the jobs; through a proxy, perhaps."""
    session_dsn: str
    """Where their sessions lead."""
    direct_dsn: str
    """Where marks are written: no fault of the network lies in between."""
    events: str
    """The file that hears what the workers say."""
    lease: float = 3.0
    poll: float = 1.0
    patience: float = 10.0
    concurrency: int = 8


class Heard(msgspec.Struct, frozen=True):
    """One line of that file."""

    pid: int
    at: float
    kind: str
    job_id: UUID | None = None
    attempt: int | None = None
    outcome: str | None = None
    text: str = ""


class Work(msgspec.Struct):
    """How long a job takes."""

    seconds: float = 0.0


class Held(msgspec.Struct):
    """A job that runs until somebody puts a file there."""

    path: str


MARK = "INSERT INTO mark (job_id, attempt, pid) VALUES ($1, $2, $3)"
EFFECT = text("INSERT INTO effect (job_id, attempt) VALUES (:job_id, :attempt)")


async def begin(state: State, job: JobContext) -> None:
    """Leave the mark."""
    await state.marks.fetch(MARK, job.id, job.attempt, os.getpid())


async def affect(db_session: AsyncSession, job: JobContext) -> None:
    """Write the effect; it is there when the job is finished, and only then."""
    await db_session.execute(EFFECT, {"job_id": job.id, "attempt": job.attempt})


@job(queue=QUEUE, max_retries=PATIENT, retry=Fixed(0.05))
async def transacted(payload: Work, job: JobContext, state: State, db_session: NamedDependency[AsyncSession]) -> None:
    """Finished in the transaction of its own session."""
    await begin(state, job)
    await affect(db_session, job)
    await asyncio.sleep(payload.seconds)


@job(queue=QUEUE, max_retries=PATIENT, retry=Fixed(0.05))
async def plain(payload: Work, job: JobContext, state: State) -> None:
    """Finished afterwards, by the worker."""
    await begin(state, job)
    await asyncio.sleep(payload.seconds)


@job(queue=QUEUE, max_retries=PATIENT, retry=Fixed(0.05))
async def held(payload: Held, job: JobContext, state: State, db_session: NamedDependency[AsyncSession]) -> None:
    """Stands in the middle of its transaction until it is let go."""
    await begin(state, job)
    await affect(db_session, job)
    while not await asyncio.to_thread(Path(payload.path).exists):  # noqa: ASYNC110 - another process puts it there
        await asyncio.sleep(0.01)


@job(queue=QUEUE)
async def die(*, state: State, job: JobContext) -> None:
    """Ends its process."""
    await begin(state, job)
    os.kill(os.getpid(), signal.SIGKILL)


@job(queue=QUEUE, max_retries=0)
async def failing(*, job: JobContext, state: State) -> None:
    """Ends as failed, once."""
    await begin(state, job)
    raise ConnectionError("as it should")


@job(queue=QUEUE)
async def end_process_once(payload: str, job: JobContext, state: State) -> None:
    """At its first attempt it ends its process, in one way or another."""
    await begin(state, job)
    if job.attempt > 1:
        return
    if payload == "os._exit":
        os._exit(7)

    async def leave() -> None:
        raise SystemExit(7)

    await asyncio.create_task(leave())


JOBS: list[Job[Any, Any]] = [transacted, plain, held, failing, die, end_process_once]


def told(event: Event) -> Heard:
    """An event as a line."""
    job_id, attempt = getattr(event, "job_id", None), getattr(event, "attempt", None)
    outcome, text = None, repr(event)
    match event:
        case AttemptStarted(job):
            job_id, attempt, text = job.id, job.attempt, ""
        case AttemptEnded(job, ended, _, error):
            job_id, attempt, outcome, text = job.id, job.attempt, type(ended).__name__, repr(error)
    return Heard(os.getpid(), time.time(), type(event).__name__, job_id, attempt, outcome, text)


def create_app() -> Litestar:
    settings = msgspec.json.decode(os.environ[SETTINGS], type=Settings)
    file = os.open(settings.events, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    alchemy = SQLAlchemyAsyncConfig(
        connection_string=settings.session_dsn.replace("postgresql://", "postgresql+asyncpg://", 1),
        # Without it a session whose connection goes silent waits for ever.
        engine_config=EngineConfig(connect_args={"command_timeout": settings.lease}),
    )

    def write(event: Event) -> None:
        os.write(file, msgspec.json.encode(told(event)) + b"\n")

    config = JobsConfig(
        dsn=settings.dsn,
        jobs=JOBS,
        migrate="never",
        hooks=[write],
        worker=WorkerConfig(
            lease=settings.lease,
            poll_interval=settings.poll,
            shutdown_timeout=settings.patience,
            concurrency=settings.concurrency,
        ),
    )

    @asynccontextmanager
    async def marking(app: Litestar) -> AsyncIterator[None]:
        app.state.marks = Link(Database(settings.direct_dsn))
        yield
        await app.state.marks.close()

    return Litestar(
        [], plugins=[JobsPlugin(config), SQLAlchemyPlugin(config=alchemy)], lifespan=[marking], openapi_config=None
    )
