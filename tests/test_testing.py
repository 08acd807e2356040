"""What applications are given for their own tests."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from litestar import Litestar, post

from litestar_jobs import Fixed, Jobs, JobsConfig, JobsPlugin, JobStatus, job
from litestar_jobs.testing import drained, ended, running, until


@job(queue="quick")
async def succeed() -> None:
    """Do nothing."""


@job(queue="slow")
async def take_long() -> None:
    await asyncio.Event().wait()


@job(retry=Fixed(3600))
async def stumble() -> None:
    raise ValueError("not today")


def plugin_for(dsn: str, **options: object) -> JobsPlugin:
    return JobsPlugin(JobsConfig(dsn=dsn, jobs=[succeed, take_long, stumble], **options))  # type: ignore[arg-type]


async def test_the_app_runs_in_the_loop_of_the_test_and_answers_requests(dsn: str) -> None:
    loops = []

    @post("/")
    async def handler(jobs: Jobs) -> str:
        loops.append(asyncio.get_running_loop())
        return str(await jobs.enqueue(succeed()))

    plugin = plugin_for(dsn)
    async with running(Litestar([handler], plugins=[plugin], logging_config=None)) as http:
        response = await http.post("/")
        assert (await ended(plugin.client, UUID(response.text))).status is JobStatus.COMPLETED
    assert loops == [asyncio.get_running_loop()]


async def test_an_error_in_the_block_arrives_as_it_was_raised(dsn: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with running(Litestar(plugins=[plugin_for(dsn)], logging_config=None)):
            _ = 1 / 0


@pytest.fixture
async def app_of_a_fixture(dsn: str) -> AsyncIterator[JobsPlugin]:
    plugin = plugin_for(dsn)
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        yield plugin


async def test_the_app_may_run_in_a_fixture(app_of_a_fixture: JobsPlugin) -> None:
    job_id = await app_of_a_fixture.client.enqueue(succeed())
    assert (await ended(app_of_a_fixture.client, job_id)).status is JobStatus.COMPLETED


async def test_an_error_at_start_up_arrives_as_it_was_raised() -> None:
    async def broken() -> None:
        raise LookupError("no key") from KeyError("key")

    with pytest.raises(LookupError, match=r"no key") as caught:
        async with running(Litestar(on_startup=[broken])):
            pass
    assert isinstance(caught.value.__cause__, KeyError)


async def test_ended_says_what_the_job_is_doing_instead(dsn: str) -> None:
    plugin = plugin_for(dsn, worker=None)
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        job_id = await plugin.client.enqueue(succeed())
        with pytest.raises(
            TimeoutError, match=rf"after 3 s job {job_id} has not ended: it is pending in queue 'quick'"
        ):
            await ended(plugin.client, job_id, timeout=3)


async def test_ended_shows_the_error_for_which_a_job_waits(dsn: str) -> None:
    plugin = plugin_for(dsn)
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        job_id = await plugin.client.enqueue(stumble())
        await drained(plugin.client)
        with pytest.raises(
            TimeoutError, match=r"pending in queue 'default' after 1 attempts.* last error: .*not today"
        ):
            await ended(plugin.client, job_id, timeout=3)


async def test_ended_tells_a_job_that_is_not_there(dsn: str) -> None:
    plugin = plugin_for(dsn)
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        with pytest.raises(LookupError, match=r"was its transaction committed"):
            await ended(plugin.client, uuid4())


async def test_drained_waits_for_jobs_that_may_run_and_not_for_later_ones(dsn: str) -> None:
    plugin = plugin_for(dsn)
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        now = await plugin.client.enqueue_many([succeed() for _ in range(20)])
        later = await plugin.client.enqueue(succeed(delay=3600))
        await drained(plugin.client)
        assert {(await ended(plugin.client, job_id, 0.5)).status for job_id in now} == {JobStatus.COMPLETED}
        row = await plugin.client.get(later)
        assert row is not None
        assert row.status is JobStatus.PENDING


async def test_drained_says_what_is_left_where(dsn: str) -> None:
    plugin = plugin_for(dsn, worker=None)
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        await plugin.client.enqueue_many([succeed(), succeed(), take_long()])
        with pytest.raises(TimeoutError, match=r"after 3 s there are still jobs: ") as caught:
            await drained(plugin.client, timeout=3)
    assert "2 waiting in queue 'quick'" in str(caught.value)
    assert "1 waiting in queue 'slow'" in str(caught.value)
    assert "running" not in str(caught.value)


async def test_until_answers_what_was_seen() -> None:
    answers = iter([None, 0, "", "seen"])

    async def look() -> object:
        return next(answers)

    assert await until(look) == "seen"


async def test_until_gives_up_and_says_what_is_missing() -> None:
    async def look() -> None:
        return None

    with pytest.raises(TimeoutError, match=r"^after 0.02 s the mail was not sent$"):
        await until(look, 0.02, "the mail was not sent")
    with pytest.raises(TimeoutError, match=r"^after 0.02 s 3 mails were not sent$"):
        await until(look, 0.02, lambda: f"{1 + 2} mails were not sent")
