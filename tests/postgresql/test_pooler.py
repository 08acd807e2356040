"""Behind PgBouncer in transaction mode: everything works, wake-ups by a way past it. The whole suite runs so as well,
with ``LITESTAR_JOBS_TEST_POOLER=1``."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from advanced_alchemy.extensions.litestar import SQLAlchemyAsyncConfig, SQLAlchemyPlugin
from advanced_alchemy.extensions.litestar.plugins.init.config.engine import EngineConfig
from litestar import Litestar
from litestar.di import NamedDependency
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from conftest import database
from litestar_jobs import Fixed, JobsConfig, JobsPlugin, JobStatus, WorkerConfig, job, migrate
from litestar_jobs.database import Database, Link
from litestar_jobs.errors import ConfigurationError
from litestar_jobs.request import NewJob
from litestar_jobs.store import Store
from litestar_jobs.telemetry import Event, ListenerDeaf
from litestar_jobs.testing import drained, ended, running, until
from litestar_jobs.worker import listen
from pooler import pooler

NO_POLLING = 3600.0


@pytest.fixture(scope="module")
def few_connections(server_dsn: str) -> Iterator[str]:
    """A pooler that has fewer connections than its clients, so that they change all the time."""
    with pooler(server_dsn, connections=3) as pooled:
        yield pooled


@pytest.fixture
def pooled_dsn(few_connections: str, direct_dsn: str) -> str:
    return database(few_connections, urlsplit(direct_dsn).path[1:])


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener checks itself at once, and again."""
    monkeypatch.setattr(listen, "PATIENCE", 0.2)
    monkeypatch.setattr(listen, "CHECK", 0.05)


@job(max_retries=2, retry=Fixed(0))
async def work(number: int) -> None:
    if number % 10 == 0:
        raise ValueError(number)


@asynccontextmanager
async def worker(dsn: str, happened: list[Event], **settings: Any) -> AsyncIterator[JobsPlugin]:
    config = JobsConfig(
        dsn=dsn, jobs=[work], hooks=[happened.append], worker=WorkerConfig(**{"poll_interval": NO_POLLING} | settings)
    )
    plugin = JobsPlugin(config)
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        yield plugin


async def test_jobs_run_fail_wait_and_are_cancelled_behind_a_pooler(pooled_dsn: str) -> None:
    async with worker(pooled_dsn, [], concurrency=20, poll_interval=0.2) as plugin:
        client = plugin.client
        await asyncio.gather(*(client.enqueue(work(number)) for number in range(100)))
        await client.enqueue_many([work(number) for number in range(300)])
        later = await client.enqueue(work(1, delay=timedelta(seconds=0.2)))
        cancelled = await client.enqueue(work(1, delay=timedelta(hours=1)))
        assert await client.cancel(cancelled)
        assert (await ended(client, later)).status is JobStatus.COMPLETED
        await drained(client)
        ends = {count.status: count.jobs for count in await client.store.count()}
    assert ends == {"completed": 361, "failed": 40, "cancelled": 1}


async def test_a_job_is_finished_in_the_transaction_of_a_session_behind_a_pooler(pooled_dsn: str) -> None:
    """With the settings of the engine that the documentation names."""

    @job
    async def write(number: int, db_session: NamedDependency[AsyncSession]) -> None:
        await db_session.execute(text("INSERT INTO written VALUES (:number)"), {"number": number})

    alchemy = SQLAlchemyAsyncConfig(
        connection_string=pooled_dsn.replace("postgresql://", "postgresql+asyncpg://"),
        engine_config=EngineConfig(connect_args={"statement_cache_size": 0, "prepared_statement_name_func": str}),
    )
    plugin = JobsPlugin(JobsConfig(jobs=[write]))
    async with running(Litestar(plugins=[SQLAlchemyPlugin(alchemy), plugin], logging_config=None)):
        await plugin.client.store._fetch("CREATE TABLE written (number int)")
        await plugin.client.enqueue_many([write(number) for number in range(50)])
        await drained(plugin.client)
        (row,) = await plugin.client.store._fetch("SELECT array_agg(number ORDER BY number) AS numbers FROM written")
        (counted,) = await plugin.client.store.count()
    assert row["numbers"] == list(range(50))
    assert (counted.status, counted.jobs) == ("completed", 50)


