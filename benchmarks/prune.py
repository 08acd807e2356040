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
SHORT = 30.0
"""Seconds of draining without pruning."""


async def beside(bench: Bench) -> AsyncGenerator[Measured]:
    """Drain again and again while the same process prunes, against the same tables without."""
    await bench.fresh()
    connection = await bench.connect()
    for start in range(0, bench.expired, CHUNK):
        await connection.execute(OLD, start, min(start + CHUNK, bench.expired) - 1, PAYLOAD)
    await connection.execute("VACUUM ANALYZE litestar_jobs.job, litestar_jobs.finished")
    await connection.execute("CHECKPOINT")
    yesterday = UUID(int=int((time.time() - 86_400) * 1000) << 80)
    rates: dict[bool, list[float]] = {}
    seconds = 0.0
    for pruning, retention in ((False, KEEP_ALL), (True, KEEP_A_DAY)):
        rates[pruning] = []
        begun = time.perf_counter()
        async with bench.application(worker=WorkerConfig(concurrency=100), retention=retention) as plugin:
            while (await connection.fetchval(LEFT, yesterday)) if pruning else time.perf_counter() - begun < SHORT:
                rates[pruning].append(await _drain(bench, plugin))
        seconds = time.perf_counter() - begun
    await connection.close()
    with_, without = statistics.median(rates[True]), statistics.median(rates[False])
    name = f"drain while {bench.expired:,} jobs are pruned"
    yield Measured(name, with_, "jobs/s", without, with_ / without, "0.90 of not pruning")
    with_, without = (statistics.quantiles(rates[pruning], n=10)[0] for pruning in (True, False))
    yield Measured("the slowest tenth of these drains", with_, "jobs/s", without, with_ / without)
    yield Measured("pruned meanwhile", bench.expired / seconds, "jobs/s")


async def _drain(bench: Bench, plugin: JobsPlugin) -> float:
    before = counter.calls
    await bench.fill(bench.jobs)
    begun = time.perf_counter()
    await plugin.client.store.wake(["default"])
    await counter.reach(before + bench.jobs)
    await bench.drained()
    return bench.jobs / (time.perf_counter() - begun)
