"""Retention: whether the rate of jobs suffers while a worker deletes millions that were kept long enough."""

import statistics
import time
from collections.abc import AsyncGenerator
from datetime import timedelta
from uuid import UUID

from benchmarks.bench import PAYLOAD, Bench, Measured, counter
from litestar_jobs import JobsPlugin, Retention, WorkerConfig

KEEP_ALL = Retention(completed=None, failed=None, cancelled=None)
KEEP_A_DAY = Retention(completed=timedelta(days=1))
CHUNK = 500_000
OLD = """
WITH old AS (
    INSERT INTO litestar_jobs.job (id, run_at, created_at, max_retries, priority, queue, job_type, payload)
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(random, 1, 3) || '8'
            || substr(random, 4, 15))::uuid, at, at, 3, 0, 'default', 'noop', $3::text::jsonb
      FROM (SELECT now() - interval '2 days' + n * interval '5 milliseconds' AS at, md5(n::text) AS random
              FROM generate_series($1::int, $2::int) AS n) AS times
    RETURNING id, run_at
)
INSERT INTO litestar_jobs.finished (id, started_at, finished_at, attempts, status)
SELECT id, run_at, run_at, 1, 'completed' FROM old
"""
LEFT = "SELECT EXISTS (SELECT FROM litestar_jobs.finished WHERE id < $1)"


async def beside(bench: Bench) -> AsyncGenerator[Measured]:
    """Drain again and again while the same process prunes, and for as long beside the same jobs without pruning."""
    pruning, seconds = await _drains(bench, KEEP_A_DAY)
    without, _ = await _drains(bench, KEEP_ALL, seconds)
    name = f"drain while {bench.expired:,} jobs are pruned"
    yield _against(name, statistics.median(pruning), statistics.median(without), "0.90 of not pruning")
    slowest, slowest_without = (statistics.quantiles(rates, n=10)[0] for rates in (pruning, without))
    yield _against("the slowest tenth of these drains", slowest, slowest_without)
    yield Measured("pruned meanwhile", bench.expired / seconds, "jobs/s")


async def _drains(bench: Bench, retention: Retention, seconds: float | None = None) -> tuple[list[float], float]:
    """The rates of drains for so many seconds, or until nothing that was kept long enough is left; and how long it was."""
    await bench.fresh()
    connection = await bench.connect()
    for start in range(0, bench.expired, CHUNK):
        await connection.execute(OLD, start, min(start + CHUNK, bench.expired) - 1, PAYLOAD)
    await connection.execute("VACUUM ANALYZE litestar_jobs.job, litestar_jobs.finished")
    await connection.execute("CHECKPOINT")
    yesterday = UUID(int=int((time.time() - 86_400) * 1000) << 80)
    rates: list[float] = []
    begun = time.perf_counter()
    async with bench.application(worker=WorkerConfig(concurrency=100), retention=retention) as plugin:
        while (
            time.perf_counter() - begun < seconds if seconds is not None else await connection.fetchval(LEFT, yesterday)
        ):
            rates.append(await _drain(bench, plugin))
    await connection.close()
    return rates, time.perf_counter() - begun


def _against(name: str, value: float, without: float, target: str = "") -> Measured:
    return Measured(name, value, "jobs/s", without, value / without, target)


async def _drain(bench: Bench, plugin: JobsPlugin) -> float:
    before = counter.calls
    await bench.fill(bench.jobs)
    begun = time.perf_counter()
    await plugin.client.store.wake(["default"])
    await counter.reach(before + bench.jobs)
    await bench.drained()
    return bench.jobs / (time.perf_counter() - begun)
