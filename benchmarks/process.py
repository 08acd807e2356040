"""A process of its own: ``python -m benchmarks.process DSN`` works until SIGTERM; with a port and 1 or 0 after it, it is a
server that answers requests at ``/`` and has a worker at the default settings, or has none."""

import asyncio
import gc
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


def serve(dsn: str, port: int, *, works: bool) -> None:
    """Answer requests, and take jobs beside that."""
    worker = WorkerConfig() if works else None
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[noop], worker=worker, migrate="never"))
    app = Litestar([trivial], on_startup=[gc.freeze], plugins=[plugin], logging_config=None)
    uvicorn.run(app, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    if len(sys.argv) > 2:  # noqa: PLR2004 - a port
        serve(sys.argv[1], int(sys.argv[2]), works=sys.argv[3] == "1")
    else:
        factory = import_module("uvloop").new_event_loop if find_spec("uvloop") else None
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(work(sys.argv[1]))
