"""Latency: how soon an idle worker starts a job, and what it costs while there is none."""

import asyncio
import statistics
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any
from unittest.mock import patch

from uuid_utils.compat import uuid7

from benchmarks.bench import SQL, TEXT, Bench, Hundred, Measured, compared, counter, noop
from litestar_jobs import WorkerConfig
from litestar_jobs.database import Link, Record
from litestar_jobs.request import NewJob
from litestar_jobs.store import LARGEST, Lowest, Store

ROUNDS = 200
IDLE = 60.0
"""Seconds of looking at an idle worker: long enough for what it does once a minute."""


def percentile(values: list[float], part: float) -> float:
    """The value below which this part of all lies."""
    return sorted(values)[int(len(values) * part)]


async def start(bench: Bench) -> AsyncGenerator[Measured]:
    """From the call of enqueue to the call of the handler, in this process and from another one."""
    await bench.fresh()
    bare, floors = await in_turn(bench), await notified(bench)
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
    yield compared("an insert, then a claim, on one connection", "ms", [(value, floor) for value in bare])
    yield Measured("idle start, same process, p99", percentile(same, 0.99), "ms")


async def in_turn(bench: Bench) -> list[float]:
    """Milliseconds of an insert and then a claim, with nothing between them: two commits, which is what a start takes."""
    connection = await bench.connect()
    worker_id, lowest, store = uuid7(), Lowest(), Store(connection.fetch, SQL)
    await store.register(worker_id, "floor", 1, ["default"], 3600)
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        await store.enqueue([NewJob(uuid7(), noop(Hundred(TEXT)))])
        assert await store.claim({"default": 10}, {"default": lowest}, worker_id, "{}", LARGEST)
        times.append((time.perf_counter() - begun) * 1e3)
        await asyncio.sleep(0.005)
    await connection.close()
    await bench.fresh()
    return times


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
        assert await claim.fetch(["default"], [10], *bounds, worker_id, "{}", LARGEST)
        times.append((time.perf_counter() - begun) * 1e3)
        await asyncio.sleep(0.005)
    await writer.close()
    await reader.close()
    await bench.fresh()
    return times


async def idle(bench: Bench) -> AsyncGenerator[Measured]:
    """Statements and CPU per second of a process whose worker has nothing to do."""
    await bench.fresh()
    sent = 0
    fetch = Link.fetch

    async def counted(link: Link, sql: str, *arguments: Any) -> Sequence[Record]:
        nonlocal sent
        sent += 1
        return await fetch(link, sql, *arguments)

    with patch.object(Link, "fetch", counted):
        async with bench.application(worker=WorkerConfig()):
            await asyncio.sleep(1)
            before, cpu = sent, time.process_time()
            await asyncio.sleep(IDLE)
            statements, cpu = sent - before, time.process_time() - cpu
    yield Measured("an idle worker: statements", statements / IDLE, "/s", target="1")
    yield Measured("an idle worker: CPU", cpu / IDLE * 100, "%", target="not measurable")
