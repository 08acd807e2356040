"""``litestar jobs worker`` as a process of its own, and how it stops."""

import asyncio
import os
import signal
import sys
from asyncio import StreamReader
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import UUID

import pytest

from cli_app import PATIENCE, create_app, hold, hold_thread, mark_and_hold, quick
from litestar_jobs import JobRequest, JobRow, JobsClient, JobsPlugin, JobStatus
from litestar_jobs.database import Database
from litestar_jobs.store import Statements, Store
from litestar_jobs.telemetry import NoTracing
from litestar_jobs.testing import until

Start = Callable[..., Awaitable[Process]]
Enqueue = Callable[[JobRequest], Awaitable[UUID]]


@pytest.fixture
async def start(dsn: str) -> AsyncIterator[Start]:
    """Start ``litestar jobs worker`` with these arguments and environment."""
    processes: list[Process] = []

    async def started(*arguments: str, **environment: str) -> Process:
        tests = str(Path(__file__).parent)
        words = ("-m", "litestar", "--app-dir", tests, "--app", "cli_app:create_app", "jobs", "worker", *arguments)
        surroundings = {**os.environ, "LITESTAR_JOBS_DSN": dsn, **environment}
        process = await create_subprocess_exec(sys.executable, *words, stdout=PIPE, stderr=PIPE, env=surroundings)
        processes.append(process)
        return process

    yield started
    for process in processes:
        if process.returncode is None:
            process.kill()
            await process.communicate()


@pytest.fixture
def enqueue(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Enqueue:
    monkeypatch.setenv("LITESTAR_JOBS_DSN", dsn)

    async def enqueued(request: JobRequest) -> UUID:
        app = create_app()
        (plugin,) = (plugin for plugin in app.plugins.init if isinstance(plugin, JobsPlugin))
        plugin.worker_config = None
        async with app.lifespan():
            return await plugin.client.enqueue(request)

    return enqueued


@pytest.fixture
async def held(enqueue: Enqueue, tmp_path: Path) -> UUID:
    """A job that runs until there is a file ``go``."""
    return await enqueue(hold(str(tmp_path / "go")))


async def in_state(store: Store, job_id: UUID, status: JobStatus) -> JobRow:
    async def look() -> JobRow | None:
        row = await store.get(job_id)
        return row if row and row.status is status else None

    return await until(look, 30, f"job {job_id} is not {status}")


async def heard(process: Process, words: str) -> str:
    """The line in which the process says this, and what it said before."""
    assert isinstance(process.stdout, StreamReader)
    said = ""
    async with asyncio.timeout(30):
        while words not in said:
            line = await process.stdout.readline()
            assert line, f"the process ended and never said {words!r}: {said}"
            said += line.decode()
    return said


async def test_it_works_in_the_lifespan_of_an_application_without_a_worker_and_lets_jobs_end(
    start: Start, held: UUID, store: Store, tmp_path: Path
) -> None:
    process = await start("--concurrency", "3", LITESTAR_JOBS_WORKER="0")
    hello = await heard(process, "at once")
    assert "Taking jobs of held, failing; 3 jobs at once." in hello
    await in_state(store, held, JobStatus.RUNNING)

    process.terminate()
    await heard(process, "Stopping.")
    (tmp_path / "go").touch()
    _, stderr = await process.communicate()

    assert process.returncode == 0, stderr.decode()
    row = await in_state(store, held, JobStatus.COMPLETED)
    assert row.attempts == 1
    assert await store.workers() == []


async def test_a_job_longer_than_the_shutdown_timeout_is_handed_back_uncounted(
    start: Start, held: UUID, store: Store
) -> None:
    process = await start("--queue", "held", "--queue", "nobody's", **{PATIENCE: "0.05"})
    hello = await heard(process, "No job of this application names the queue")
    assert "Taking jobs of held, nobody's; 10 jobs at once." in hello
    await in_state(store, held, JobStatus.RUNNING)

    process.send_signal(signal.SIGINT)
    _, stderr = await process.communicate()

    assert process.returncode == 0, stderr.decode()
    row = await in_state(store, held, JobStatus.PENDING)
    assert row.attempts == 0
    assert row.last_error is None


async def test_a_second_signal_hands_jobs_back_at_once_and_shows_in_the_exit_code(
    start: Start, held: UUID, store: Store
) -> None:
    process = await start("--queue", "held", **{PATIENCE: "600"})
    await in_state(store, held, JobStatus.RUNNING)

    process.terminate()
    await heard(process, "600 s to end")
    process.terminate()
    _, stderr = await process.communicate()

    assert process.returncode == 128 + signal.SIGTERM, stderr.decode()
    row = await in_state(store, held, JobStatus.PENDING)
    assert row.attempts == 0
    assert await store.workers() == []


async def test_a_thread_that_cannot_be_interrupted_does_not_keep_the_process(
    start: Start, enqueue: Enqueue, store: Store, tmp_path: Path
) -> None:
    held = await enqueue(hold_thread(str(tmp_path / "never")))
    process = await start("--queue", "held", **{PATIENCE: "0.05"})
    await in_state(store, held, JobStatus.RUNNING)

    process.terminate()
    async with asyncio.timeout(30):
        _, stderr = await process.communicate()

    assert process.returncode == 0, stderr.decode()
    assert "1 jobs handed back" in stderr.decode()
    row = await in_state(store, held, JobStatus.PENDING)
    assert row.attempts == 0


async def test_what_keeps_it_from_starting_is_an_error_without_a_traceback(start: Start, tmp_path: Path) -> None:
    process = await start(LITESTAR_JOBS_DSN=f"postgresql:///name?host={tmp_path}")
    stdout, stderr = await process.communicate()
    assert process.returncode == 1
    assert "PostgreSQL cannot be reached" in stderr.decode()
    assert "Traceback" not in stderr.decode()
    assert stdout == b""


async def test_with_slow_jobs_no_claimed_job_waits_while_another_process_is_idle(
    start: Start, dsn: str, tmp_path: Path
) -> None:
    """Short jobs before them make both processes claim ahead, so one has claimed more slow ones than it can run."""
    slow = 6
    enqueuer = JobsClient(Statements("litestar_jobs"), NoTracing(lambda: None))
    await enqueuer.start(Database(dsn))
    await enqueuer.enqueue_many([*(quick() for _ in range(4000)), *(mark_and_hold(str(tmp_path)) for _ in range(slow))])
    await enqueuer.stop()
    for _ in range(2):
        await start("--queue", "held", "--concurrency", "3")

    def begun() -> list[str]:
        return [file.name.partition("-")[0] for file in tmp_path.iterdir()]

    async def all_run() -> bool:
        return len(begun()) == slow

    await until(all_run, 30, lambda: f"only {len(begun())} have begun")
    by_process = Counter(begun())
    assert list(by_process.values()) == [3, 3]
