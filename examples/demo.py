"""Serve the example with uvicorn, make a round of requests, and show what became of them.

``python -m examples.demo`` stays up for your own requests until Ctrl-C; ``--once`` ends after the round, with exit
code 0 if everything happened as it should.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from uuid import UUID

import httpx
import uvicorn
from litestar import Litestar

from examples.app import create_app
from litestar_jobs import JobsPlugin, JobStatus
from litestar_jobs.embedded import temporary_dsn
from litestar_jobs.testing import ended

ROUND = (
    ("/users", {"email": "ada@example.com"}, "demo-ada"),
    ("/users", {"email": "flaky@example.com"}, "demo-flaky"),
    ("/users/rejected", {"email": "bob@example.com"}, "demo-rollback"),
    ("/reports", None, "demo-report"),
)
"""Requests and the trace ids that they carry."""


def say(text: str) -> None:
    """Print between the log lines, which come from other places at the same time."""
    print(text, flush=True)  # noqa: T201 - this is a demonstration


@contextlib.asynccontextmanager
async def served(app: Litestar, port: int) -> AsyncIterator[tuple[str, asyncio.Task[None]]]:
    """The application behind uvicorn, on this machine only: its address, and the task that ends with the server."""
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", lifespan="on"))
    task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            if task.done():
                await task
                sys.exit(1)
            await asyncio.sleep(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", task
    finally:
        server.should_exit = True
        await task


async def make_round(app: Litestar, url: str) -> bool:
    """Make the requests and wait for their jobs. Whether all went as it should."""
    plugin = next(plugin for plugin in app.plugins.init if isinstance(plugin, JobsPlugin))
    outcomes: list[tuple[str, str, str]] = []
    async with httpx.AsyncClient(base_url=url) as http:
        for path, body, trace_id in ROUND:
            say(
                f"\n$ curl -X POST {url}{path} -H 'x-trace-id: {trace_id}'"
                + (f" --json '{json.dumps(body)}'" if body else "")
            )
            response = await http.post(path, json=body, headers={"x-trace-id": trace_id})
            say(response.text)
            if not response.is_success:
                outcomes.append((trace_id, "-", f"rolled back: {response.status_code}, no user, no job"))
                continue
            row = await ended(plugin.client, UUID(response.json()["job_id"]))
            outcomes.append((row.trace_id or "", row.job_type, f"{row.status} after {row.attempts} attempt(s)"))
        there = (await http.get("/")).json()

    say("\nWhat happened:\n")
    for trace_id, job_type, outcome in outcomes:
        say(f"  {trace_id:<14} {job_type:<20} {outcome}")
    say(f"\n  users {there['users']}\n  mails {there['mails']}\n  reports {there['reports']}\n")
    completed = [outcome for *_, outcome in outcomes if outcome.startswith(JobStatus.COMPLETED)]
    return len(completed) == 3 and len(there["mails"]) == 2 and "bob@example.com" not in there["users"]  # noqa: PLR2004


async def demo(port: int, *, once: bool) -> int:
    """Serve, make the round, and stay."""
    app = create_app(os.environ.get("DATABASE_URL") or temporary_dsn())
    async with served(app, port) as (url, server):
        well = await make_round(app, url)
        if not once:
            say(f"The application stays up at {url} until you press Ctrl-C. Try the lines above with curl.\n")
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([server])
    return 0 if well else 1


def main() -> int:
    """Read the arguments and run."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--once", action="store_true", help="end after the round")
    arguments.add_argument("--port", type=int, default=8000, help="0: any that is free (default: %(default)s)")
    given = arguments.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # with all that happens at exit
    try:
        return asyncio.run(demo(given.port, once=given.once))
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
