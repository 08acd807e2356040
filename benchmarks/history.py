"""Whether claims slow down: behind a history, behind a backlog of others, under a held snapshot."""

import statistics
import time
from collections.abc import AsyncGenerator

from benchmarks.bench import Bench, Measured, compared
from benchmarks.drain import drain

MILLION = 1_000_000
WINDOWS = 3
LONG = 15.0
"""Seconds under a snapshot."""


async def millions(bench: Bench) -> AsyncGenerator[Measured]:
    """The drain with a million jobs in other states, against empty tables."""
    for state, queue in (("finished", "default"), ("scheduled", "default"), ("ready", "other")):
        pairs = []
        for _ in range(bench.runs):
            await bench.fresh()
            empty, _ = await drain(bench, 100, bench.jobs)
            await bench.fresh()
            await bench.fill(MILLION, state=state, queue=queue, name="other")
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
