"""A job goes its whole way: defined, enqueued, claimed, executed, finished, under one trace id."""

import logging
from uuid import UUID

import pytest
from litestar import Litestar, post
from litestar.params import JSONBody
from msgspec import Struct

from litestar_jobs import Job, JobContext, Jobs, JobsConfig, JobsPlugin, JobStatus, job
from litestar_jobs.testing import ended, running


class Greeting(Struct):
    name: str


logger = logging.getLogger(__name__)


@job(queue="greetings")
async def greet(payload: Greeting, job: JobContext) -> None:
    logger.info("hello %s, attempt %d", payload.name, job.attempt)


@post("/greet")
async def request_greeting(data: JSONBody[Greeting], jobs: Jobs) -> str:
    return str(await jobs.enqueue(greet(data)))


async def test_a_request_becomes_a_finished_job_under_its_trace_id(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[greet]))
    app = Litestar([request_greeting], plugins=[plugin], logging_config=None)
    with caplog.at_level(logging.INFO):
        async with running(app) as http:
            response = await http.post("/greet", json={"name": "you"}, headers={"x-trace-id": "trace-1"})
            row = await ended(plugin.client, UUID(response.text))

    assert response.headers["x-trace-id"] == "trace-1"
    assert row.status is JobStatus.COMPLETED
    assert (row.queue, row.job_type, row.attempts, row.trace_id) == ("greetings", "greet", 1, "trace-1")
    (line,) = [record for record in caplog.records if record.name == __name__]
    assert line.getMessage() == "hello you, attempt 1"
    assert line.trace_id == "trace-1"  # type: ignore[attr-defined]
    assert line.job_id == response.text  # type: ignore[attr-defined]
    assert isinstance(greet, Job)
