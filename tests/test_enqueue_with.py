"""enqueue_with: a job commits and rolls back with the caller's own writes, and wakes workers after the commit."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import psycopg
import pytest
from litestar import Litestar
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from litestar_jobs import JobsClient, JobsConfig, JobsPlugin, WorkerConfig, job
from litestar_jobs.database import Database
from litestar_jobs.errors import ConnectionRefused, EnqueueError
from litestar_jobs.store import Statements
from litestar_jobs.telemetry import NoTracing
from litestar_jobs.testing import running, until

Plain: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@job
async def follow(payload: int) -> None: ...


@dataclass
class Opened:
    """A connection of some kind in its transaction, and how to use it."""

    connection: Any
    execute: Callable[[str], Any]
    commit: Callable[[], Awaitable[None]]
    rollback: Callable[[], Awaitable[None]]


class OwnSession(AsyncSession):
    """A subclass of the application's."""


def awaitable(function: Callable[[], Any]) -> Callable[[], Awaitable[None]]:
    async def call() -> None:
        function()

    return call


def plus(dsn: str, driver: str) -> str:
    return dsn.replace("postgresql://", f"postgresql+{driver}://", 1)


@asynccontextmanager
async def async_engine(url: str, **options: Any) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(url, **options)
    yield engine
    await engine.dispose()


async def of_driver(stack: AsyncExitStack, name: str, dsn: str) -> Opened:
    if name == "psycopg":
        other = await stack.enter_async_context(await psycopg.AsyncConnection.connect(dsn))
        return Opened(other, other.execute, other.commit, other.rollback)
    connection: Any
    if name == "asyncpg":
        connection = await asyncpg.connect(dsn)
        stack.push_async_callback(connection.close)
    else:
        pool = await stack.enter_async_context(asyncpg.create_pool(dsn, min_size=1, max_size=1))
        connection = await stack.enter_async_context(pool.acquire())
    transaction = connection.transaction()
    await transaction.start()
    return Opened(connection, connection.execute, transaction.commit, transaction.rollback)


async def of_async_engine(stack: AsyncExitStack, name: str, dsn: str) -> Opened:
    engine = await stack.enter_async_context(async_engine(dsn))
    own: Any
    if name == "AsyncConnection":
        own = await engine.connect()
    elif name == "async_scoped_session":
        own = async_scoped_session(async_sessionmaker(engine), asyncio.current_task)
    else:
        own = {"AsyncSession": AsyncSession, "OwnSession": OwnSession}[name](engine)
    stack.push_async_callback(own.close)
    return Opened(own, lambda sql: own.execute(text(sql)), own.commit, own.rollback)


async def of_sync_engine(stack: AsyncExitStack, name: str, dsn: str) -> Opened:
    engine = create_engine(dsn, poolclass=NullPool)
    own: Any
    if name == "Connection":
        own = engine.connect()
    else:
        own = {"Session": Session(engine), "scoped_session": scoped_session(sessionmaker(engine))}[name]
    stack.callback(own.close)

    async def execute(sql: str) -> Any:
        return own.execute(text(sql))

    return Opened(own, execute, awaitable(own.commit), awaitable(own.rollback))


@asynccontextmanager
async def opened(kind: str, dsn: str) -> AsyncIterator[Opened]:
    name, _, driver = kind.partition("+")
    async with AsyncExitStack() as stack:
        if not driver:
            yield await of_driver(stack, name, dsn)
        elif name in {"Session", "scoped_session", "Connection"}:
            yield await of_sync_engine(stack, name, plus(dsn, driver))
        else:
            yield await of_async_engine(stack, name, plus(dsn, driver))


ALL = [
    "AsyncSession+asyncpg",
    "AsyncSession+psycopg",
    "OwnSession+asyncpg",
    "async_scoped_session+asyncpg",
    "AsyncConnection+asyncpg",
    "AsyncConnection+psycopg",
    "Session+psycopg",
    "scoped_session+psycopg",
    "Connection+psycopg",
    "asyncpg",
    "asyncpg pool",
    "psycopg",
]
OF_SQLALCHEMY = [kind for kind in ALL if "+" in kind]


