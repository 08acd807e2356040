"""Worker processes: started, signalled and waited for; and what they said."""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import msgspec

from litestar_jobs.testing import until

from .app import SETTINGS, Heard, Settings
from .server import free_port

TESTS = str(Path(__file__).parent.parent)
APP = "faults.app:create_app"
COMMANDS = {
    "litestar jobs worker": ("litestar", "--app-dir", TESTS, "--app", APP, "jobs", "worker"),
    "litestar run": ("litestar", "--app-dir", TESTS, "--app", APP, "run", "--port", "{port}"),
    "uvicorn": ("uvicorn", "--factory", "--app-dir", TESTS, APP, "--port", "{port}"),
}
"""The ways in which a worker is run."""


class WorkerProcess:
    """One of them."""

    def __init__(self, process: Process, output: Path) -> None:
        self._process = process
        self.output = output
        self.pid = process.pid

    @property
    def code(self) -> int | None:
        """How it ended, or None."""
        return self._process.returncode

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self, within: float = 30) -> int:
        """Wait until it has ended: its exit code, negative for a signal."""
        async with asyncio.timeout(within):
            return await self._process.wait()

    async def kill(self) -> None:
        """SIGKILL, also if it is suspended; it is gone when this returns."""
        if self.code is None:
            self.signal(signal.SIGKILL)
        await self._process.wait()


class Fleet:
    """All worker processes of a run."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.workers: list[WorkerProcess] = []
        self.events = Events(Path(settings.events))

    @property
    def alive(self) -> list[WorkerProcess]:
        return [worker for worker in self.workers if worker.code is None]

    async def start(self, command: str = "litestar jobs worker", **environment: str) -> WorkerProcess:
        """A new process, once its worker takes jobs."""
        words = [word.format(port=free_port()) for word in COMMANDS[command]]
        surroundings = {**os.environ, SETTINGS: msgspec.json.encode(self.settings).decode(), **environment}
        output = Path(f"{self.settings.events}.{len(self.workers)}.log")
        with output.open("wb") as file:
            process = await create_subprocess_exec(
                sys.executable, "-m", *words, stdin=DEVNULL, stdout=file, stderr=file, env=surroundings
            )
        worker = WorkerProcess(process, output)
        self.workers.append(worker)

        async def up() -> bool:
            assert worker.code is None, f"it ended with {worker.code}: {output.read_text()}"
            return any(heard.pid == worker.pid for heard in self.events.of("WorkerStarted"))

        await until(up, 60, lambda: f"the worker does not start: {output.read_text()}")
        return worker

    async def start_all(self, count: int) -> list[WorkerProcess]:
        return await asyncio.gather(*(self.start() for _ in range(count)))

    async def stop(self, within: float = 60) -> list[int]:
        """SIGTERM to all that live, and their exit codes."""
        leaving = self.alive
        for worker in leaving:
            worker.signal(signal.SIGTERM)
        return [await worker.ended(within) for worker in leaving]

    async def kill(self) -> None:
        for worker in self.workers:
            await worker.kill()


class Events:
    """What the workers said, in the order of the file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read = 0
        self._heard: list[Heard] = []

    def all(self) -> list[Heard]:
        if self._file.exists():
            with self._file.open("rb") as file:
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read += len(line)
                    self._heard.append(msgspec.json.decode(line, type=Heard))
        return self._heard

    def of(self, *kinds: str, pid: int | None = None, job_id: UUID | None = None) -> list[Heard]:
        """Those of these kinds, of one process or one job if asked for."""
        return list(self._of(kinds, pid, job_id))

    def _of(self, kinds: tuple[str, ...], pid: int | None, job_id: UUID | None) -> Iterator[Heard]:
        for heard in self.all():
            if heard.kind in kinds and pid in (None, heard.pid) and job_id in (None, heard.job_id):
                yield heard

    def outcomes(self) -> Counter[str]:
        """How attempts ended."""
        return Counter(heard.outcome or "" for heard in self.of("AttemptEnded"))

    async def wait_for_end(self, job_id: UUID, pid: int | None = None, within: float = 30) -> Heard:
        """How the job's attempt ended (in this process), once one has."""

        async def look() -> Heard | None:
            return next(iter(self.of("AttemptEnded", pid=pid, job_id=job_id)), None)

        return await until(look, within, f"job {job_id} does not end")

    async def wait_for(
        self, *kinds: str, within: float = 30, pid: int | None = None, job_id: UUID | None = None
    ) -> Heard:
        """The next one of these kinds that is said from now on."""
        since = time.time()

        async def look() -> Heard | None:
            return next((heard for heard in self.of(*kinds, pid=pid, job_id=job_id) if heard.at >= since), None)

        return await until(look, within, f"nobody said {' or '.join(kinds)}")
