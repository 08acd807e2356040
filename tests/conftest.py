"""What all tests share: a real PostgreSQL, a database of its own for each test, and the one invariant.

The server is the embedded one, or the one that ``LITESTAR_JOBS_TEST_DSN`` names. With ``LITESTAR_JOBS_TEST_POOLER=1``
there is PgBouncer in front of it, and what is tested goes through that. With ``LITESTAR_JOBS_TEST_PARTITIONED=1`` the
tables are partitioned, so narrowly that jobs of one test lie in several.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from litestar_jobs import migrate
from litestar_jobs.database import Database, Link
from litestar_jobs.embedded import temporary_dsn
from litestar_jobs.store import Statements, Store
from pooler import pooler, unprepared

TEMPLATE = "litestar_jobs_template"
IS_POOLED = os.environ.get("LITESTAR_JOBS_TEST_POOLER") == "1"
IS_PARTITIONED = os.environ.get("LITESTAR_JOBS_TEST_PARTITIONED") == "1"
PARTITIONED = """
SELECT litestar_jobs.partition_tables('1 minute');
SELECT litestar_jobs.add_partition(ends + minutes * interval '1 minute', ends + (minutes + 1) * interval '1 minute')
  FROM (SELECT max(ends) AS ends FROM litestar_jobs.partitions()) AS last, generate_series(0, 4) AS minutes
"""
NO_AUTOVACUUM = """
DO $$ DECLARE leaf regclass; BEGIN
    FOR leaf IN SELECT oid FROM pg_class WHERE relnamespace = 'litestar_jobs'::regnamespace AND relkind = 'r' LOOP
        EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = false)', leaf);
    END LOOP;
END $$
"""
IN_NO_TIME = "fsync = off; synchronous_commit = off; full_page_writes = off; autovacuum_naptime = '5s'"


def database(dsn: str, name: str) -> str:
    """The DSN with another database name."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


@pytest.fixture(scope="session")
def server_dsn() -> str:
    """A server on which databases may be created."""
    if given := os.environ.get("LITESTAR_JOBS_TEST_DSN"):
        return given
    return temporary_dsn()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Engines that a test leaves open end with its database; behind a pooler that nobody tells, Python finds them."""
    if IS_POOLED:
        for item in items:
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))


@pytest.fixture(scope="session")
def way(server_dsn: str) -> Iterator[str]:
    """The way by which tests go to the server: through a pooler if the environment says so."""
    if not IS_POOLED:
        yield server_dsn
        return
    with unprepared(), pooler(server_dsn) as pooled:
        yield pooled


@pytest.fixture(scope="session")
async def template(server_dsn: str) -> AsyncIterator[str]:
    """A migrated database to copy."""
    admin = await asyncpg.connect(server_dsn)
    if "LITESTAR_JOBS_TEST_DSN" not in os.environ:
        for setting in IN_NO_TIME.split("; "):
            await admin.execute(f"ALTER SYSTEM SET {setting}")
        await admin.execute("SELECT pg_reload_conf()")
    name = f"{TEMPLATE}_{uuid4().hex[:8]}"
    await admin.execute(f"CREATE DATABASE {name}")
    link = Link(Database(database(server_dsn, name)))
    await migrate.upgrade(link, "litestar_jobs")
    if IS_PARTITIONED:
        await link.run(PARTITIONED)
    await link.close()
    yield name
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
async def direct_dsn(server_dsn: str, template: str) -> AsyncIterator[str]:
    """The way to the test's database past a pooler: for those who listen, and for instruments of the test."""
    admin = await asyncpg.connect(server_dsn)
    name = f"test_{uuid4().hex}"
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    own = database(server_dsn, name)
    try:
        yield own
        await assert_no_strays(own)
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


@pytest.fixture
def dsn(direct_dsn: str, server_dsn: str, way: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with empty tables. Afterwards every job must be in exactly one state table."""
    if way != server_dsn:
        monkeypatch.setenv("LITESTAR_JOBS_LISTEN_DSN", direct_dsn)
    return database(way, urlsplit(direct_dsn).path[1:])


@pytest.fixture
def own_loop_dsn(server_dsn: str, way: str, template: str) -> Iterator[str]:
    """A database for a test that runs its own event loop."""

    async def admin(statement: str) -> None:
        connection = await asyncpg.connect(server_dsn)
        await connection.execute(statement)
        await connection.close()

    name = f"moves_{uuid4().hex}"
    with asyncio.Runner() as runner:
        runner.run(admin(f"CREATE DATABASE {name} TEMPLATE {template}"))
        yield database(way, name)
        runner.run(admin(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def empty_dsn(server_dsn: str, way: str) -> AsyncIterator[str]:
    """A database without our tables."""
    admin = await asyncpg.connect(server_dsn)
    name = f"empty_{uuid4().hex}"
    await admin.execute(f"CREATE DATABASE {name}")
    try:
        yield database(way, name)
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


@pytest.fixture
async def connection(direct_dsn: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """A plain connection to the test's database."""
    opened = await asyncpg.connect(direct_dsn)
    yield opened
    await opened.close()


@pytest.fixture
async def link(dsn: str) -> AsyncIterator[Link]:
    opened = Link(Database(dsn))
    yield opened
    await opened.close()


@pytest.fixture
def store(link: Link) -> Store:
    """The statements, over a connection of the test's own."""
    return Store(link.fetch, Statements("litestar_jobs"))


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer's shell says must not decide a test."""
    for name in (
        "LITESTAR_JOBS_DSN",
        "LITESTAR_JOBS_LISTEN_DSN",
        "DATABASE_URL",
        "LITESTAR_JOBS_WORKER",
        "LITESTAR_APP",
    ):
        monkeypatch.delenv(name, raising=False)


async def assert_no_strays(dsn: str, schema: str = "litestar_jobs") -> None:
    """The invariant: every job is in exactly one state table."""
    link = Link(Database(dsn))
    try:
        if await migrate.current_version(link, schema):
            assert await Store(link.fetch, Statements(schema)).strays() == []
    finally:
        await link.close()