@pytest.mark.parametrize("by", ["setting", "environment"])
async def test_a_worker_that_listens_past_the_pooler_starts_jobs_of_other_processes_at_once(
    by: str, pooled_dsn: str, direct_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"listen_dsn": direct_dsn} if by == "setting" else {}
    if by == "environment":
        monkeypatch.setenv("LITESTAR_JOBS_LISTEN_DSN", direct_dsn)
    async with worker(pooled_dsn, [], **settings) as plugin:
        await until(lambda: _is_idle(plugin))
        elsewhere = Link(Database(pooled_dsn))
        job_id = uuid7()
        await Store(elsewhere.fetch, plugin.statements).enqueue([NewJob(job_id, work(1))])
        await elsewhere.close()
        assert (await ended(plugin.client, job_id, 5)).status is JobStatus.COMPLETED


async def _is_idle(plugin: JobsPlugin) -> bool:
    return plugin.worker is not None and plugin.worker._claimer.pause() is None


@pytest.mark.usefixtures("_soon")
async def test_a_listener_that_hears_nothing_is_told_of_once_with_the_remedy_and_the_worker_polls(
    pooled_dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    happened: list[Event] = []
    async with worker(pooled_dsn, happened, poll_interval=0.2) as plugin:
        await until(lambda: _seen(happened))
        elsewhere = Link(Database(pooled_dsn))
        job_id = uuid7()
        await Store(elsewhere.fetch, plugin.statements).enqueue([NewJob(job_id, work(1))])
        await elsewhere.close()
        assert (await ended(plugin.client, job_id, 5)).status is JobStatus.COMPLETED
        await asyncio.sleep(4 * (listen.PATIENCE + listen.CHECK))  # some more checks
    assert [event for event in happened if isinstance(event, ListenerDeaf)] == [ListenerDeaf(0.2)]
    assert caplog.text.count("LITESTAR_JOBS_LISTEN_DSN") == 1


async def _seen(happened: list[Event]) -> bool:
    return any(isinstance(event, ListenerDeaf) for event in happened)


@pytest.mark.usefixtures("_soon")
async def test_a_listener_that_hears_is_not_told_of(direct_dsn: str, pooled_dsn: str) -> None:
    for settings in ({"dsn": direct_dsn}, {"dsn": pooled_dsn, "listen_dsn": direct_dsn}):
        happened: list[Event] = []
        async with worker(happened=happened, **settings):
            await asyncio.sleep(4 * (listen.PATIENCE + listen.CHECK))
        assert not await _seen(happened)


@pytest.mark.usefixtures("_soon")
async def test_a_connection_that_stops_hearing_is_replaced(direct_dsn: str) -> None:
    happened: list[Event] = []
    async with worker(direct_dsn, happened) as plugin:
        assert plugin.worker is not None
        chores = plugin.worker._chores
        first = chores._connection

        async def hears() -> bool:
            return plugin.worker is not None and plugin.worker._attendant._hears()

        async def is_another() -> bool:
            return chores._connection is not first and await hears()

        await until(hears)
        await chores.fetch("UNLISTEN *")
        await until(is_another)
    assert not await _seen(happened)


async def test_a_worker_that_would_listen_in_another_database_does_not_start(
    direct_dsn: str, empty_dsn: str, server_dsn: str
) -> None:
    for elsewhere in (empty_dsn, database(server_dsn, "template1")):
        with pytest.raises(ConfigurationError, match="not the database that the jobs live in"):
            async with worker(direct_dsn, [], listen_dsn=elsewhere):
                pass


async def test_processes_that_start_together_bring_the_tables_up_to_date_once_behind_a_pooler(
    few_connections: str, empty_dsn: str
) -> None:
    dsn = database(few_connections, urlsplit(empty_dsn).path[1:])
    links = [Link(Database(dsn)) for _ in range(5)]
    await asyncio.gather(*(migrate.upgrade(link, "litestar_jobs") for link in links))
    for link in links:
        await migrate.check(link, "litestar_jobs")
        await link.close()


async def test_statements_are_prepared_behind_a_pooler_only_if_the_dsn_says_so(
    way: str, server_dsn: str, direct_dsn: str, pooled_dsn: str
) -> None:
    if way != server_dsn:
        pytest.skip("all tests run behind a pooler, with connections that prepare nothing")

    async def cached(dsn: str) -> int:
        connection: Any = await Database(dsn).connect()
        try:
            size: int = connection._stmt_cache.get_max_size()
            return size
        finally:
            await connection.close()

    assert await cached(direct_dsn) > 0
    assert await cached(pooled_dsn) == 0
    assert await cached(f"{pooled_dsn}&statement_cache_size=20") == 20
    assert await cached(f"{direct_dsn}&statement_cache_size=0") == 0
    with pytest.raises(ConfigurationError, match="must be a number, not 'many'"):
        Database(f"{direct_dsn}&statement_cache_size=many")
