"""Draining: how fast jobs that are there are run and finished."""

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncGenerator

from benchmarks.bench import TEXT, Bench, Hundred, Measured, compared, counter, floor_drain, noop, timed
from litestar_jobs import WorkerConfig

LOOK = (
    "SELECT (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()) AS transactions, "
    "(pg_current_wal_lsn() - '0/0')::float8 AS wal"
)
COUNTED = 1.5
"""Seconds until the server's counters have caught up."""


async def drain(bench: Bench, concurrency: int, jobs: int) -> tuple[float, float]:
    """Jobs per second of one worker, and seconds of CPU that this process took for each."""
    async with bench.application(worker=WorkerConfig(concurrency=concurrency)) as plugin:
        await bench.fill(jobs)
        before = counter.calls
        begun, cpu = time.perf_counter(), time.process_time()
        await plugin.client.store.wake(["default"])
        await counter.reach(before + jobs)
        cpu = time.process_time() - cpu
        await bench.drained()
        return jobs / (time.perf_counter() - begun), cpu / jobs


async def floor(bench: Bench, jobs: int) -> float:
    """Jobs per second of the bare loop."""
    await bench.fill(jobs)
    return jobs / await timed(lambda: floor_drain(bench))


async def one_worker(bench: Bench) -> AsyncGenerator[Measured]:
    """One process with a worker, no-op jobs, at concurrency 100 and 10."""
    floors, hundred, ten, cpus = [], [], [], []
    for _ in range(bench.runs):
        await bench.fresh()
        floors.append(await floor(bench, bench.jobs))
        await bench.fresh()
        rate, cpu = await drain(bench, 100, bench.jobs)
        hundred.append(rate)
        cpus.append(cpu * 1e6)
        await bench.fresh()
        ten.append((await drain(bench, 10, bench.jobs))[0])
    yield compared("drain, concurrency 100", "jobs/s", list(zip(hundred, floors, strict=True)), "0.60 of the floor")
    yield compared("drain, concurrency 10", "jobs/s", list(zip(ten, hundred, strict=True)), "0.70 of concurrency 100")
    yield Measured("CPU of a no-op job, concurrency 100", statistics.median(cpus), "µs", target="25")


async def two_workers(bench: Bench) -> AsyncGenerator[Measured]:
    """Two processes on the same jobs, against one of them alone."""
    pairs = [(await processes(bench, 2), await processes(bench, 1)) for _ in range(bench.runs)]
    yield compared("drain, two processes", "jobs/s", pairs, "more than one process")


async def processes(bench: Bench, count: int) -> float:
    """Jobs per second of so many processes, from the first claim on."""
    jobs = bench.jobs * count
    await bench.fresh()
    await bench.fill(jobs)
    workers = [
        await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.process", bench.dsn)
        for _ in range(count)
    ]
    await bench.begun()
    seconds = await timed(bench.drained)
    for worker in workers:
        worker.terminate()
        await worker.wait()
    return jobs / seconds


async def what_the_server_does(bench: Bench) -> AsyncGenerator[Measured]:
    """Transactions and write-ahead log per job, its insert included."""
    await bench.fresh()
    connection = await bench.connect()
    async with bench.application(worker=WorkerConfig(concurrency=100)) as plugin:
        await asyncio.sleep(COUNTED)
        before = await connection.fetchrow(LOOK)
        await plugin.client.enqueue_many(noop(Hundred(TEXT)) for _ in range(bench.jobs))
        await bench.drained()
    await asyncio.sleep(COUNTED)
    after = await connection.fetchrow(LOOK)
    await connection.close()
    assert before is not None
    assert after is not None
    per_job = {name: (after[name] - before[name]) / bench.jobs for name in ("transactions", "wal")}
    yield Measured("transactions per job, with its insert", per_job["transactions"], "", target="0.05")
    yield Measured("write-ahead log per job, with its insert", per_job["wal"], "bytes", target="1200")
