"""What a busy worker does to its process: the requests beside it, and its memory."""

import asyncio
import socket
import statistics
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import psutil

from benchmarks.bench import Bench, Measured
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
    """Requests for next to nothing, one after the other, while the in-app worker drains and while it has nothing to do."""
    pairs: list[tuple[float, float]] = []
    longest: list[float] = []
    for _ in range(bench.runs):
        await bench.fresh()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        async with process(bench, str(port)):
            reader, writer = await _connected(port)
            await _answers(reader, writer, IDLE_REQUESTS // 10)  # warm
            idle = await _answers(reader, writer, IDLE_REQUESTS)
            await bench.fill(bench.jobs)
            connection = await bench.connect()
            await connection.execute("NOTIFY litestar_jobs, 'ready:default'")
            draining = asyncio.ensure_future(bench.drained())
            busy: list[float] = []
            while not draining.done():
                busy += await _answers(reader, writer, 10)
            await connection.close()
            writer.close()
        pairs.append((percentile(busy, 0.99) * 1e3, percentile(idle, 0.99) * 1e3))
        longest.append(max(busy) * 1e3)
    value, floor = (statistics.median(part) for part in zip(*pairs, strict=True))
    ratio = statistics.median(busy / idle for busy, idle in pairs)
    yield Measured("HTTP p99 while the in-app worker drains", value, "ms", floor, ratio, "3 times the idle p99")
    yield Measured("HTTP, the longest of these", statistics.median(longest), "ms")


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
