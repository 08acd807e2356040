"""The soak: random faults against three workers under load, and the oracle at the end.

``python -m tests.faults --minutes 30 --seed 1``. The exit code is 0 if nothing was lost or done twice and the books agree.
"""

import argparse
import asyncio
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

import asyncpg

from .app import Settings, Work, failing, plain, transacted
from .conftest import World
from .fleet import Fleet
from .load import loading
from .oracle import Findings, judge, nobody_left, settled
from .proxy import CLAIM, COMMIT, COMPLETE, PROMOTE, RENEW, SETTLE, Proxy
from .recovery import ends, moment, seconds_to_recover
from .server import Server

WORKERS = 3
CALM = 4.0
"""Seconds between two faults: to recover, and to see the usual rate before the next one."""
STATEMENTS = (CLAIM, COMPLETE, COMMIT, SETTLE, PROMOTE, RENEW)
KINDS = (plain, transacted)


class Soak:
    """Three workers, their database, and what can be done to them."""

    def __init__(self, world: World, dice: random.Random) -> None:
        self.server, self.dsn, self.proxy, self.fleet = world.server, world.dsn, world.proxy, world.fleet
        self.dice = dice
        self.faults: dict[str, Callable[[], Awaitable[None]]] = {
            "worker killed": self.kill_worker,
            "worker suspended beyond its lease": self.suspend_worker,
            "worker replaced, with SIGTERM": self.replace_worker,
            "server stopped fast": lambda: self.server.restart("fast"),
            "server stopped immediately": lambda: self.server.restart("immediate"),
            "server killed": lambda: self.server.restart("kill"),
            "connections terminated": self.terminate,
            "connections cut": self.cut,
            "connections gone silent": self.silence,
            "answer lost after the commit": self.swallow,
        }
        self.injected: Counter[str] = Counter()
        self.broken: list[tuple[datetime, datetime, datetime]] = []
        """Each fault: since when all was well before it, when it began, when it was over."""

    async def kill_worker(self) -> None:
        await self.dice.choice(self.fleet.alive).kill()
        await self.fleet.start()

    async def suspend_worker(self) -> None:
        worker = self.dice.choice(self.fleet.alive)
        worker.signal(signal.SIGSTOP)
        await asyncio.sleep(self.fleet.settings.lease + 2)
        worker.signal(signal.SIGCONT)

    async def replace_worker(self) -> None:
        worker = self.dice.choice(self.fleet.alive)
        await self.fleet.start()
        worker.signal(signal.SIGTERM)
        await worker.ended()

    async def terminate(self) -> None:
        connection = await asyncpg.connect(self.dsn)
        words = self.dice.choice(STATEMENTS)
        await connection.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND query LIKE $1 || '%'",
            words,
        )
        await connection.close()

    async def cut(self) -> None:
        self.proxy.cut(self.dice.choice(STATEMENTS))

    async def silence(self) -> None:
        self.proxy.silence(self.dice.choice(STATEMENTS))

    async def swallow(self) -> None:
        trap = self.proxy.swallow(self.dice.choice(STATEMENTS), cut=self.dice.random() < 0.5)
        async with asyncio.timeout(30):
            await trap.sprung.wait()

    async def run(self, seconds: float) -> None:
        """Let the dice decide what happens next, until the time is over."""
        end = time.monotonic() + seconds
        bag: list[str] = []
        while time.monotonic() < end:
            since = await moment(self.dsn)
            await asyncio.sleep(CALM / 2)
            if not bag:  # each of them once, then each once more
                bag = self.dice.sample(list(self.faults), len(self.faults))
            name = bag.pop()
            broken = await moment(self.dsn)
            await self.faults[name]()
            self.injected[name] += 1
            self.broken.append((since, broken, await moment(self.dsn)))
            say(f"{time.strftime('%H:%M:%S')}  {name}")
            await asyncio.sleep(CALM)

    async def recoveries(self) -> list[float]:
        """Seconds after each fault until jobs were finished at half their usual rate at least."""
        finished = await ends(self.dsn)
        found = [seconds_to_recover(finished, *times) for times in self.broken]
        return [seconds for seconds in found if seconds is not None]


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - a command


def report(soak: Soak, found: Findings, recoveries: list[float], seconds: float) -> None:
    counts = found.counts
    rows: list[tuple[str, object]] = [
        *sorted(soak.injected.items()),
        ("faults in all", soak.injected.total()),
        ("minutes", f"{seconds / 60:.1f}"),
        ("jobs enqueued", counts["enqueued"]),
        ("jobs completed", counts["jobs completed"]),
        ("jobs failed, as they should", counts["jobs failed"]),
        ("enqueues refused with an error", counts["refused"]),
        ("enqueues rolled back", counts["rolled_back"]),
        ("attempts", counts["attempts"]),
        ("claims handed back, uncounted", counts["handed_back"]),
        ("lost", len(found.lost)),
        ("doubled", len(found.doubled)),
        ("effects missing", len(found.missing)),
        ("ran although rolled back or refused", len(found.ghosts)),
        ("jobs whose attempts do not add up", len(found.miscounted)),
        ("seconds to recover, median", f"{statistics.median(recoveries):.1f}"),
        ("seconds to recover, worst", f"{max(recoveries):.1f}"),
    ]
    say("\n" + "\n".join(f"{name:<40}{value:>10}" for name, value in rows))
    if found.wrong:
        say(f"\nWRONG: {found.wrong}")


async def soak(minutes: float, seed: int) -> bool:
    begun = time.monotonic()
    server = Server()
    await server.start()
    try:
        await server.create_template()
        dsn = await server.create("soak")
        directory = tempfile.mkdtemp(prefix="litestar-jobs-soak-")
        async with Proxy(dsn) as proxy, loading(dsn, dsn) as load:
            events = str(Path(directory) / "events")
            fleet = Fleet(Settings(dsn=proxy.dsn, session_dsn=proxy.dsn, direct_dsn=dsn, events=events))
            try:
                await fleet.start_all(WORKERS)
                load.begin(4, lambda n: failing() if n % 50 == 0 else KINDS[n % 2](Work(0.02)))
                await load.begin_rolling_back()
                run = Soak(World(server, dsn, proxy, load, fleet), random.Random(seed))
                await run.run(minutes * 60)
                await load.end()
                await settled(dsn, 120)
                await fleet.stop()
            finally:
                await fleet.kill()
            found = await judge(dsn, load, fleet.events)
            recoveries = await run.recoveries()
        await nobody_left(dsn)
        report(run, found, recoveries, time.monotonic() - begun)
        return not found.wrong
    finally:
        try:
            await server.stop("immediate")
        finally:
            server.remove()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=30)
    arguments.add_argument("--seed", type=int, default=random.randrange(10_000))
    given = arguments.parse_args()
    say(f"seed {given.seed}")
    return 0 if asyncio.run(soak(given.minutes, given.seed)) else 1


if __name__ == "__main__":
    sys.exit(main())
