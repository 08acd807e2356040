import logging

from litestar import Litestar, post
from litestar.params import JSONBody
from msgspec import Struct

from litestar_jobs import Jobs, JobsPlugin, job

logger = logging.getLogger(__name__)


class WelcomeEmail(Struct):
    email: str


@job(queue="emails", max_retries=5, timeout=30)
async def send_welcome_email(payload: WelcomeEmail) -> None:
    logger.info("a welcome goes to %s", payload.email)


@post("/users")
async def create_user(
    data: JSONBody[WelcomeEmail], jobs: Jobs
) -> dict[str, str]:
    job_id = await jobs.enqueue(send_welcome_email(data))
    return {"job": str(job_id)}


app = Litestar([create_user], plugins=[JobsPlugin()])
