"""A process of its own: ``python -m benchmarks.process DSN`` works until SIGTERM; with a port after it, it is a server
that answers requests at ``/`` and has a worker at the default settings."""

import asyncio
import signal
import sys
from importlib import import_module
from importlib.util import find_spec

import uvicorn
from litestar import Litestar, get

from benchmarks.bench import Bench, noop
from litestar_jobs import JobsConfig, JobsPlugin, WorkerConfig


async def work(dsn: str) -> None:
    """Take jobs until told to stop."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with Bench(dsn, 1, 0).application(worker=WorkerConfig(concurrency=100)):
        await stopped.wait()


@get("/", sync_to_thread=False)
def trivial() -> str:
    """As little as can be."""
    return "hello"


def serve(dsn: str, port: int) -> None:
    """Answer requests, and take jobs beside that."""
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[noop], migrate="never"))
    app = Litestar([trivial], plugins=[plugin], logging_config=None)
    uvicorn.run(app, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    if len(sys.argv) > 2:  # noqa: PLR2004 - a port
        serve(sys.argv[1], int(sys.argv[2]))
    else:
        factory = import_module("uvloop").new_event_loop if find_spec("uvloop") else None
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(work(sys.argv[1]))
