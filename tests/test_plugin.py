"""The plugin in an application: any order, any database, and nothing left behind."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from advanced_alchemy.extensions.litestar import SQLAlchemyAsyncConfig, SQLAlchemyPlugin
from litestar import Controller, Litestar, Router, get, websocket
from litestar.connection import WebSocket
from litestar.di import NamedDependency, Provide
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from litestar_jobs import JobFilter, Jobs, JobsConfig, JobsPlugin, JobStatus, WorkerConfig, job
from litestar_jobs.errors import ConfigurationError, DatabaseUnreachable, NotRunning, SchemaError
from litestar_jobs.testing import ended, running, until


@job
async def note() -> None: ...


def alchemy(dsn: str, **settings: Any) -> SQLAlchemyAsyncConfig:
    return SQLAlchemyAsyncConfig(connection_string=dsn.replace("postgresql://", "postgresql+asyncpg://"), **settings)


async def others(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    """Connections to the test's database besides this one."""
    count = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend'"
    )
    return int(count)


@asynccontextmanager
async def nothing_is_left(connection: "asyncpg.Connection[asyncpg.Record]") -> AsyncIterator[None]:
    """Afterwards there are the tasks and threads that were there before, and no connections."""
    tasks, threads = asyncio.all_tasks(), threading.active_count()
    yield

    async def gone() -> bool:
        return await others(connection) == 0 and threading.active_count() <= threads

    await until(gone)
    assert asyncio.all_tasks() == tasks
    assert await connection.fetchval("SELECT count(*) FROM litestar_jobs.worker") == 0


# Plugins, databases


@pytest.mark.parametrize("jobs_first", [True, False])
async def test_the_worker_starts_after_the_users_hooks_and_stops_before_their_engines_in_either_order_of_plugins(
    dsn: str, *, jobs_first: bool
) -> None:
    story: list[str] = []
    begun = asyncio.Event()

    @job(name="slow")
    async def slow(*, db_session: NamedDependency[AsyncSession]) -> None:
        story.append("job begins")
        begun.set()
        await asyncio.sleep(0.05)
        assert await db_session.scalar(text("SELECT 1")) == 1
        story.append("job ends")

    @asynccontextmanager
    async def users(_app: Litestar) -> AsyncIterator[None]:
        story.append("user's lifespan begins")
        yield
        story.append("user's lifespan ends")

    async def startup(app: Litestar) -> None:
        story.append("user's startup")
        assert plugin.worker is None

    config = alchemy(dsn)
    plugin = JobsPlugin(JobsConfig(jobs=[slow]))
    plugins: list[Any] = [plugin, SQLAlchemyPlugin(config=config)]
    app = Litestar(
        plugins=plugins if jobs_first else plugins[::-1],
        lifespan=[users],
        on_startup=[startup],
        on_shutdown=[lambda: story.append("user's shutdown")],
        logging_config=None,
    )
    async with running(app):
        await plugin.client.enqueue(slow())
        await begun.wait()
    assert story == [
        "user's lifespan begins",
        "user's startup",
        "job begins",
        "job ends",
        "user's lifespan ends",
        "user's shutdown",
    ]


async def test_an_application_can_be_started_again(dsn: str) -> None:
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[note]))
    app = Litestar(plugins=[plugin], logging_config=None)
    for _ in range(2):
        async with running(app):
            job_id = await plugin.client.enqueue(note())
            assert (await ended(plugin.client, job_id)).status is JobStatus.COMPLETED
    with pytest.raises(NotRunning, match="inside the lifespan"):
        await plugin.client.enqueue(note())