@pytest.fixture
async def client(dsn: str, connection: Plain) -> AsyncIterator[JobsClient]:
    await connection.execute("CREATE TABLE thing (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    client = JobsClient(Statements("litestar_jobs"), NoTracing(lambda: None))
    await client.start(Database(dsn))
    yield client
    await client.stop()


async def jobs_and_things(connection: Plain) -> tuple[list[Any], list[Any]]:
    jobs = await connection.fetch("SELECT payload::text::int AS n FROM litestar_jobs.job ORDER BY id")
    things = await connection.fetch("SELECT n FROM thing ORDER BY n")
    return [row["n"] for row in jobs], [row["n"] for row in things]


# Commit and rollback.


@pytest.mark.parametrize("kind", ALL)
async def test_a_job_commits_with_the_callers_own_writes(
    kind: str, dsn: str, client: JobsClient, connection: Plain
) -> None:
    async with opened(kind, dsn) as own:
        await own.execute("INSERT INTO thing VALUES (1)")
        job_id = await client.enqueue_with(own.connection, follow(1))
        assert await client.get(job_id) is None, "not before the commit"
        await own.commit()

    row = await client.get(job_id)
    assert row is not None
    assert job_id.version == 7
    assert row.payload == 1
    assert await jobs_and_things(connection) == ([1], [1])


@pytest.mark.parametrize("kind", ALL)
async def test_a_job_disappears_on_rollback_even_as_the_first_act(
    kind: str, dsn: str, client: JobsClient, connection: Plain
) -> None:
    async with opened(kind, dsn) as own:
        await client.enqueue_with(own.connection, follow(1))
        await own.execute("INSERT INTO thing VALUES (1)")
        await own.rollback()

    assert await jobs_and_things(connection) == ([], [])


@pytest.mark.parametrize("kind", ALL)
async def test_a_rollback_to_a_savepoint_takes_only_the_jobs_since_then(
    kind: str, dsn: str, client: JobsClient, connection: Plain
) -> None:
    async with opened(kind, dsn) as own:
        await client.enqueue_with(own.connection, follow(1))
        await own.execute("SAVEPOINT here")
        await client.enqueue_with(own.connection, follow(2))
        await own.execute("ROLLBACK TO SAVEPOINT here")
        await client.enqueue_with(own.connection, follow(3))
        await own.commit()

    assert await jobs_and_things(connection) == ([1, 3], [])


async def test_begin_nested_of_a_session_is_a_savepoint_for_jobs_too(
    dsn: str, client: JobsClient, connection: Plain
) -> None:
    heard: list[set[str]] = []
    stop_listening = client.listen(lambda ready, _: heard.append(ready))
    async with async_engine(plus(dsn, "asyncpg")) as engine, AsyncSession(engine) as session, session.begin():
        await client.enqueue_with(session, follow(1))
        nested = await session.begin_nested()
        await client.enqueue_with(session, follow(2))
        await nested.rollback()
        async with session.begin_nested():
            await client.enqueue_with(session, follow(3))
        await asyncio.sleep(0)
        assert heard == [], "a savepoint is no commit"
    await asyncio.sleep(0)
    stop_listening()

    assert await jobs_and_things(connection) == ([1, 3], [])
    assert heard


async def test_a_job_goes_with_a_commit_that_fails(dsn: str, client: JobsClient, connection: Plain) -> None:
    await connection.execute("INSERT INTO thing VALUES (1)")
    async with async_engine(plus(dsn, "asyncpg")) as engine, AsyncSession(engine) as session:
        await client.enqueue_with(session, follow(2))
        await session.execute(text("INSERT INTO thing VALUES (1)"))
        with pytest.raises(IntegrityError):
            await session.commit()

    assert await jobs_and_things(connection) == ([], [1])


async def test_a_session_with_one_more_job_after_its_commit_has_another_transaction(
    dsn: str, client: JobsClient, connection: Plain
) -> None:
    async with async_engine(plus(dsn, "asyncpg")) as engine, AsyncSession(engine) as session:
        await client.enqueue_with(session, follow(1))
        await session.commit()
        await client.enqueue_with(session, follow(2))
        await session.rollback()
        await client.enqueue_with(session, follow(3))
        await session.commit()

    assert await jobs_and_things(connection) == ([1, 3], [])


async def test_a_users_own_jsonb_codec_encodes_nothing_twice(dsn: str, client: JobsClient, connection: Plain) -> None:
    own = await asyncpg.connect(dsn)
    for codec in ("json", "jsonb"):
        await own.set_type_codec(codec, schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
    async with own.transaction():
        job_id = await client.enqueue_with(own, follow(1))
    await own.close()

    assert await connection.fetchval("SELECT jsonb_typeof(payload) FROM litestar_jobs.job WHERE id = $1", job_id) == (
        "number"
    )


async def test_delays_and_priorities_reach_the_row_through_every_driver(
    dsn: str, client: JobsClient, connection: Plain
) -> None:
    for kind in ("asyncpg", "psycopg", "AsyncSession+asyncpg", "Session+psycopg"):
        async with opened(kind, dsn) as own:
            job_id = await client.enqueue_with(own.connection, follow(1, priority=-4, delay=90, queue="100% 'q'"))
            await own.commit()
        row = await client.get(job_id)
        assert row is not None
        assert (row.priority, row.queue) == (-4, "100% 'q'")
        assert 80 < (row.run_at - row.created_at).total_seconds() <= 90


# Refusals.


async def refusal(client: JobsClient, connection: Any) -> str:
    with pytest.raises(ConnectionRefused) as caught:
        await client.enqueue_with(connection, follow(1))
    return str(caught.value)


async def test_an_asyncpg_connection_outside_a_transaction_is_refused(dsn: str, client: JobsClient) -> None:
    own = await asyncpg.connect(dsn)
    message = await refusal(client, own)
    await own.close()

    assert "not in a transaction" in message
    assert "`async with connection.transaction():`, or use jobs.enqueue(...)" in message


async def test_a_psycopg_connection_in_autocommit_mode_is_refused_outside_a_transaction(
    dsn: str, client: JobsClient, connection: Plain
) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as own:
        assert "autocommit mode that is not in a transaction" in await refusal(client, own)
        async with own.transaction():
            await client.enqueue_with(own, follow(1))

    assert await jobs_and_things(connection) == ([1], [])


async def test_a_synchronous_psycopg_connection_is_refused(dsn: str, client: JobsClient) -> None:
    with psycopg.connect(dsn) as own:
        assert "AsyncConnection" in await refusal(client, own)


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_an_autocommit_engine_is_refused(driver: str, dsn: str, client: JobsClient, connection: Plain) -> None:
    async with async_engine(plus(dsn, driver), isolation_level="AUTOCOMMIT") as engine, AsyncSession(engine) as session:
        assert "AUTOCOMMIT, so the job could not roll back" in await refusal(client, session)
    async with async_engine(plus(dsn, driver)) as engine, engine.connect() as own:
        await own.execution_options(isolation_level="AUTOCOMMIT")
        assert "AUTOCOMMIT" in await refusal(client, own)

    assert await jobs_and_things(connection) == ([], [])


async def test_another_database_than_postgresql_is_refused(client: JobsClient) -> None:
    engine = create_engine("sqlite://", poolclass=NullPool)
    with Session(engine) as session:
        message = await refusal(client, session)
    assert "sqlite+pysqlite" in message
    assert "postgresql+asyncpg://" in message


async def test_a_session_without_autobegin_is_refused_until_it_has_begun(
    dsn: str, client: JobsClient, connection: Plain
) -> None:
    async with async_engine(plus(dsn, "asyncpg")) as engine, AsyncSession(engine, autobegin=False) as session:
        assert "async with session.begin()" in await refusal(client, session)
        async with session.begin():
            await client.enqueue_with(session, follow(1))

    assert await jobs_and_things(connection) == ([1], [])


async def test_what_is_no_connection_is_refused_by_its_name(dsn: str, client: JobsClient) -> None:
    pool = asyncpg.create_pool(dsn)
    async with async_engine(plus(dsn, "asyncpg")) as engine:
        for thing, name in (
            (engine, "AsyncEngine"),
            (engine.sync_engine, "Engine"),
            (async_sessionmaker(engine), "async_sessionmaker"),
            (sessionmaker(), "sessionmaker"),
            (pool, "asyncpg.pool.Pool"),
            (object(), "builtins.object"),
            (None, "builtins.NoneType"),
        ):
            message = await refusal(client, thing)
            assert name in message
            assert "your own writes use" in message


async def test_the_job_itself_instead_of_a_request_is_refused_before_anything_is_written(
    dsn: str, client: JobsClient
) -> None:
    async with async_engine(plus(dsn, "asyncpg")) as engine, AsyncSession(engine) as session:
        with pytest.raises(EnqueueError, match="Call the job"):
            await client.enqueue_with(session, follow)  # type: ignore[arg-type]
        assert not session.in_transaction()


# Waking.


@asynccontextmanager
async def listening(dsn: str) -> AsyncIterator[list[str]]:
    """What a worker of another process hears."""
    heard: list[str] = []
    ear = await asyncpg.connect(dsn)
    await ear.add_listener("litestar_jobs", lambda *message: heard.append(str(message[3])))
    yield heard
    await ear.close()


@pytest.mark.parametrize("kind", ALL)
async def test_workers_of_other_processes_hear_of_it_after_the_commit(
    kind: str, dsn: str, direct_dsn: str, client: JobsClient
) -> None:
    async with listening(direct_dsn) as heard, opened(kind, dsn) as own:
        await client.enqueue_with(own.connection, follow(1))
        await asyncio.sleep(0.02)
        assert heard == []
        await own.commit()

        async def told() -> bool:
            return heard == ["ready:default"]

        await until(told, 2)


async def test_commits_that_come_together_are_told_in_few_notifications(
    dsn: str, direct_dsn: str, client: JobsClient
) -> None:
    async with listening(direct_dsn) as heard, async_engine(plus(dsn, "asyncpg"), pool_size=10) as engine:
        told_later = client._store.tell
        waked: list[Sequence[str]] = []

        async def counted(messages: Sequence[str]) -> None:
            waked.append(messages)
            await told_later(messages)

        client._store.tell = counted  # type: ignore[method-assign]

        async def create(number: int) -> None:
            async with AsyncSession(engine) as session, session.begin():
                for _ in range(5):
                    await client.enqueue_with(session, follow(number))

        await asyncio.gather(*map(create, range(10)))

        async def told() -> bool:
            return len(heard) == len(waked) > 0

        await until(told, 2)
    assert len(waked) <= 10, "at most one a commit, for fifty jobs"


@pytest.mark.parametrize("kind", ALL)
async def test_no_transaction_of_sqlalchemy_pays_for_a_wake_up_and_a_drivers_own_tells_by_itself(
    kind: str, dsn: str, direct_dsn: str, client: JobsClient
) -> None:
    if dsn != direct_dsn:
        pytest.skip("behind a pooler, whose backend it is says nothing about whose statement it is")
    told_by: list[int] = []
    ear = await asyncpg.connect(dsn)
    await ear.add_listener("litestar_jobs", lambda *message: told_by.append(int(str(message[1]))))
    async with opened(kind, dsn) as own:
        await client.enqueue_with(own.connection, follow(1))
        await own.commit()

        async def told() -> bool:
            return bool(told_by)

        await until(told, 2)
    await ear.close()
    (row,) = await client._control.fetch("SELECT pg_backend_pid() AS pid")
    assert (told_by == [row["pid"]]) is (kind in OF_SQLALCHEMY)


@pytest.mark.parametrize("kind", ["AsyncSession+asyncpg", "AsyncConnection+asyncpg", "AsyncConnection+psycopg"])
async def test_a_worker_of_this_process_begins_within_a_moment_of_the_commit_and_never_before(
    kind: str, dsn: str
) -> None:
    started: dict[int, float] = {}

    @job(name="measure")
    async def measure(payload: int) -> None:
        started[payload] = time.monotonic()

    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[measure], worker=WorkerConfig(poll_interval=600)))
    async with running(Litestar(plugins=[plugin])):
        took = []
        for number in range(5):
            async with opened(kind, dsn) as own:
                await plugin.client.enqueue_with(own.connection, measure(number))
                await asyncio.sleep(0.01)
                assert number not in started
                await own.commit()
            committed = time.monotonic()

            async def has_started(number: int = number) -> bool:
                return number in started

            await until(has_started, 2)
            took.append(started[number] - committed)
    assert min(took) < 0.05


