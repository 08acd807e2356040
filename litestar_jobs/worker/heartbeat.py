"""The lease: one row per process, renewed from a thread of its own, so that a handler which blocks the event loop does
not look like a dead process."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from uuid import UUID

from litestar_jobs.database import UNAVAILABLE, Database, Link, may_have_been_written
from litestar_jobs.store import Statements, Store

__all__ = ("RENEWALS", "Heartbeat")

RENEWALS = 3
"""Renewals within one lease."""
MARGIN = 0.2
"""The part of a lease that is left when a process which cannot renew it gives its jobs up."""


class Heartbeat:
    """Keeps one worker id alive, until it is stopped or the lease is lost."""

    def __init__(self, database: Database, statements: Statements, worker_id: UUID, lease: float) -> None:
        self.worker_id = worker_id
        self._database = database
        self._sql = statements
        self._lease = lease

    async def start(self, queues: Sequence[str], on_lost: Callable[[str], None]) -> None:
        """Register the worker; ``on_lost`` is called in this event loop, once, if the lease is lost."""
        self._loop = asyncio.get_running_loop()
        self._on_lost = on_lost
        self._registered: asyncio.Future[None] = self._loop.create_future()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._beat(queues)), name="litestar-jobs-heartbeat", daemon=True
        )
        self._thread.start()
        await self._registered

    async def stop(self) -> None:
        """Leave: the row goes away."""
        if not self._ended.is_set():
            self._thread_loop.call_soon_threadsafe(self._stopping.set)
            await self._ended.wait()
            self._thread.join()  # it has nothing left to do but to close its loop

    async def _beat(self, queues: Sequence[str]) -> None:
        self._thread_loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        # A connection gone silent is replaced while the lease lasts.
        link = Link(self._database, timeout=self._lease / (2 * RENEWALS))
        store = Store(link.fetch, self._sql)
        begun = time.monotonic()
        try:
            await store.register(self.worker_id, socket.gethostname(), os.getpid(), queues, self._lease)
        except BaseException as error:  # noqa: BLE001 - raised where start() is awaited
            await link.close()
            self._tell(self._ended.set)
            self._tell(self._registered.set_exception, error)
            return
        self._tell(self._registered.set_result, None)
        try:
            lost = await self._renew(store, begun)
            if lost is None:
                await store.deregister(self.worker_id)
            else:
                self._tell(self._on_lost, lost)
        except Exception as error:
            if not (isinstance(error, UNAVAILABLE) or may_have_been_written(error)):
                raise
            # Nobody answered: the row expires by itself.
        finally:
            await link.close()
            self._tell(self._ended.set)

    async def _renew(self, store: Store, begun: float) -> str | None:
        """Renew until stopped (None) or lost (why)."""
        good_until = begun + self._lease * (1 - MARGIN)
        pause = self._lease / RENEWALS
        while not await self._stopped_within(pause):
            begun = time.monotonic()
            try:
                async with asyncio.timeout(max(0.1, good_until - begun)):
                    renewed = await store.renew(self.worker_id, self._lease)
            except Exception as error:  # noqa: BLE001 - for whatever reason, the lease runs out
                if time.monotonic() >= good_until:
                    return f"it could not be renewed: {str(error) or type(error).__name__}"
                pause = self._lease / 30
                continue
            if not renewed:
                return "it was not renewed in time; the process may have been suspended"
            good_until = begun + self._lease * (1 - MARGIN)
            pause = self._lease / RENEWALS
        return None

    async def _stopped_within(self, pause: float) -> bool:
        try:
            async with asyncio.timeout(pause):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    def _tell(self, callback: Callable[..., object], *arguments: object) -> None:
        """Call back in the worker's event loop, if that is still there."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)
