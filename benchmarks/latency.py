"""Latency: how soon an idle worker starts a job, and what it costs while there is none."""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import asyncpg
from uuid_utils.compat import uuid7

from benchmarks.bench import SQL, TEXT, Bench, Hundred, Measured, compared, counter, noop
from litestar_jobs import WorkerConfig
from litestar_jobs.request import NewJob
from litestar_jobs.store import Lowest, Store

ROUNDS = 200
IDLE = 10.0
"""Seconds of looking at an idle worker."""


def percentile(values: list[float], part: float) -> float:
    """The value below which this part of all lies."""
    return sorted(values)[int(len(values) * part)]


async def start(bench: Bench) -> AsyncGenerator[Measured]:
    """From the call of enqueue to the call of the handler, in this process and from another one."""
    await bench.fresh()
    floors = await notified(bench)
    async with bench.application(worker=WorkerConfig()) as plugin:
        same = []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            before = counter.calls
            await plugin.client.enqueue(noop(Hundred(TEXT)))
            await counter.reach(before + 1)
            same.append((time.perf_counter() - begun) * 1e3)
            await asyncio.sleep(0.005)
        connection = await bench.connect()
        # Another connection is as far away as another process: the wake-up comes through the server.
        store, other = Store(connection.fetch, SQL), []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            before = counter.calls
            await store.enqueue([NewJob(uuid7(), noop(Hundred(TEXT)))])
            await counter.reach(before + 1)
            other.append((time.perf_counter() - begun) * 1e3)
            await asyncio.sleep(0.005)
        await connection.close()
    floor = statistics.median(floors)
    yield compared("idle start, other process", "ms", [(value, floor) for value in other], "at most 1.5 of the floor")
    yield Measured("idle start, other process, p99", percentile(other, 0.99), "ms")
    yield compared("idle start, same process", "ms", [(value, floor) for value in same], "at most 0.7 of the floor")
    yield Measured("idle start, same process, p99", percentile(same, 0.99), "ms")


async def notified(bench: Bench) -> list[float]:
    """Milliseconds of the floor: insert with NOTIFY, LISTEN, claim."""
    writer, reader = await bench.connect(), await bench.connect()
    heard = asyncio.Event()
    await reader.add_listener(SQL.channel, lambda *_: heard.set())
    worker_id, lowest, store = uuid7(), Lowest(), Store(writer.fetch, SQL)
    await store.register(worker_id, "floor", 1, ["default"], 3600)
    claim = await reader.prepare(SQL["claim"])
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        await store.enqueue([NewJob(uuid7(), noop(Hundred(TEXT)))])
        await heard.wait()
        heard.clear()
        bounds = [lowest.priority], [lowest.run_at], [lowest.id]
        assert await claim.fetch(["default"], [10], *bounds, worker_id, "{}")
        times.append((time.perf_counter() - begun) * 1e3)
        await asyncio.sleep(0.005)
    await writer.close()
    await reader.close()
    await bench.fresh()
    return times


async def idle(bench: Bench) -> AsyncGenerator[Measured]:
    """Transactions and CPU per second of a worker in a process of its own that has nothing to do."""
    await bench.fresh()
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.process", bench.dsn)
    connection = await bench.connect()
    while not await connection.fetchval("SELECT count(*) FROM litestar_jobs.worker"):
        await asyncio.sleep(0.02)
    await asyncio.sleep(2)
    before = await transactions(connection), cpu_of(process.pid)
    await asyncio.sleep(IDLE)
    after = await transactions(connection), cpu_of(process.pid)
    await connection.close()
    process.terminate()
    await process.wait()
    yield Measured("an idle worker: statements", (after[0] - before[0]) / IDLE, "/s", target="1")
    yield Measured("an idle worker: CPU", (after[1] - before[1]) / IDLE * 100, "%", target="none")


async def transactions(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    """Of everybody else: this one's own are in a transaction that has not ended."""
    return int(await connection.fetchval("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"))


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used, on Linux."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
