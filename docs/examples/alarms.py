from litestar import Litestar
from msgspec import Struct

from litestar_jobs import FailedJob, Fixed, JobsPlugin, job

ALARMS: list[str] = []


@job(queue="alarms", priority=-10)
async def tell_ops(payload: FailedJob) -> None:
    ALARMS.append(
        f"{payload.job_type} {payload.id} has failed: {payload.message}"
    )


class Order(Struct):
    number: int


@job(max_retries=1, retry=Fixed(0.1), on_failure=tell_ops)
async def charge(payload: Order) -> None:
    raise ConnectionError(f"no route to the bank of order {payload.number}")


app = Litestar(plugins=[JobsPlugin()])
