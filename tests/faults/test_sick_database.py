"""A database that is there and not well: slow, read-only, full, crowded, impatient. Whoever writes is told what is wrong,
nothing is lost, and work goes on by itself when the database is well again."""

import asyncio
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import msgspec
import pytest
from litestar import Litestar

from litestar_jobs import JobsConfig, JobsPlugin
from litestar_jobs.errors import DatabaseUnreachable, EnqueueError, JobsError, StartupError
from litestar_jobs.testing import running, until

from .app import Work, plain, transacted
from .conftest import World
from .fleet import Fleet
from .load import Load, loading
from .oracle import judge, nobody_left, settled
from .server import TEMPLATE

TABLES = ("job", "ready", "scheduled", "running", "finished", "failure", "held", "worker")
SHORT = 0.7
"""Seconds that a lock is held: much shorter than the lease, much longer than any statement."""


@asynccontextmanager
async def admin(world: World) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection that no fault is done to."""
    connection = await asyncpg.connect(world.server.dsn())
    yield connection
    await connection.close()


def name_of(world: World) -> str:
    return world.dsn.rpartition("/")[2]


def lines(world: World, words: str) -> int:
    """How many lines of the workers' logs have these words."""
    return sum(worker.output.read_text().count(words) for worker in world.fleet.workers)


async def lock(world: World, table: str, seconds: float) -> None:
    connection = await asyncpg.connect(world.dsn)
    async with connection.transaction():
        await connection.execute(f"LOCK TABLE litestar_jobs.{table} IN ACCESS EXCLUSIVE MODE")
        await asyncio.sleep(seconds)
    await connection.close()


async def test_locks_on_any_table_make_all_wait_and_nobody_lose_anything(world: World) -> None:
    await world.fleet.start_all(2)
    world.load.begin(4, lambda n: (plain, transacted)[n % 2](Work(0.01)))
    for table in TABLES:
        await lock(world, table, SHORT)
        await world.busy(20)
    await world.judged()
    assert world.events.of("LeaseEnded", "JobRescued", "OutcomeRefused") == []


async def test_a_lock_that_outlasts_the_lease_ends_no_lease_unless_it_is_on_the_workers(world: World) -> None:
    """Behind a lock on ``running`` a worker renews its lease. Behind one on ``worker`` it cannot, and stops its jobs before
    others may start them."""
    lasting = world.fleet.settings.lease + 1
    await world.fleet.start_all(2)
    for _ in range(4):
        await world.load.put(transacted(Work(lasting + 1)))
    await until(lambda: begun(world, 4))
    await lock(world, "running", lasting)
    assert world.events.of("LeaseEnded", "JobRescued") == []
    await lock(world, "worker", lasting)
    found = await world.judged()
    assert world.events.of("LeaseEnded")
    assert found.counts["jobs completed"] == 4


async def begun(world: World, count: int) -> bool:
    return len(world.events.of("AttemptStarted")) >= count


async def test_a_database_that_takes_no_writes_is_named_and_works_again_when_it_does(world: World) -> None:
    """Connections of before stay as they were, and those that are opened meanwhile are replaced afterwards: as with a
    server that became a standby, and is not one any more."""
    await world.fleet.start_all(2)
    world.load.begin(2, lambda n: (plain, transacted)[n % 2](Work(0.01)))
    await world.busy(50)
    async with admin(world) as connection:
        await connection.execute(f"ALTER DATABASE {name_of(world)} SET default_transaction_read_only = on")
        await end_all(connection, world)
        await until(lambda: refused(world, "takes no writes"), 10)
        with pytest.raises(StartupError, match="takes no writes"):
            async with running(
                Litestar(plugins=[JobsPlugin(JobsConfig(dsn=world.dsn, jobs=[plain]))], logging_config=None)
            ):
                pass
        await asyncio.sleep(world.fleet.settings.lease + 1)
        assert 0 < lines(world, "target_session_attrs") <= 2 * 12, "two workers of six loops each, twice at the most"
        await connection.execute(f"ALTER DATABASE {name_of(world)} RESET default_transaction_read_only")
    await world.busy(50)
    await world.judged()


async def end_all(connection: "asyncpg.Connection[asyncpg.Record]", world: World) -> None:
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name_of(world)
    )


async def refused(world: World, words: str) -> bool:
    """Whether a caller is told so."""
    try:
        await world.load.put(plain(Work()))
    except EnqueueError as error:
        return "nothing was enqueued" in str(error) and words in str(error)
    except JobsError:
        pass  # the connection was ended just now
    return False


@dataclass
class Role:
    """A login that has no more rights than it needs, for workers and callers."""

    name: str
    dsn: str


