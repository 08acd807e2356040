"""Applications read their jobs through advanced-alchemy, and only read."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from advanced_alchemy.base import metadata_registry, orm_registry
from advanced_alchemy.exceptions import NotFoundError
from advanced_alchemy.extensions.litestar import SQLAlchemyAsyncConfig, SQLAlchemyPlugin, base
from advanced_alchemy.filters import CollectionFilter, ComparisonFilter, LimitOffset, OrderBy, StatementFilter
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from advanced_alchemy.service import OffsetPagination, SQLAlchemyAsyncRepositoryService
from litestar import Litestar, get
from litestar.di import NamedDependency
from sqlalchemy import MetaData, create_engine, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from litestar_jobs import JobRow, JobsConfig, JobsPlugin, JobStatus, Never, job, migrate
from litestar_jobs.database import Link
from litestar_jobs.errors import JobsError
from litestar_jobs.model import JobModel
from litestar_jobs.testing import drained, running


class JobRepository(SQLAlchemyAsyncRepository[JobModel]):
    model_type = JobModel


class JobService(SQLAlchemyAsyncRepositoryService[JobModel]):
    class Repo(SQLAlchemyAsyncRepository[JobModel]):
        model_type = JobModel

    repository_type = Repo


@job(queue="reports")
async def report(payload: dict[str, int]) -> None:
    """Do nothing."""


@job(retry=Never())
async def fail() -> None:
    raise ValueError("no")


@pytest.fixture
async def plugin(dsn: str) -> AsyncIterator[JobsPlugin]:
    """An application in which two jobs completed, one failed, and one waits for tomorrow."""
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[report, fail]))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        await plugin.client.enqueue_many(
            [report({"n": 1}), report({"n": 2}, priority=5), fail(), report({"n": 3}, delay=86_400)]
        )
        await drained(plugin.client)
        yield plugin


@pytest.fixture
async def session(dsn: str) -> AsyncIterator[AsyncSession]:
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"))
    async with AsyncSession(engine) as session:
        yield session
    await engine.dispose()


async def test_a_repository_filters_orders_and_pages_jobs(plugin: JobsPlugin, session: AsyncSession) -> None:
    repository = JobRepository(session=session)
    done = ComparisonFilter("status", "eq", JobStatus.COMPLETED)
    rows, total = await repository.get_many_and_count(done, OrderBy("priority", "desc"), LimitOffset(1, 0))
    assert ([row.payload for row in rows], total) == ([{"n": 2}], 2)
    rows, total = await repository.get_many_and_count(done, OrderBy("priority", "desc"), LimitOffset(1, 1))
    assert ([row.payload for row in rows], total) == ([{"n": 1}], 2)

    assert await repository.count(ComparisonFilter("status", "eq", "failed")) == 1
    assert await repository.count(ComparisonFilter("run_at", "gt", datetime.now(UTC))) == 1
    assert await repository.count(CollectionFilter("queue", ["reports", "other"])) == 3
    assert await repository.count(JobModel.status == JobStatus.PENDING, JobModel.payload["n"].as_integer() == 3) == 1
    with pytest.raises(NotFoundError):
        await repository.get_one(queue="nowhere")


async def test_a_model_has_what_a_row_has(plugin: JobsPlugin, session: AsyncSession) -> None:
    models = await JobRepository(session=session).get_many()
    assert len(models) == 4
    for model in models:
        row = await plugin.client.get(model.id)
        assert row is not None
        assert msgspec.structs.asdict(row) == model.to_dict()
        assert isinstance(model.status, JobStatus)


async def test_a_handler_returns_a_page_of_jobs(dsn: str) -> None:
    @get("/jobs")
    async def list_jobs(db_session: NamedDependency[AsyncSession]) -> OffsetPagination[JobRow]:
        service = JobService(session=db_session)
        filters: list[StatementFilter] = [LimitOffset(2, 0), OrderBy("priority", "desc")]
        rows, total = await service.get_many_and_count(*filters)
        return service.to_schema(rows, total, filters=filters, schema_type=JobRow)

    alchemy = SQLAlchemyAsyncConfig(connection_string=dsn.replace("postgresql://", "postgresql+asyncpg://"))
    plugin = JobsPlugin(JobsConfig(jobs=[report], worker=None))
    app = Litestar([list_jobs], plugins=[SQLAlchemyPlugin(config=alchemy), plugin], logging_config=None)
    async with running(app) as http:
        await plugin.client.enqueue_many([report({"n": n}, priority=n) for n in range(3)])
        page = (await http.get("/jobs")).json()
    assert (page["total"], page["limit"], page["offset"]) == (3, 2, 0)
    assert [item["payload"] for item in page["items"]] == [{"n": 2}, {"n": 1}]
    assert {item["status"] for item in page["items"]} == {"pending"}


async def test_writing_through_a_model_is_refused(plugin: JobsPlugin, session: AsyncSession) -> None:
    repository = JobRepository(session=session)
    row, *_ = await repository.get_many(ComparisonFilter("status", "eq", "pending"))
    job_id, before = row.id, await plugin.client.get(row.id)

    with pytest.raises(JobsError, match="is for reading"):
        await repository.add(JobModel(queue="q", job_type="report"))
    await session.rollback()
    with pytest.raises(JobsError, match=r"jobs.cancel\(id\) or jobs.retry\(id\)"):
        await repository.delete(job_id)
    await session.rollback()
    row, *_ = await repository.get_many(ComparisonFilter("status", "eq", "pending"))
    row.priority = 3
    with pytest.raises(JobsError, match="is for reading"):
        await session.flush()
    await session.rollback()
    with pytest.raises(DBAPIError, match="cannot update view"):
        await session.execute(update(JobModel).values(priority=3))
    await session.rollback()
    assert await plugin.client.get(job_id) == before


async def test_the_jobs_of_another_schema_are_read_with_a_translate_map(dsn: str, link: Link) -> None:
    await migrate.upgrade(link, "other_jobs")
    plugin = JobsPlugin(JobsConfig(dsn=dsn, schema="other_jobs", jobs=[report], worker=None))
    engine = create_async_engine(
        dsn.replace("postgresql://", "postgresql+asyncpg://"),
        execution_options={"schema_translate_map": {"litestar_jobs": "other_jobs"}},
    )
    async with running(Litestar(plugins=[plugin], logging_config=None)), AsyncSession(engine) as session:
        job_id = await plugin.client.enqueue(report({"n": 1}))
        assert [row.id for row in await JobRepository(session=session).get_many()] == [job_id]
    await engine.dispose()


def test_the_view_is_in_no_metadata_of_the_application() -> None:
    known = [metadata_registry.get(), orm_registry.metadata, base.UUIDBase.metadata]
    assert all("litestar_jobs.jobs" not in metadata.tables for metadata in known)


def test_nobody_creates_the_view_as_a_table(empty_dsn: str) -> None:
    engine = create_engine(empty_dsn.replace("postgresql://", "postgresql+psycopg://"))
    with pytest.raises(JobsError, match=r"litestar_jobs\.jobs is a view"):
        JobModel.metadata.create_all(engine)
    engine.dispose()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_columns_are_read_through_each_driver(plugin: JobsPlugin, dsn: str, driver: str) -> None:
    engine = create_async_engine(dsn.replace("postgresql://", f"postgresql+{driver}://"))
    async with AsyncSession(engine) as session:
        rows: Any = await session.scalars(select(JobModel).where(JobModel.status == JobStatus.FAILED))
        (row,) = rows
        assert (row.status, row.last_error, row.payload) == (JobStatus.FAILED, "ValueError: no", None)
        assert row.created_at.tzinfo is not None
    await engine.dispose()


def test_the_columns_are_those_of_a_row() -> None:
    assert isinstance(JobModel.metadata, MetaData)
    assert list(JobModel.__table__.columns.keys()) == list(JobRow.__struct_fields__)
