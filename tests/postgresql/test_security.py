"""Names and values never become SQL, roles may do what they need and no more, and secrets are not shown."""

import asyncio
import logging
import re
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest
from advanced_alchemy.extensions.litestar import SQLAlchemyAsyncConfig, SQLAlchemyPlugin
from click.testing import CliRunner
from litestar import Litestar, post
from litestar.cli.main import litestar_group
from litestar.di import NamedDependency
from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from litestar_jobs import (
    Finished,
    Fixed,
    JobContext,
    JobFilter,
    JobRequest,
    Jobs,
    JobsConfig,
    JobsPlugin,
    Limit,
    Never,
    Rate,
    Retention,
    Unique,
    WorkerConfig,
    chain,
    group,
    job,
)
from litestar_jobs.database import Database
from litestar_jobs.errors import ConfigurationError, DatabaseUnreachable, EnqueueError, JobsError, StartupError
from litestar_jobs.store import Statements
from litestar_jobs.testing import drained, ended, running, until

ROLES = Path(__file__).parents[2] / "docs" / "examples" / "roles.sql"
SECRET = "correct-horse-battery"

HOSTILE = [
    "'; DROP TABLE litestar_jobs.job; --",
    '"; DROP SCHEMA litestar_jobs CASCADE; --',
    "$1); DELETE FROM litestar_jobs.ready; --",
    "%s %(p1)s {0} :name \\",
    "$$; SELECT pg_sleep(10); $$",
    "a,b{}\"\\'NULL",
    "[red]x[/red]",
]


class Letter(Struct):
    text: str


@job(limit=Limit(1), rate=Rate(100, per=1))
async def limited() -> None: ...


@job(max_retries=1, retry=Fixed(0))
async def work(payload: Letter) -> None:
    if payload.text == "fail":
        raise ValueError(payload.text)


def plugin_at(dsn: str, **settings: Any) -> JobsPlugin:
    return JobsPlugin(JobsConfig(**{"dsn": dsn, "jobs": [work], "migrate": "check"} | settings))


@asynccontextmanager
async def app_at(dsn: str, **settings: Any) -> AsyncIterator[JobsPlugin]:
    plugin = plugin_at(dsn, **settings)
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        yield plugin


def command(dsn: str, *words: str) -> str:
    """What ``litestar jobs`` prints, errors and tracebacks too."""
    arguments = ["--app", "cli_app:create_app", "jobs", *words]
    result = CliRunner().invoke(litestar_group, arguments, env={"LITESTAR_JOBS_DSN": dsn})
    trace = "" if result.exc_info is None else "".join(traceback.format_exception(*result.exc_info))
    return result.output + trace


# Names and values.


@pytest.mark.parametrize("name", HOSTILE)
async def test_names_and_values_are_only_ever_that(name: str, dsn: str) -> None:
    """Through enqueue, enqueue_many (by arrays and by COPY), enqueue_with, the worker, a retry and a notification."""

    @job(name=name, queue=name)
    async def hostile(payload: Letter) -> None:
        if payload.text == "fail":
            raise ValueError(name)

    alchemy = SQLAlchemyAsyncConfig(connection_string=dsn.replace("postgresql://", "postgresql+asyncpg://"))
    plugin = plugin_at(dsn, jobs=[hostile])
    async with running(Litestar(plugins=[SQLAlchemyPlugin(alchemy), plugin], logging_config=None)):
        client = plugin.client
        await client.enqueue(hostile(Letter(name)))
        for many in (2, 300):
            await client.enqueue_many([hostile(Letter(name)) for _ in range(many)])
        async with alchemy.get_session() as session, session.begin():
            await client.enqueue_with(session, hostile(Letter(name)))
        failed = await client.enqueue(hostile(Letter("fail"), max_retries=0))
        row = await ended(client, failed)
        assert (row.job_type, row.queue, row.last_error) == (name, name, f"ValueError: {name}")
        await client.enqueue(hostile(Letter(name), delay=0.01))
        await drained(client)

        async def all_completed() -> bool:
            return [(end.queue, end.jobs) for end in await client.store.count() if end.status == "completed"] == [
                (name, 305)
            ]

        await until(all_completed)
        found = await client.store.find(JobFilter(status="failed", queue=name, job_type=name), 10)
        assert [row.id for row in found] == [failed]
        assert await client.retry(failed)


