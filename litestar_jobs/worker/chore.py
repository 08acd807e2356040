"""All loops of the worker are this piece of code."""

import asyncio
from collections.abc import Awaitable, Callable

from litestar_jobs.telemetry import ChoreFailed, Event

__all__ = ("Chore",)

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 1.0
"""A database that is back is found within this; a second try costs next to nothing."""


class Chore:
    """Runs ``step`` again and again. The step answers in how many seconds it wants to run next; ``wake`` makes that
    now. A step that fails is reported and tried again after a pause that doubles. It is never cancelled: when asked
    to stop, the step that runs comes to its end. If somebody else cancels it, who found it among all tasks, it begins
    anew."""

    def __init__(self, name: str, step: Callable[[], Awaitable[float]], emit: Callable[[Event], None]) -> None:
        self.name = name
        self._step = step
        self._emit = emit
        self._wake = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in a task of its own."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"litestar-jobs-{self.name}")
        self._task.add_done_callback(self._revive)

    def wake(self) -> None:
        """Run the step now, or once more if it is running."""
        self._wake.set()

    async def stop(self) -> None:
        """Return when the last step has ended."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    def _revive(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() and not self._stopping:
            self._emit(ChoreFailed(self.name, asyncio.CancelledError("somebody cancelled it"), 0))
            self.start()

    async def _run(self) -> None:
        after_failure = FIRST_PAUSE
        while not self._stopping:
            self._wake.clear()
            try:
                pause = await self._step()
                after_failure = FIRST_PAUSE
            except Exception as error:  # noqa: BLE001 - a loop that ends leaves jobs behind; hooks report it
                pause = after_failure
                after_failure = min(after_failure * 2, LONGEST_PAUSE)
                self._emit(ChoreFailed(self.name, error, pause))
                await self._sleep(pause)
                continue
            if pause > 0 and not self._wake.is_set():
                await self._sleep(pause)

    async def _sleep(self, pause: float) -> None:
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            pass
