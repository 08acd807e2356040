import logging
from datetime import timedelta

from litestar import Litestar
from msgspec import Struct

from litestar_jobs import Cron, Every, JobContext, JobsPlugin, job

logger = logging.getLogger("shop")


class Report(Struct):
    region: str


# Every night at three, on the clocks of Berlin.
@job(cron="0 3 * * *", timezone="Europe/Berlin")
async def tidy_up() -> None: ...


# Every ten seconds.
@job(every=timedelta(seconds=10))
async def look_at_stock() -> None: ...


# Several schedules, with payloads of their own.
@job(
    queue="reports",
    schedules=[
        Cron(
            "0 6 * * MON-FRI",
            timezone="America/New_York",
            payload=Report("us"),
            name="us",
        ),
        Every(
            1,
            payload=Report("world"),
            name="world",
            missed="skip",
            overlap="skip",
        ),
    ],
)
async def write_report(payload: Report, *, job: JobContext) -> None:
    logger.info(
        "%s: %s up to %s", job.schedule, payload.region, job.scheduled_for
    )


app = Litestar(plugins=[JobsPlugin()])
