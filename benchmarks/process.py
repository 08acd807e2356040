"""A worker in a process of its own: ``python -m benchmarks.process DSN``, until SIGTERM."""

import asyncio
import signal
import sys
from importlib import import_module
from importlib.util import find_spec

from benchmarks.bench import Bench
from litestar_jobs import WorkerConfig


async def work(dsn: str) -> None:
    """Take jobs until told to stop."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with Bench(dsn, 1, 0).application(worker=WorkerConfig(concurrency=100)):
        await stopped.wait()


if __name__ == "__main__":
    factory = import_module("uvloop").new_event_loop if find_spec("uvloop") else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work(sys.argv[1]))
