"""What a busy worker does to its process: the requests beside it, and its memory."""

import asyncio
import socket
import statistics
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext

import psutil

from benchmarks.bench import Bench, Measured, compared
from benchmarks.latency import percentile

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
PAUSE = 0.001
"""Seconds between an answer and the next request."""
IDLE_REQUESTS = 2_000
MILLION = 1_000_000
PARTS = (0.05, 0.5, 0.95)


@asynccontextmanager
async def process(bench: Bench, *arguments: str) -> AsyncGenerator[Process]:
    """A process of the benchmark's, until the end of the block."""
    started = await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.process", bench.dsn, *arguments)
    try:
        yield started
    finally:
        started.terminate()
        await started.wait()


async def requests(bench: Bench) -> AsyncGenerator[Measured]:
    """Requests for next to nothing, one after the other, while the in-app worker drains; while it has nothing to do; and
    while a worker in another process drains, which takes the same cores."""
    here, elsewhere, idle = [], [], []
    for _ in range(bench.runs):
        quiet, busy = await beside(bench, in_app=True)
        _, other = await beside(bench, in_app=False)
        idle.append(percentile(quiet, 0.99) * 1e3)
        here.append(percentile(busy, 0.99) * 1e3)
        elsewhere.append(percentile(other, 0.99) * 1e3)
    yield compared("HTTP p99 while the in-app worker drains", "ms", list(zip(here, elsewhere, strict=True)))
    yield Measured("HTTP p99 while a worker elsewhere drains", statistics.median(elsewhere), "ms")
    yield Measured("HTTP p99, idle", statistics.median(idle), "ms", target="a third of the first")


async def beside(bench: Bench, *, in_app: bool) -> tuple[list[float], list[float]]:
    """Seconds of requests to an idle process, and while jobs are drained, in it or in another one."""
    await bench.fresh()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with process(bench, str(port), "1" if in_app else "0"):
        reader, writer = await _connected(port)
        await _answers(reader, writer, IDLE_REQUESTS // 10)  # warm
        idle = await _answers(reader, writer, IDLE_REQUESTS)
        await bench.fill(bench.jobs)
        async with nullcontext() if in_app else process(bench):
            if in_app:
                connection = await bench.connect()
                await connection.execute("NOTIFY litestar_jobs, 'ready:default'")
                await connection.close()
            await bench.begun()
            draining = asyncio.ensure_future(bench.drained())
            busy: list[float] = []
            while not draining.done():
                busy += await _answers(reader, writer, 10)
        writer.close()
    return idle, busy


async def _connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.05)


async def _answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: int) -> list[float]:
    """Seconds that each answer took."""
    times: list[float] = []
    for _ in range(count):
        begun = time.perf_counter()
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        times.append(time.perf_counter() - begun)
        await asyncio.sleep(PAUSE)
    return times


async def memory(bench: Bench) -> AsyncGenerator[Measured]:
    """Resident memory of a worker's process over a million jobs."""
    await bench.fresh()
    await bench.fill(MILLION)
    connection = await bench.connect()
    seen: list[float] = []
    async with process(bench) as worker:
        process_of_worker = psutil.Process(worker.pid)
        for part in PARTS:
            while await connection.fetchval("SELECT count(*) FROM litestar_jobs.finished") < MILLION * part:
                await asyncio.sleep(0.2)
            seen.append(process_of_worker.memory_info().rss / 1e6)
    await connection.close()
    for part, megabytes in zip(PARTS, seen, strict=True):
        yield Measured(f"memory of a worker after {part:.0%} of a million jobs", megabytes, "MB", target="flat")
