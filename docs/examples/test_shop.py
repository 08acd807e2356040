from uuid import UUID

from quickstart import WelcomeEmail, app, send_welcome_email

from litestar_jobs import JobsPlugin, JobStatus
from litestar_jobs.testing import drained, ended, running


async def test_the_job_alone() -> None:
    # .fn is the function that was decorated: no database, no worker.
    await send_welcome_email.fn(WelcomeEmail(email="ada@example.com"))


def test_what_is_asked_for() -> None:
    # Calling a job touches no database either.
    request = send_welcome_email(
        WelcomeEmail(email="ada@example.com"), delay=60
    )
    assert (request.job_type, request.queue, request.delay) == (
        "send_welcome_email",
        "emails",
        60,
    )


async def test_the_whole_way() -> None:
    client = app.plugins.get(JobsPlugin).client
    # The application and its worker, in the event loop of this test.
    async with running(app) as http:
        response = await http.post("/users", json={"email": "ada@example.com"})
        row = await ended(client, UUID(response.json()["job"]))
        await drained(client)  # nothing runs and nothing may run now
    assert row.status is JobStatus.COMPLETED
    assert row.trace_id == response.headers["x-trace-id"]