@pytest.fixture
async def role(world: World) -> AsyncIterator[Role]:
    name = f"faults_{uuid4().hex[:8]}"
    connection = await asyncpg.connect(world.dsn)
    await connection.execute(f"CREATE ROLE {name} LOGIN")
    await connection.execute(
        f"GRANT USAGE ON SCHEMA litestar_jobs TO {name};"
        f"GRANT ALL ON ALL TABLES IN SCHEMA litestar_jobs TO {name};"
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA litestar_jobs, public TO {name};"
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name};"
    )
    dsn = world.dsn.replace("postgres@", f"{name}@")
    world.fleet.settings = msgspec.structs.replace(world.fleet.settings, dsn=dsn, session_dsn=dsn)
    yield Role(name, dsn)
    await world.fleet.kill()
    await connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
    await connection.close()


async def test_without_connections_callers_are_told_why_and_work_goes_on_when_there_are_some(
    world: World, role: Role
) -> None:
    await world.fleet.start_all(2)
    world.load.begin(2, lambda n: (plain, transacted)[n % 2](Work(0.01)))
    await world.busy(50)
    async with admin(world) as connection, loading(role.dsn, world.dsn) as load:
        await connection.execute(f"ALTER ROLE {role.name} CONNECTION LIMIT 0")
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role.name)
        with pytest.raises(EnqueueError, match=r"nothing was enqueued.*too many connections.*put a pooler in front"):
            await load.put(plain(Work()))
        with pytest.raises(DatabaseUnreachable, match="put a pooler in front"):
            async with running(
                Litestar(plugins=[JobsPlugin(JobsConfig(dsn=role.dsn, jobs=[plain]))], logging_config=None)
            ):
                pass
        await asyncio.sleep(world.fleet.settings.lease + 1)
        assert 0 < lines(world, "put a pooler in front") <= 2 * 12
        await connection.execute(f"ALTER ROLE {role.name} CONNECTION LIMIT -1")
        await world.busy(50)
    await world.judged()


async def test_limits_of_time_that_a_role_has_lose_nothing(world: World, role: Role) -> None:
    """Statements that wait for a lock are cancelled, and jobs that are idle in their transaction lose it and are retried."""
    async with admin(world) as connection:
        for limit in ("statement_timeout = '300ms'", "lock_timeout = '200ms'"):
            await connection.execute(f"ALTER ROLE {role.name} SET {limit}")
        await connection.execute(f"ALTER ROLE {role.name} SET idle_in_transaction_session_timeout = '100ms'")
    await world.fleet.start_all(2)
    async with loading(role.dsn, world.dsn) as load:
        world.load.begin(2, lambda n: (plain, transacted)[n % 2](Work(0.01)))
        await world.busy(50)
        for table in TABLES:
            locked = asyncio.create_task(lock(world, table, SHORT))
            if table in {"job", "ready"}:
                with pytest.raises(
                    EnqueueError, match=r"nothing was enqueued: canceling statement due to lock timeout"
                ):
                    await put_until(load, locked)
            await locked
        assert await load.client.get(await load.put(plain(Work())))
        world.load.committed |= load.committed
    await world.judged()


async def put_until(load: Load, over: "asyncio.Task[None]") -> None:
    while not over.done():
        await load.put(plain(Work()))


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(100_000))


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A file system of its own; skips the test where none may be made."""
    directory = Path(tempfile.mkdtemp(prefix="litestar-jobs-disk-"))
    words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "tmpfs", str(directory)]
    try:
        if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode != 0:
            pytest.skip("no file system may be mounted here, so there is no full disk")
        yield directory
        subprocess.run(["umount", str(directory)], check=True)
    finally:
        directory.rmdir()


async def test_a_full_disk_is_named_and_work_goes_on_when_there_is_room(world: World) -> None:
    name = f"faults_{uuid4().hex[:12]}"
    with small_disk(48) as disk:
        async with admin(world) as connection:
            (disk / "space").mkdir()
            owner = (world.server.data / "PG_VERSION").stat()
            os.chown(disk / "space", owner.st_uid, owner.st_gid)
            await connection.execute(f"CREATE TABLESPACE {name} LOCATION '{disk / 'space'}'")
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} TABLESPACE {name}")
            try:
                await fill_up(world, world.server.dsn(name), disk)
            finally:
                await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
                await connection.execute(f"DROP TABLESPACE {name}")


async def fill_up(world: World, dsn: str, disk: Path) -> None:
    fleet = Fleet(msgspec.structs.replace(world.fleet.settings, dsn=dsn, session_dsn=dsn, direct_dsn=dsn))
    async with loading(dsn, dsn) as load:
        try:
            await fleet.start_all(2)
            await load.backlog(200)
            ballast = disk / "ballast"
            await asyncio.to_thread(fill, ballast)
            with pytest.raises(EnqueueError, match=r"nothing was enqueued.*No space left on device"):
                await put_until(load, asyncio.create_task(asyncio.sleep(20)))
            await asyncio.sleep(1)
            ballast.unlink()
            await load.backlog(200)
            await settled(dsn)
            assert await fleet.stop() == [0, 0]
            found = await judge(dsn, load, fleet.events)
            assert found.wrong == {}
        finally:
            await fleet.kill()
    await nobody_left(dsn)
