import os

from advanced_alchemy.extensions.litestar import (
    SQLAlchemyAsyncConfig,
    SQLAlchemyPlugin,
)
from advanced_alchemy.filters import ComparisonFilter, LimitOffset, OrderBy
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from advanced_alchemy.service import OffsetPagination
from litestar import Litestar, get
from litestar.di import NamedDependency
from litestar.params import FromQuery
from sqlalchemy.ext.asyncio import AsyncSession

from litestar_jobs import JobRow, JobsPlugin, JobStatus, job
from litestar_jobs.model import JobModel


class JobRepository(SQLAlchemyAsyncRepository[JobModel]):
    model_type = JobModel


@job(max_retries=0)
async def fail() -> None:
    raise ConnectionError("the printer is on fire")


@get("/jobs/failed")
async def failed_jobs(
    db_session: NamedDependency[AsyncSession], page: FromQuery[int] = 0
) -> OffsetPagination[JobRow]:
    rows, total = await JobRepository(session=db_session).get_many_and_count(
        ComparisonFilter("status", "eq", JobStatus.FAILED),
        OrderBy("finished_at", "desc"),
        LimitOffset(20, 20 * page),
    )
    items = [JobRow(**row.to_dict()) for row in rows]
    return OffsetPagination(
        items=items, limit=20, offset=20 * page, total=total
    )


alchemy = SQLAlchemyAsyncConfig(connection_string=os.environ["DATABASE_URL"])
app = Litestar(
    [failed_jobs], plugins=[SQLAlchemyPlugin(config=alchemy), JobsPlugin()]
)