@pytest.mark.parametrize("name", HOSTILE)
def test_the_command_line_takes_them_as_they_are(name: str, own_loop_dsn: str) -> None:
    listed = command(own_loop_dsn, "list", "--queue", name, "--type", name)
    assert "There are no such jobs." in listed
    assert "Invalid value" in command(own_loop_dsn, "retry", name)


@pytest.mark.parametrize("name", [*HOSTILE, "jobs; drop", "Jobs", 'a"b', "a.b", "é", "a\n", "", "x" * 52])
def test_a_schema_is_a_plain_name_or_refused(name: str) -> None:
    for make in (lambda: JobsConfig(schema=name), lambda: Statements(name)):
        with pytest.raises(ConfigurationError, match="plain lower-case name"):
            make()


async def test_headers_of_a_request_become_a_trace_id_only_if_they_are_one(dsn: str) -> None:
    @post("/work")
    async def enqueue(jobs: Jobs) -> str:
        return str(await jobs.enqueue(work(Letter("x"))))

    sent = [
        {header.encode(): value.encode("latin-1")}
        for header in ("x-trace-id", "x-request-id", "traceparent", "tracestate", "baggage")
        for value in (*HOSTILE, "x" * 500, "\xff" * 40)
    ]
    plugin = plugin_at(dsn)
    async with running(Litestar([enqueue], plugins=[plugin], logging_config=None)) as http:
        answers = [await http.post("/work", headers=headers) for headers in sent]
        await drained(plugin.client)
        rows = await plugin.client.store.find(JobFilter(status="completed"), 100)
    assert {answer.status_code for answer in answers} == {201}
    ids = {answer.headers["x-trace-id"] for answer in answers}
    assert {row.trace_id for row in rows} == ids
    assert all(re.fullmatch(r"[\x21-\x7e]{1,64}", trace_id) for trace_id in ids)
    assert len(rows) == len(sent)


# Roles.


@pytest.fixture(params=["plain", "partitioned"])
async def role_dsn(direct_dsn: str, request: pytest.FixtureRequest) -> AsyncIterator[Callable[[str], str]]:
    """The DSN of a login that is a member of one of the documented roles, after an owner has made the tables."""
    prefix = f"jobs_{uuid4().hex[:8]}_"
    names = ["enqueue", "work", "read", "operate", "replace"]
    admin = await asyncpg.connect(direct_dsn)
    for name in names:
        await admin.execute(f"CREATE ROLE {prefix}{name} NOLOGIN; CREATE ROLE {prefix}login_{name} LOGIN PASSWORD 'x'")
        await admin.execute(f"GRANT {prefix}{name} TO {prefix}login_{name}")
    await admin.execute(f"GRANT {prefix}enqueue TO {prefix}login_replace")
    await admin.execute(
        re.sub(r"\bjobs_(?=enqueue|work|read|operate|replace)", prefix, ROLES.read_text(encoding="utf-8"))
    )
    if request.param == "partitioned":
        await admin.execute("SELECT litestar_jobs.partition_tables('1 day')")
    parts = urlsplit(direct_dsn)

    def of(name: str) -> str:
        return urlunsplit(parts._replace(netloc=f"{prefix}login_{name}:x@{parts.netloc.rpartition('@')[2]}"))

    yield of
    for name in names:
        await admin.execute(f"DROP OWNED BY {prefix}{name}; DROP ROLE {prefix}login_{name}, {prefix}{name}")
    await admin.close()