async def test_a_commit_right_before_the_end_of_the_lifespan_still_wakes_others(
    dsn: str, direct_dsn: str, connection: Plain
) -> None:
    client = JobsClient(Statements("litestar_jobs"), NoTracing(lambda: None))
    await client.start(Database(dsn))
    async with listening(direct_dsn) as heard, async_engine(plus(dsn, "asyncpg")) as engine:
        async with AsyncSession(engine) as session, session.begin():
            await client.enqueue_with(session, follow(1))
        await client.stop()

        async def told() -> bool:
            return bool(heard)

        await until(told, 2)


async def test_a_commit_after_the_end_of_the_lifespan_is_just_a_commit(dsn: str, connection: Plain) -> None:
    client = JobsClient(Statements("litestar_jobs"), NoTracing(lambda: None))
    await client.start(Database(dsn))
    async with async_engine(plus(dsn, "asyncpg")) as engine, AsyncSession(engine) as session:
        job_id = await client.enqueue_with(session, follow(1))
        await client.stop()
        await session.commit()

    assert await connection.fetchval("SELECT id FROM litestar_jobs.ready") == job_id
    assert isinstance(job_id, UUID)


async def test_workers_that_cannot_be_woken_find_the_job_by_polling_and_the_log_says_so(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = JobsClient(Statements("litestar_jobs"), NoTracing(lambda: None))
    await client.start(Database("postgresql://me@127.0.0.1:1/none"))
    async with opened("AsyncSession+asyncpg", dsn) as own:
        await client.enqueue_with(own.connection, follow(1))
        await own.commit()
    await client.stop()

    assert "they will find the jobs by polling: PostgreSQL cannot be reached at 127.0.0.1:1/none" in caplog.text


async def test_a_session_may_commit_in_a_thread(dsn: str, direct_dsn: str, client: JobsClient) -> None:
    async with listening(direct_dsn) as heard, opened("Session+psycopg", dsn) as own:
        await client.enqueue_with(own.connection, follow(1))
        await asyncio.to_thread(own.connection.commit)

        async def told() -> bool:
            return heard == ["ready:default"]

        await until(told, 2)
