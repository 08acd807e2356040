"""The application whose workers are killed while they run jobs with a limit."""

import asyncio

from litestar import Litestar
from msgspec import Struct

from litestar_jobs import Fixed, JobsConfig, JobsPlugin, Limit, WorkerConfig, job


class Order(Struct):
    customer: str


@job(limit=Limit(2, by="customer"), max_retries=100, retry=Fixed(0))
async def pull(payload: Order) -> None:
    await asyncio.sleep(0.05)


def create_app() -> Litestar:
    return Litestar(plugins=[JobsPlugin(JobsConfig(jobs=[pull], worker=WorkerConfig(lease=2, concurrency=4)))])
