"""``python -m benchmarks run [NAME ...]`` prints a table and writes JSON; ``compare OLD NEW`` puts two results together."""

import argparse
import asyncio
import logging
import os
import platform
from collections.abc import AsyncGenerator, Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks import drain, enqueue, history, latency, neighbours, prune, sessions
from benchmarks.bench import Bench, Measured
from litestar_jobs.embedded import temporary_dsn

SCENARIOS: dict[str, Callable[[Bench], AsyncGenerator[Measured]]] = {
    "drain": drain.one_worker,
    "processes": drain.two_workers,
    "server": drain.what_the_server_does,
    "sessions": sessions.drain,
    "enqueue": enqueue.single,
    "bulk": enqueue.bulk,
    "with": enqueue.in_session,
    "start": latency.start,
    "idle": latency.idle,
    "millions": history.millions,
    "snapshot": history.snapshot,
    "vacuum": history.vacuum,
    "prune": prune.beside,
    "requests": neighbours.requests,
    "memory": neighbours.memory,
}
TUNED = "shared_buffers = '512MB'; max_wal_size = '8GB'"
"""Room, so that no checkpoint falls into one half of a comparison. Durability stays as it is."""


class Result(msgspec.Struct):
    """A run, as it is written."""

    machine: str
    python: str
    postgresql: str
    measured: list[Measured]


async def measure(names: list[str], bench: Bench, console: Console) -> Result:
    """Run the scenarios one after the other."""
    await bench.fresh()
    connection = await bench.connect()
    version = await connection.fetchval("SHOW server_version")
    await connection.close()
    measured: list[Measured] = []
    for name in names:
        console.print(f"{name} …", style="dim")
        measured += [line async for line in SCENARIOS[name](bench)]
    return Result(f"{os.cpu_count()} cores, {platform.machine()}", platform.python_version(), version, measured)


def table(result: Result) -> Table:
    """For a terminal."""
    made = Table(title=f"{result.machine}, Python {result.python}, PostgreSQL {result.postgresql}")
    for name in ("", "value", "floor", "ratio", "target"):
        made.add_column(name, justify="left" if name in {"", "target"} else "right")
    for line in result.measured:
        made.add_row(
            line.name,
            f"{line.value:,.4g} {line.unit}",
            *(shown(part) for part in (line.floor, line.ratio)),
            line.target,
        )
    return made


def shown(value: float | None) -> str:
    return "" if value is None else f"{value:,.3g}"


def compare(old: Result, new: Result) -> Table:
    """Two results, line by line."""
    before = {line.name: line for line in old.measured}
    made = Table(title="new against old; ratios to the floor are what to trust")
    for name in ("", "old", "new", "old ratio", "new ratio"):
        made.add_column(name, justify="right" if name else "left")
    for line in new.measured:
        was = before.get(line.name)
        made.add_row(
            line.name,
            *(shown(part) for part in (was.value if was else None, line.value, was.ratio if was else None, line.ratio)),
        )
    return made


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure")
    run.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SCENARIOS)}; all without any")
    run.add_argument("--dsn", help="a PostgreSQL that may be written to; a temporary embedded one without")
    run.add_argument("--runs", type=int, default=3, help="of each scenario (default: %(default)s)")
    run.add_argument("--jobs", type=int, default=20_000, help="of one drain (default: %(default)s)")
    run.add_argument("--expired", type=int, default=10_000_000, help="jobs that are pruned (default: %(default)s)")
    run.add_argument("--partitioned", action="store_true", help="with the tables in partitions")
    run.add_argument("--json", type=Path, default=Path("benchmarks.json"), help="where to write (default: %(default)s)")
    both = commands.add_parser("compare", help="put two results together")
    both.add_argument("old", type=Path)
    both.add_argument("new", type=Path)
    given = parser.parse_args()
    console = Console()
    if given.command == "compare":
        console.print(
            compare(*(msgspec.json.decode(file.read_bytes(), type=Result) for file in (given.old, given.new)))
        )
        return
    if unknown := set(given.names) - set(SCENARIOS):
        parser.error(f"there is no scenario {', '.join(unknown)}")
    logging.disable(logging.INFO)
    factory = import_module("uvloop").new_event_loop if find_spec("uvloop") else None
    with asyncio.Runner(loop_factory=factory) as runner:
        result = runner.run(
            measure(
                given.names or list(SCENARIOS),
                Bench(
                    given.dsn or temporary_dsn(),
                    given.runs,
                    given.jobs,
                    given.expired,
                    partitioned=given.partitioned,
                ),
                console,
            )
        )
    given.json.write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    console.print(table(result))


if __name__ == "__main__":
    main()
