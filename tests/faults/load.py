"""Who enqueues, and what they were told: committed, perhaps, not at all, rolled back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import asyncpg
from litestar import Litestar

from litestar_jobs import JobId, JobRequest, JobsClient, JobsConfig, JobsPlugin
from litestar_jobs.errors import EnqueueError, EnqueueUncertain
from litestar_jobs.testing import running

from .app import JOBS, Work, plain, transacted


class Load:
    """Callers of ``enqueue`` and its kin, in this process, and the ledger of the answers that they got."""

    def __init__(self, client: JobsClient, direct_dsn: str) -> None:
        self.client = client
        self._direct_dsn = direct_dsn
        self.committed: set[UUID] = set()
        self.uncertain: set[UUID] = set()
        self.rolled_back: set[UUID] = set()
        self.refused = 0
        """Calls that raised EnqueueError: nothing was written."""
        self._callers: list[asyncio.Task[None]] = []

    async def put(self, request: JobRequest) -> UUID:
        job_id = await self.client.enqueue(request)
        self.committed.add(job_id)
        return job_id

    async def backlog(self, count: int, seconds: float = 0.0) -> None:
        """So many jobs at once, half of each kind."""
        kinds = (plain, transacted)
        self.committed.update(await self.client.enqueue_many([kinds[n % 2](Work(seconds)) for n in range(count)]))

    def begin(self, callers: int, make: Callable[[int], JobRequest], pause: float = 0.05) -> None:
        """So many callers go on enqueueing until :meth:`end`; ``make`` is told which request it is."""
        self._callers += [asyncio.create_task(self._call(make, pause)) for _ in range(callers)]

    async def begin_rolling_back(self, pause: float = 0.02) -> None:
        """One more, whose transactions are never committed: the first is over when this returns."""
        await self._roll_back()
        self._callers.append(asyncio.create_task(self._go_on_rolling_back(pause)))

    async def end(self) -> None:
        """The callers finish what they are at. Those who do not know ask again by id."""
        callers, self._callers = self._callers, []
        for caller in callers:
            caller.cancel()
        for ended in await asyncio.gather(*callers, return_exceptions=True):
            if not isinstance(ended, asyncio.CancelledError | None):
                raise ended

    async def ask_again(self) -> tuple[int, int]:
        """Callers who were left uncertain ask by id: how many of their jobs are there, and how many are not."""
        asked, self.uncertain = self.uncertain, set()
        there = {job_id for job_id in asked if await self.client.get(job_id) is not None}
        self.committed |= there
        return len(there), len(asked - there)

    async def _call(self, make: Callable[[int], JobRequest], pause: float) -> None:
        number = 0
        while True:
            await self._uncancelled(make(number))
            number += 1
            await asyncio.sleep(pause)

    async def _uncancelled(self, request: JobRequest) -> None:
        """The call comes to its end, so that its answer is known."""
        call = asyncio.ensure_future(self.client.enqueue(request))
        try:
            await asyncio.shield(call)
        except asyncio.CancelledError:
            await asyncio.wait([call])
            self._note(call)
            raise
        except (EnqueueError, EnqueueUncertain):
            await asyncio.sleep(0.02)
        self._note(call)

    def _note(self, call: "asyncio.Future[JobId]") -> None:
        match call.exception():
            case None:
                self.committed.add(call.result())
            case EnqueueUncertain(job_id=job_id):
                self.uncertain.add(job_id)
            case EnqueueError():
                self.refused += 1
            case error:
                raise error

    async def _go_on_rolling_back(self, pause: float) -> None:
        while True:
            await asyncio.sleep(pause)
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                await self._roll_back()  # or the connection breaks, which rolls back as well

    async def _roll_back(self) -> None:
        connection = await asyncpg.connect(self._direct_dsn, timeout=5, command_timeout=5)
        try:
            transaction = connection.transaction()
            await transaction.start()
            self.rolled_back.add(await self.client.enqueue_with(connection, plain(Work())))
            await transaction.rollback()
        finally:
            connection.terminate()


@asynccontextmanager
async def loading(dsn: str, direct_dsn: str) -> AsyncIterator[Load]:
    """An application that only enqueues, in this process."""
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=JOBS, worker=None, migrate="never"))
    async with running(Litestar([], plugins=[plugin], logging_config=None, openapi_config=None)):
        load = Load(plugin.client, direct_dsn)
        try:
            yield load
        finally:
            await load.end()
