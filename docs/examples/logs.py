import logging

from litestar import Litestar, post
from litestar.logging import LoggingConfig

from litestar_jobs import Jobs, JobsPlugin, job

logger = logging.getLogger(__name__)


@job(queue="greetings")
async def greet() -> None:
    logger.info("hello from the job")


@post("/greet")
async def ask_for_a_greeting(jobs: Jobs) -> None:
    logger.info("hello from the request")
    await jobs.enqueue(greet())


LINE = (
    "%(levelname)s %(name)s trace=%(trace_id)s job=%(job_id)s "
    "type=%(job_type)s attempt=%(attempt)s | %(message)s"
)

app = Litestar(
    [ask_for_a_greeting],
    plugins=[JobsPlugin()],
    logging_config=LoggingConfig(
        root={"level": "INFO", "handlers": ["queue_listener"]},
        formatters={"standard": {"format": LINE}},
    ),
)
