"""Whether claims slow down: behind a history, behind a backlog of others, under a held snapshot."""

import statistics
import time
from collections.abc import AsyncGenerator

from benchmarks.bench import Bench, Measured, compared
from benchmarks.drain import drain

MILLION = 1_000_000
STATES = ("ready", "running", "scheduled")
SETTINGS_OF_VACUUM = (
    "autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold, autovacuum_vacuum_cost_delay, "
    "autovacuum_analyze_scale_factor, autovacuum_analyze_threshold"
)
SIZE = "SELECT sum(pg_total_relation_size('litestar_jobs.' || name)) / 1e6 FROM unnest($1::text[]) AS name"
WINDOWS = 3
LONG = 15.0
"""Seconds under a snapshot."""
VERY_LONG = 150.0
"""Seconds of load, more than two rounds of autovacuum at its default interval of a minute."""


async def millions(bench: Bench) -> AsyncGenerator[Measured]:
    """The drain with a million jobs in other states, against empty tables."""
    for state, queue in (("finished", "default"), ("scheduled", "default"), ("ready", "other")):
        pairs = []
        for _ in range(bench.runs):
            await bench.fresh()
            await bench.settle()
            empty, _ = await drain(bench, 100, bench.jobs)
            await bench.fresh()
            await bench.fill(MILLION, state=state, queue=queue, name="other")
            await bench.settle()
            rate, _ = await drain(bench, 100, bench.jobs)
            pairs.append((rate, empty))
        yield compared(f"drain beside a million {state} ({queue})", "jobs/s", pairs, "0.90 of empty tables")


async def snapshot(bench: Bench) -> AsyncGenerator[Measured]:
    """Drain again and again while a transaction holds a snapshot; the last third against the same without."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    for held in (True, False):
        await bench.fresh()
        connection = await bench.connect()
        if held:
            await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM litestar_jobs.ready")
        begun = time.perf_counter()
        while time.perf_counter() - begun < LONG:
            rates[held].append((await drain(bench, 100, bench.jobs))[0])
        await connection.close()
    last = {held: statistics.median(found[-max(1, len(found) // WINDOWS) :]) for held, found in rates.items()}
    yield Measured(
        "drain under a held snapshot, last third", last[True], "jobs/s", last[False], last[True] / last[False], "0.70"
    )


async def vacuum(bench: Bench) -> AsyncGenerator[Measured]:
    """The drain under steady load with the autovacuum settings of the schema, against those of the server."""
    rates: dict[bool, float] = {}
    sizes: dict[bool, float] = {}
    for ours in (True, False):
        await bench.fresh()
        connection = await bench.connect()
        if not ours:
            for state in STATES:
                await connection.execute(f"ALTER TABLE litestar_jobs.{state} RESET ({SETTINGS_OF_VACUUM})")
        found: list[float] = []
        begun = time.perf_counter()
        while time.perf_counter() - begun < VERY_LONG:
            found.append((await drain(bench, 100, bench.jobs))[0])
        rates[ours] = statistics.median(found[-(len(found) // WINDOWS) :])
        sizes[ours] = float(await connection.fetchval(SIZE, list(STATES)))
        await connection.close()
    ratio = rates[True] / rates[False]
    yield Measured("drain after minutes, against the server's autovacuum", rates[True], "jobs/s", rates[False], ratio)
    ratio = sizes[True] / sizes[False]
    yield Measured("size of the state tables then", sizes[True], "MB", sizes[False], ratio)