async def test_an_application_with_the_embedded_server_needs_no_configuration(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LITESTAR_JOBS_EMBEDDED_DIR", str(tmp_path / "postgres"))
    plugin = JobsPlugin(JobsConfig(jobs=[note]))
    with caplog.at_level("INFO", logger="litestar_jobs"):
        async with running(Litestar(plugins=[plugin], logging_config=None)):
            job_id = await plugin.client.enqueue(note())
            assert (await ended(plugin.client, job_id)).status is JobStatus.COMPLETED
    assert "embedded PostgreSQL, which is not for production" in caplog.text


async def test_environment_variables_name_the_database_and_switch_the_worker_off(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITESTAR_JOBS_DSN", dsn)
    monkeypatch.setenv("LITESTAR_JOBS_WORKER", "0")
    plugin = JobsPlugin(JobsConfig(jobs=[note]))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        job_id = await plugin.client.enqueue(note())
        row = await plugin.client.get(job_id)
        assert plugin.worker is None
    assert row is not None
    assert row.status is JobStatus.PENDING

    monkeypatch.setenv("LITESTAR_JOBS_WORKER", "maybe")
    with pytest.raises(ConfigurationError, match="LITESTAR_JOBS_WORKER must be 1 or 0, not 'maybe'"):
        JobsPlugin(JobsConfig())


async def test_an_application_that_only_enqueues_need_not_have_its_jobs_dependencies(dsn: str) -> None:
    @job(name="elsewhere")
    async def elsewhere(*, smtp: NamedDependency[object]) -> None: ...

    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[elsewhere], worker=None))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        assert await plugin.client.get(await plugin.client.enqueue(elsewhere())) is not None
        assert plugin.worker is None


async def test_a_subclass_of_the_plugin_is_as_good(dsn: str) -> None:
    class OurJobs(JobsPlugin):
        pass

    plugin = OurJobs(JobsConfig(dsn=dsn, jobs=[note]))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        assert (await ended(plugin.client, await plugin.client.enqueue(note()))).status is JobStatus.COMPLETED


async def test_jobs_of_another_schema_live_beside(dsn: str, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    ours = JobsPlugin(JobsConfig(dsn=dsn, jobs=[note], schema="our_jobs"))
    async with running(Litestar(plugins=[ours], logging_config=None)):
        job_id = await ours.client.enqueue(note())
        assert (await ended(ours.client, job_id)).status is JobStatus.COMPLETED
    assert await connection.fetchval("SELECT count(*) FROM our_jobs.finished") == 1
    assert await connection.fetchval("SELECT count(*) FROM litestar_jobs.job") == 0


# Starts that fail


async def test_an_unreachable_database_fails_the_start_and_the_password_stays_secret() -> None:
    plugin = JobsPlugin(JobsConfig(dsn="postgresql://me:hidden@127.0.0.1:1/shop", jobs=[note]))
    with pytest.raises(
        DatabaseUnreachable, match=r"cannot be reached at 127\.0\.0\.1:1/shop.*JobsConfig\.dsn"
    ) as raised:
        async with running(Litestar(plugins=[plugin], logging_config=None)):
            pytest.fail("started without a database")
    assert "hidden" not in str(raised.value)
    assert "hidden" not in repr(plugin.config)


@pytest.mark.parametrize("setting", ["check", "never"])
async def test_missing_tables_fail_the_start_with_the_remedy(empty_dsn: str, setting: Any) -> None:
    plugin = JobsPlugin(JobsConfig(dsn=empty_dsn, jobs=[note], migrate=setting))
    with pytest.raises(SchemaError, match="litestar jobs upgrade"):
        async with running(Litestar(plugins=[plugin], logging_config=None)):
            pytest.fail("started without tables")


async def test_tables_newer_than_the_library_fail_the_start_with_the_remedy(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await connection.execute("INSERT INTO litestar_jobs.migration (version) VALUES (999)")
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[note]))
    with pytest.raises(SchemaError, match=r"have version 999.*Upgrade the litestar-jobs package"):
        async with running(Litestar(plugins=[plugin], logging_config=None)):
            pytest.fail("started on newer tables")


async def test_a_startup_hook_of_the_users_that_fails_leaves_nothing_of_ours(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    def fail() -> None:
        raise RuntimeError("no licence")

    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[note]))
    async with nothing_is_left(connection):
        with pytest.raises(RuntimeError, match="no licence"):
            async with running(Litestar(plugins=[plugin], on_startup=[fail], logging_config=None)):
                pytest.fail("started")


