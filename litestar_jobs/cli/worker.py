"""``worker``: a process that only works. It enters the application's lifespan, so that jobs find engines, hooks and
``app.state`` as they do in a server, and serves no requests.

The first signal lets running jobs end; the second hands them back at once; a third finds the system's own behaviour.
What cannot be interrupted, such as the thread of a synchronous job, may write nothing for its job any more, and does not
keep the process: others may run that job by now.
"""

import asyncio
import atexit
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from types import FrameType
from typing import NoReturn

import click
from litestar import Litestar
from rich_click import RichCommand

from litestar_jobs.cli.connect import OperatedPlugin, plugin_of, run
from litestar_jobs.cli.printing import count, print_line
from litestar_jobs.config import WorkerConfig
from litestar_jobs.durations import seconds
from litestar_jobs.errors import JobsError
from litestar_jobs.worker.execute import THREADS

__all__ = ("worker",)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LEFTOVERS = 1.0
"""Seconds that tasks and threads have to end after everything else has."""


@click.command(name="worker", cls=RichCommand)
@click.option("--queue", "queues", multiple=True, metavar="NAME", help="Only jobs of this queue. May be repeated.")
@click.option("--concurrency", type=click.IntRange(1, 10_000), help="How many jobs run at once.")
def worker(app: Litestar, queues: Sequence[str], concurrency: int | None) -> None:
    """Run jobs, and serve no requests, until SIGTERM or Ctrl-C.

    Running jobs may then go on for the shutdown_timeout; those left are handed back, uncounted. A second signal hands
    them back at once, and the exit code says so.
    """
    plugin = plugin_of(app)
    sys.exit(run(_work(app, plugin, queues, concurrency), expected=(JobsError,), loop_factory=_loop_factory()))


async def _work(app: Litestar, plugin: OperatedPlugin, queues: Sequence[str], concurrency: int | None) -> int:
    plugin.worker_config = _settings(plugin, queues, concurrency)
    return await _Process(app, plugin).run()


def _settings(plugin: OperatedPlugin, queues: Sequence[str], concurrency: int | None) -> WorkerConfig:
    """Those of the application, whether or not it has a worker of its own, and over them those of the command."""
    settings = plugin.config.worker or WorkerConfig()
    return replace(settings, queues=queues or settings.queues, concurrency=concurrency or settings.concurrency)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if find_spec("uvloop") is None:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = import_module("uvloop").new_event_loop
    return factory


class _Process:
    """The worker's process, from start to exit code."""

    def __init__(self, app: Litestar, plugin: OperatedPlugin) -> None:
        self._app = app
        self._plugin = plugin
        self._told = asyncio.Event()
        self._code = 0
        self._threads = ThreadPoolExecutor(thread_name_prefix=THREADS)

    async def run(self) -> int:
        self._loop = asyncio.get_running_loop()
        self._loop.set_default_executor(self._threads)
        self._task = asyncio.current_task()
        with self._signals():
            try:
                async with self._app.lifespan():
                    gc.freeze()  # what is there now stays: looking through it again and again takes 70 ms each time
                    self._say_hello()
                    await self._told.wait()
                    self._say_goodbye()
            except asyncio.CancelledError:
                if not self._code:
                    raise
        if await self._is_held():
            print_line("What is left of interrupted jobs does not end: the process ends without it.")
            _end_now(self._code)
        return self._code

    async def _is_held(self) -> bool:
        """Whether tasks or threads are left that do not end when they are asked to."""
        tasks = [task for task in asyncio.all_tasks() if task is not self._task]
        for task in tasks:
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        until = self._loop.time() + LEFTOVERS
        while self._loop.time() < until:
            if all(task.done() for task in tasks) and not _alive():
                return False
            await asyncio.sleep(0.01)
        return True

    @contextmanager
    def _signals(self) -> Generator[None]:
        before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop, number)

    def _stop(self, number: int) -> None:
        if not self._told.is_set():
            self._told.set()
            return
        self._code = 128 + number
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        if self._plugin.worker is not None:
            self._plugin.worker.hurry()
        elif self._task is not None:
            self._task.cancel()  # it is still starting, or something else does not end

    def _say_hello(self) -> None:
        queues = self._plugin.worker.queues if self._plugin.worker else []
        settings = self._plugin.worker_config
        named = {job.queue for job in self._plugin.jobs.values()}
        print_line(
            f"Taking jobs of {', '.join(queues)}; {count(settings.concurrency if settings else 0, 'job')} at once. "
            "Ctrl-C stops."
        )
        for queue in queues:
            if queue not in named:
                print_line((f"No job of this application names the queue {queue!r}.", "yellow"))

    def _say_goodbye(self) -> None:
        settings = self._plugin.worker_config
        patience = seconds(settings.shutdown_timeout, "shutdown_timeout") if settings else 0
        print_line(f"Stopping. Running jobs have {patience:g} s to end; once more stops them now.")


def _alive() -> bool:
    return any(thread.name.startswith(THREADS) for thread in threading.enumerate())


def _end_now(code: int) -> NoReturn:
    """End without waiting for threads, which Python itself would do; what is registered for the exit still runs."""
    atexit._run_exitfuncs()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - there is no public way
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