async def test_a_role_that_may_only_enqueue_does_so_and_sees_nothing(
    role_dsn: Callable[[str], str], direct_dsn: str, connection: Any
) -> None:
    async with app_at(role_dsn("enqueue"), worker=None) as plugin:
        client = plugin.client
        job_id = await client.enqueue(work(Letter("x")))
        await client.enqueue(work(Letter("x"), delay=60))
        for many in (3, 300):
            await client.enqueue_many([work(Letter("x")) for _ in range(many)])
        own = await asyncpg.connect(role_dsn("enqueue"))
        async with own.transaction():
            await client.enqueue_with(own, work(Letter("x")))
        await client.enqueue(limited())
        for refused in (client.get(job_id), client.cancel(job_id), client.retry(job_id)):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await refused
        for statement in ("SELECT payload FROM litestar_jobs.job", "DELETE FROM litestar_jobs.ready"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await own.execute(statement)
        await own.close()
    assert await connection.fetchval("SELECT count(*) FROM litestar_jobs.job") == 307


async def test_roles_do_with_workflows_what_they_may_do_with_jobs(
    role_dsn: Callable[[str], str], connection: Any
) -> None:
    @job
    async def count(payload: list[Finished]) -> int:
        return len(payload)

    async with app_at(role_dsn("enqueue"), worker=None) as plugin:
        parts = [work(Letter("fail"), max_retries=0), work(Letter("x")), work(Letter("x"), delay=3600)]
        started = await plugin.client.workflows.start(group(parts, then=count))
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await plugin.client.workflows.get(started.id)
    async with app_at(role_dsn("read"), worker=None) as plugin:
        found = await plugin.client.workflows.get(started.id)
        assert found is not None
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await plugin.client.workflows.cancel(started.id)
    async with app_at(role_dsn("work"), jobs=[work]) as plugin:
        await ended(plugin.client, started.steps["work 2"])
    async with app_at(role_dsn("operate"), worker=None) as plugin:
        assert await plugin.client.cancel(started.steps["work 3"])
    async with app_at(role_dsn("work"), jobs=[work, count]) as plugin:
        assert await plugin.client.result(started.last, of=count, timeout=10) == 3
        chained = await plugin.client.workflows.start(chain(work(Letter("x")), work(Letter("x"))))
        await ended(plugin.client, chained.last)
    async with app_at(role_dsn("operate"), worker=None) as plugin:
        assert await plugin.client.delete_all(JobFilter.everything()) == 6
    async with app_at(role_dsn("work"), jobs=[work]):

        async def gone() -> bool:
            return not await connection.fetchval("SELECT count(*) FROM litestar_jobs.workflow")

        await until(gone)


async def test_a_role_that_may_only_enqueue_enqueues_unique_jobs_and_changes_no_others(
    role_dsn: Callable[[str], str], connection: Any
) -> None:
    once = job(unique=Unique(), name="once")(work.fn)
    latest = job(unique=Unique(on_conflict="replace"), name="latest")(work.fn)
    async with app_at(role_dsn("enqueue"), worker=None) as plugin:
        client = plugin.client
        first = await client.enqueue(once(Letter("x")))
        assert await client.enqueue(once(Letter("x"))) == first
        pending = await client.enqueue(latest(Letter("x")))
        with pytest.raises(EnqueueError, match="nothing was enqueued: permission denied"):
            await client.enqueue(latest(Letter("x")))
    async with app_at(role_dsn("replace"), worker=None) as plugin:
        assert await plugin.client.enqueue(latest(Letter("x"), priority=5)) == pending
    assert await connection.fetchval("SELECT priority FROM litestar_jobs.ready WHERE id = $1", pending) == 5


async def test_a_role_that_may_only_enqueue_is_told_that_it_cannot_work(role_dsn: Callable[[str], str]) -> None:
    with pytest.raises(StartupError, match=r"permission denied.*under Security"):
        async with app_at(role_dsn("enqueue")):
            pass


async def test_a_role_that_may_work_does_all_that_a_worker_does_and_cannot_change_what_was_asked_for(
    role_dsn: Callable[[str], str], connection: Any
) -> None:
    await connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC; CREATE TABLE written (number int)")
    await connection.execute("GRANT INSERT ON written TO PUBLIC")

    once = job(unique=Unique(), name="once")(work.fn)

    @job
    async def write(number: int, db_session: NamedDependency[AsyncSession], jobs: Jobs) -> None:
        await db_session.execute(text("INSERT INTO written VALUES (1)"))
        await jobs.enqueue(work(Letter("followed"), delay=0.01))
        await jobs.enqueue_with(db_session, once(Letter("followed")))

    dsn = role_dsn("work")
    alchemy = SQLAlchemyAsyncConfig(connection_string=dsn.replace("postgresql://", "postgresql+asyncpg://"))
    plugin = plugin_at(dsn, jobs=[work, write, once, limited], worker=WorkerConfig(lease=1))
    async with running(Litestar(plugins=[SQLAlchemyPlugin(alchemy), plugin], logging_config=None)):
        client = plugin.client
        await ended(client, await client.enqueue(write(1)))
        await ended(client, await client.enqueue(limited()))
        failed = await ended(client, await client.enqueue(work(Letter("fail"))))
        assert failed.attempts == 2
        await _leave_behind(connection)
        await until(lambda: _rescued(connection))
        assert await client.retry(failed.id)
        assert await client.cancel(await client.enqueue(work(Letter("x"), delay=60)))
        await drained(client)
        assert plugin.worker is not None
    own = await asyncpg.connect(dsn)
    for statement in (
        "UPDATE litestar_jobs.job SET payload = 'null'",
        "UPDATE litestar_jobs.failure SET message = ''",
        "INSERT INTO litestar_jobs.migration (version) VALUES (99)",
        "ALTER TABLE litestar_jobs.job ADD COLUMN x int",
        "CREATE TABLE litestar_jobs.mine (x int)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await own.execute(statement)
    await own.close()


async def test_a_role_that_may_work_deletes_what_was_kept_long_enough(
    role_dsn: Callable[[str], str], direct_dsn: str
) -> None:
    async with app_at(direct_dsn) as plugin:
        failed = await ended(plugin.client, await plugin.client.enqueue(work(Letter("fail"))))
    async with app_at(role_dsn("work"), retention=Retention(failed=0)) as plugin:

        async def gone() -> bool:
            return await plugin.client.get(failed.id) is None

        await until(gone)


async def test_roles_that_delete_jobs_look_after_partitions_and_others_may_not(role_dsn: Callable[[str], str]) -> None:
    for name in ("work", "operate", "enqueue", "read", "replace"):
        own = await asyncpg.connect(role_dsn(name))
        for function in ("make_partition()", "drop_partition('before', 0, 0, 0)"):
            if name in {"work", "operate"}:
                await own.execute(f"SELECT litestar_jobs.{function}")
            else:
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await own.execute(f"SELECT litestar_jobs.{function}")
        for function in ("partition_tables('1 day')", "add_partition(now(), now())"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await own.execute(f"SELECT litestar_jobs.{function}")
        await own.close()


async def test_a_role_that_may_work_tells_how_far_its_jobs_are(role_dsn: Callable[[str], str]) -> None:
    seen = asyncio.Event()

    @job
    async def tell(*, job: JobContext) -> None:
        await job.progress(0.5)
        await seen.wait()

    async with app_at(role_dsn("work"), jobs=[tell]) as plugin:
        job_id = await plugin.client.enqueue(tell())

        async def half() -> bool:
            row = await plugin.client.get(job_id)
            return row is not None and row.progress == 0.5

        await until(half, 5)
        seen.set()
        await ended(plugin.client, job_id)


async def _leave_behind(connection: Any) -> None:
    """A job that a process left running when it died."""
    await connection.execute(
        "WITH asked AS (INSERT INTO litestar_jobs.job (id, queue, job_type, payload, priority, max_retries, run_at,"
        " created_at) VALUES (gen_random_uuid(), 'default', 'work', '{\"text\": \"left\"}', 0, 3, now(), now())"
        " RETURNING id) INSERT INTO litestar_jobs.running (id, token, started_at, worker_id, attempt, queue)"
        " SELECT id, nextval('litestar_jobs.token'), now(), gen_random_uuid(), 1, 'default' FROM asked"
    )


async def _rescued(connection: Any) -> bool:
    query = "SELECT EXISTS (SELECT FROM litestar_jobs.jobs WHERE payload ->> 'text' = 'left' AND status = 'completed')"
    return bool(await connection.fetchval(query))


async def test_a_role_that_may_only_read_reads_all_and_moves_nothing(
    role_dsn: Callable[[str], str], direct_dsn: str
) -> None:
    async with app_at(direct_dsn) as plugin:
        failed = await ended(plugin.client, await plugin.client.enqueue(work(Letter("fail"))))
    async with app_at(role_dsn("read"), worker=None) as plugin:
        client = plugin.client
        assert await client.get(failed.id) == failed
        assert len(await client.store.failures(failed.id)) == 2
        assert await client.store.count()
        assert await client.store.workers() == []
        for refused in (client.cancel(failed.id), client.retry(failed.id)):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await refused


async def test_a_role_that_may_operate_does_what_operators_do_and_cannot_work(
    role_dsn: Callable[[str], str], direct_dsn: str
) -> None:
    async with app_at(direct_dsn) as plugin:
        failed = await ended(plugin.client, await plugin.client.enqueue(work(Letter("fail"))))
        later = await plugin.client.enqueue(work(Letter("x"), delay=60))
    async with app_at(role_dsn("operate"), worker=None) as plugin:
        assert await plugin.client.retry(failed.id)
        assert await plugin.client.cancel(later)
        client, everything = plugin.client, JobFilter.everything()
        assert await client.retry_all(everything) == 1
        assert await client.move_all(everything, queue="other") == 2
        assert await client.reprioritise_all(everything, priority=1) == 2
        assert await client.cancel_all(everything) == 2
        assert await client.delete_all(JobFilter(ids=[later])) == 1
        assert await plugin.client.queues.pause("mail")
        assert await plugin.client.queues.resize("mail", 2)
        assert await plugin.client.queues.resume("mail")
    with pytest.raises(StartupError, match="permission denied"):
        async with app_at(role_dsn("operate")):
            pass


# Secrets.


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://me:{SECRET}@127.0.0.1:1/db",
        f"postgresql://127.0.0.1:1/db?user=me&password={SECRET}",
        f"postgresql://me:12/{SECRET}@127.0.0.1:1/db",
        f"postgresql://me:12#{SECRET}@127.0.0.1:1/db",
        f"postgresql://me:12?{SECRET}@127.0.0.1:1/db",
        f"postgresql://me:\uff0f{SECRET}@127.0.0.1:1/db",
        f"postgresql://me:\u2100{SECRET}@127.0.0.1:1/db",
        f"postgresql://me:[{SECRET}@127.0.0.1:1/db",
        f"postgresql://me:{SECRET}@127.0.0.1:1/db?sslmode=nonsense",
        f"postgresql://me:{SECRET}@127.0.0.1:1/db?statement_cache_size=nonsense",
        f"postgresql://me:{SECRET}@127.0.0.1:99999/db",
        f"mysql://me:{SECRET}@127.0.0.1/db",
        f"me:{SECRET}@127.0.0.1/db",
    ],
)
async def test_a_password_is_in_no_log_error_traceback_repr_or_output(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the settings, the plugin, the application at its start, and the command line; by either way that is given."""
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    for settings in ({"dsn": dsn}, {"dsn": "postgresql://127.0.0.1:1/db", "worker": WorkerConfig(listen_dsn=dsn)}):
        try:
            config = JobsConfig(jobs=[work], **settings)
            plugin = JobsPlugin(config)
            shown.append(repr((config, plugin, config.worker)))
            app = Litestar(plugins=[plugin])
            shown.append(repr((plugin.source, vars(plugin.source)["open"])))
            async with running(app):
                pytest.fail("it started")
        except JobsError as error:
            shown += traceback.format_exception(error)
        except BaseException as error:  # noqa: BLE001 - shown, and named below
            shown += [*traceback.format_exception(error), f"unexpected {type(error)}"]
    assert SECRET not in "".join(shown) + caplog.text
    assert "unexpected" not in "".join(shown)


def test_the_command_line_shows_no_password_when_it_cannot_connect() -> None:
    for words in (["list"], ["check"], ["upgrade"], ["list", "--json"]):
        shown = command(f"postgresql://me:{SECRET}@127.0.0.1:1/db", *words)
        assert "cannot be reached at 127.0.0.1:1/db" in shown
        assert SECRET not in shown


async def test_a_wrong_password_is_not_shown(direct_dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    parts = urlsplit(direct_dsn)
    nobody = urlunsplit(parts._replace(netloc=f"nobody_{uuid4().hex[:6]}:{SECRET}@{parts.netloc.rpartition('@')[2]}"))
    with pytest.raises(DatabaseUnreachable) as caught:
        await Database(nobody).connect()
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + caplog.text


async def test_payloads_and_tracebacks_are_not_logged_at_info_or_above(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    @job(retry=Never())
    async def leak(payload: Letter) -> None:
        variable = payload.text
        raise LookupError("no such letter", len(variable))

    async with app_at(dsn, jobs=[work, leak]) as plugin:
        client = plugin.client
        await ended(client, await client.enqueue(leak(Letter(SECRET))))
        await ended(client, await client.enqueue(JobRequest(job_type="work", payload=f'["{SECRET}"]'.encode())))
        await client.enqueue(JobRequest(job_type="unknown", payload=f'["{SECRET}"]'.encode()))
        await until(lambda: _logged(caplog))
    loud = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert len(loud) >= 3
    assert [record.getMessage() for record in loud if record.exc_info or record.exc_text or record.stack_info] == []
    assert SECRET not in " ".join(f"{record.getMessage()} {vars(record)}" for record in loud)


async def _logged(caplog: pytest.LogCaptureFixture) -> bool:
    return "no job of this name" in caplog.text