async def test_a_worker_that_fails_to_start_leaves_nothing(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """The worker registers, and then cannot look for scheduled jobs."""
    await connection.execute("ALTER TABLE litestar_jobs.scheduled RENAME TO hidden")
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[note]))
    async with nothing_is_left(connection):
        with pytest.raises(asyncpg.UndefinedTableError):
            async with running(Litestar(plugins=[plugin], logging_config=None)):
                pytest.fail("started")
    await connection.execute("ALTER TABLE litestar_jobs.hidden RENAME TO scheduled")


# Names that are taken


def test_a_dependency_of_the_clients_name_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigurationError, match=r"already has a dependency 'jobs'.*dependency_key='job_queue'"):
        Litestar(
            dependencies={"jobs": Provide(lambda: 1, sync_to_thread=False)},
            plugins=[JobsPlugin(JobsConfig(dsn="postgresql://localhost/x", jobs=[]))],
        )


@get("/search")
async def search(jobs: str) -> str:
    return jobs


@websocket("/socket")
async def socket_handler(socket: WebSocket[Any, Any, Any], jobs: int) -> None: ...


class Search(Controller):
    path = "/deep"

    @get("/search")
    async def search(self, jobs: list[str]) -> str:
        return ",".join(jobs)


@pytest.mark.filterwarnings("ignore::litestar.exceptions.base_exceptions.LitestarDeprecationWarning")
@pytest.mark.parametrize("handler", [search, socket_handler, Search, Router("/r", route_handlers=[search])])
def test_a_handler_with_a_parameter_of_the_clients_name_is_refused_with_the_remedy(handler: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"has a parameter 'jobs' of its own.*dependency_key="):
        Litestar([handler], plugins=[JobsPlugin(JobsConfig(dsn="postgresql://localhost/x", jobs=[]))])


@pytest.mark.filterwarnings("ignore::litestar.exceptions.base_exceptions.LitestarDeprecationWarning")
def test_a_handler_whose_own_layer_provides_that_name_is_left_alone() -> None:
    router = Router("/r", route_handlers=[search], dependencies={"jobs": Provide(lambda: "mine", sync_to_thread=False)})
    Litestar([router], plugins=[JobsPlugin(JobsConfig(dsn="postgresql://localhost/x", jobs=[]))])


@pytest.mark.filterwarnings("ignore::litestar.exceptions.base_exceptions.LitestarDeprecationWarning")
async def test_the_client_may_have_another_name(dsn: str) -> None:
    @job(name="follow")
    async def follow(*, job_queue: Jobs) -> None:
        await job_queue.enqueue(note())

    @get("/")
    async def handler(job_queue: Jobs) -> str:
        return str(await job_queue.enqueue(follow()))

    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[follow, note], dependency_key="job_queue"))
    async with running(Litestar([handler, search], plugins=[plugin], logging_config=None)) as http:
        assert (await http.get("/")).is_success
        assert (await http.get("/search?jobs=mine")).text == "mine"

        async def both_done() -> bool:
            return len(await plugin.client.store.find(JobFilter(status="completed"), 10)) == 2

        await until(both_done)


def test_two_plugins_in_one_application_are_refused() -> None:
    config = JobsConfig(dsn="postgresql://localhost/x", jobs=[])
    with pytest.raises(ConfigurationError, match="an application has one JobsPlugin"):
        Litestar(plugins=[JobsPlugin(config), JobsPlugin(config)])


def test_a_plugin_outside_an_application_says_so() -> None:
    with pytest.raises(ConfigurationError, match="not part of an application"):
        _ = JobsPlugin().source


async def test_workers_and_enqueuers_share_one_application_module(dsn: str) -> None:
    """The same jobs in two applications: one that only enqueues, one that only works."""
    web = JobsPlugin(JobsConfig(dsn=dsn, jobs=[note], worker=None))
    back = JobsPlugin(JobsConfig(dsn=dsn, jobs=[note], worker=WorkerConfig(concurrency=1)))
    async with (
        running(Litestar(plugins=[web], logging_config=None)),
        running(Litestar(plugins=[back], logging_config=None)),
    ):
        assert (await ended(web.client, await web.client.enqueue(note()))).status is JobStatus.COMPLETED
