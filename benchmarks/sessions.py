"""Jobs that write through ``db_session`` and are finished in its transaction, against a bare session that does the same."""

import asyncio
from collections.abc import AsyncGenerator

from advanced_alchemy.extensions.litestar import AsyncSessionConfig, SQLAlchemyAsyncConfig, SQLAlchemyPlugin
from asyncpg import Record
from litestar.di import NamedDependency
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from benchmarks.bench import SQL, TEXT, Bench, Hundred, Measured, claimed_in_turn, compared, counter, timed
from litestar_jobs import WorkerConfig, job

CONCURRENCY = 10
WRITE = text("INSERT INTO effect (value) VALUES (:value)")


@job(name="write")
async def write(payload: Hundred, db_session: NamedDependency[AsyncSession]) -> None:
    """One row."""
    await db_session.execute(WRITE, {"value": payload.text})
    counter.add()


async def drain(bench: Bench) -> AsyncGenerator[Measured]:
    """Ten at once."""
    jobs = bench.jobs // 10
    url = bench.dsn.replace("postgresql://", "postgresql+asyncpg://")
    pairs = []
    for _ in range(bench.runs):
        await fresh(bench, jobs)
        engine = create_async_engine(url, pool_size=CONCURRENCY)
        bare = jobs / await timed(lambda engine=engine: bare_sessions(bench, async_sessionmaker(engine)))  # type: ignore[misc]
        await engine.dispose()
        await fresh(bench, jobs)
        engine = create_async_engine(url, pool_size=CONCURRENCY)
        alchemy = SQLAlchemyAsyncConfig(
            engine_instance=engine, session_config=AsyncSessionConfig(expire_on_commit=False)
        )
        async with bench.application(
            [write], WorkerConfig(concurrency=CONCURRENCY), plugins=[SQLAlchemyPlugin(config=alchemy)]
        ):
            await bench.begun()
            pairs.append((jobs / await timed(bench.drained), bare))
    yield compared("drain, jobs with a session", "jobs/s", pairs, "0.50 of bare sessions")


async def fresh(bench: Bench, jobs: int) -> None:
    await bench.fresh()
    connection = await bench.connect()
    await connection.execute("DROP TABLE IF EXISTS effect; CREATE TABLE effect (value text NOT NULL)")
    await connection.close()
    await bench.fill(jobs, name="write")


async def bare_sessions(bench: Bench, make: async_sessionmaker[AsyncSession]) -> None:
    """Claim two hundred, then write and finish each in a session of its own, ten at once."""
    async for claimed in claimed_in_turn(bench):
        await asyncio.gather(*(one_after_the_other(claimed, make) for _ in range(CONCURRENCY)))


async def one_after_the_other(left: list[Record], make: async_sessionmaker[AsyncSession]) -> None:
    while left:
        row = left.pop()
        async with make() as session:
            await session.execute(WRITE, {"value": TEXT})
            connection = await session.connection()
            await connection.exec_driver_sql(SQL["complete"], ([row["id"]], [row["token"]]))
            await session.commit()
