from datetime import timedelta

from litestar import Litestar
from msgspec import Struct

from litestar_jobs import JobsClient, JobsPlugin, job


class Code(Struct):
    phone: str


@job(expires_in=timedelta(minutes=2))  # nobody needs the code later
async def text_code(payload: Code) -> None: ...


@job(max_retries=50, deadline=timedelta(hours=1))
async def capture_payment(payload: Code) -> None: ...


async def send(jobs: JobsClient) -> None:
    await jobs.enqueue(text_code(Code("+49 30 1234"), expires_in=30))


app = Litestar(plugins=[JobsPlugin()])
