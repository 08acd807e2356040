"""The job's session: one per job, committed with the end of the job in the same transaction."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from advanced_alchemy.base import CommonTableAttributes
from advanced_alchemy.extensions.litestar import (
    AsyncSessionConfig,
    EngineConfig,
    SQLAlchemyAsyncConfig,
    SQLAlchemyPlugin,
    SQLAlchemySyncConfig,
)
from advanced_alchemy.extensions.litestar.providers import create_service_dependencies
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from advanced_alchemy.service import SQLAlchemyAsyncRepositoryService
from litestar import Litestar
from litestar.di import Provide
from sqlalchemy import Engine, event, make_url, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.sql.dml import UpdateBase

from litestar_jobs import (
    Cancel,
    Fixed,
    Job,
    JobContext,
    JobRow,
    Jobs,
    JobsClient,
    JobsConfig,
    JobsPlugin,
    JobStatus,
    Never,
    job,
)
from litestar_jobs.alchemy import database_of, url_of
from litestar_jobs.errors import ConfigurationError, DatabaseUnreachable
from litestar_jobs.outcome import Committed, Completed, Lost, Outcome
from litestar_jobs.telemetry import AttemptEnded, Event
from litestar_jobs.testing import ended, running

Plain = Any


class Base(CommonTableAttributes, DeclarativeBase): ...


class Note(Base):
    __tablename__ = "note"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class NoteService(SQLAlchemyAsyncRepositoryService[Note]):
    class Repository(SQLAlchemyAsyncRepository[Note]):
        model_type = Note

    repository_type = Repository


NOTE = "CREATE TABLE note (number int CONSTRAINT once UNIQUE DEFERRABLE INITIALLY DEFERRED)"


def plus(dsn: str, driver: str = "asyncpg") -> str:
    return dsn.replace("postgresql://", f"postgresql+{driver}://", 1)


@pytest.fixture
async def notes(dsn: str, connection: Plain) -> None:
    await connection.execute(NOTE)


def config(dsn: str, **options: Any) -> SQLAlchemyAsyncConfig:
    return SQLAlchemyAsyncConfig(connection_string=plus(dsn), metadata=Base.metadata, **options)


class Outcomes:
    """Hears how attempts end."""

    def __init__(self) -> None:
        self.seen: list[Outcome] = []

    def __call__(self, happened: Event) -> None:
        if isinstance(happened, AttemptEnded):
            self.seen.append(happened.outcome)


@asynccontextmanager
async def application(
    jobs: list[Job[Any, Any]], *configs: Any, hook: Any = None, dsn: str | None = None, **options: Any
) -> AsyncIterator[JobsClient]:
    """An application with these configurations of advanced-alchemy. Its engines are closed afterwards: their own
    plugin forgets some when a process has many configurations."""
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=jobs, hooks=[hook] if hook else []))
    try:
        async with running(Litestar(plugins=[plugin, SQLAlchemyPlugin(config=list(configs))], **options)):
            yield plugin.client
    finally:
        for each in configs:
            engine = each.get_engine()
            await engine.dispose() if isinstance(engine, AsyncEngine) else engine.dispose()


async def run(
    dsn: str, asked: Job[None, Any], *configs: Any, hook: Any = None, dsn_of_jobs: str | None = None, **options: Any
) -> JobRow:
    """How the job ends, by default with one session of the jobs' database."""
    async with application([asked], *(configs or [config(dsn)]), hook=hook, dsn=dsn_of_jobs, **options) as client:
        return await ended(client, await client.enqueue(asked()))


async def numbers(connection: Plain) -> list[int]:
    return [row["number"] for row in await connection.fetch("SELECT number FROM note ORDER BY number")]


async def written_by(connection: Plain, job_id: UUID) -> tuple[str, str]:
    """The transactions that wrote the note and the end of the job."""
    row = await connection.fetchrow(
        "SELECT note.xmin::text AS note, finished.xmin::text AS finished FROM note, litestar_jobs.finished"
        " WHERE finished.id = $1",
        job_id,
    )
    return row["note"], row["finished"]


# One transaction.


@job(name="write", retry=Never())
async def write(*, db_session: AsyncSession) -> None:
    db_session.add(Note(number=1))


async def test_a_job_is_finished_in_the_transaction_of_its_session(dsn: str, notes: None, connection: Plain) -> None:
    outcomes = Outcomes()
    row = await run(dsn, write, hook=outcomes)

    assert row.status is JobStatus.COMPLETED
    assert outcomes.seen == [Committed()]
    note, finished = await written_by(connection, row.id)
    assert note == finished


async def test_what_a_handler_wrote_before_it_raised_is_rolled_back(dsn: str, notes: None, connection: Plain) -> None:
    @job(retry=Fixed(0), max_retries=1)
    async def second_time_lucky(*, db_session: AsyncSession, job: JobContext) -> None:
        await db_session.execute(text(f"INSERT INTO note VALUES ({job.attempt})"))
        if not job.is_last_attempt:
            raise LookupError("not yet")

    row = await run(dsn, second_time_lucky)
    assert (row.status, row.attempts) == (JobStatus.COMPLETED, 2)
    assert await numbers(connection) == [2]


@pytest.mark.parametrize("returned", [False, True], ids=["raised", "returned"])
async def test_what_a_handler_wrote_before_it_asked_for_an_end_is_rolled_back(
    dsn: str, notes: None, connection: Plain, *, returned: bool
) -> None:
    @job
    async def withdrawn(*, db_session: AsyncSession) -> Cancel:
        await db_session.execute(text("INSERT INTO note VALUES (1)"))
        if returned:
            return Cancel("not needed")
        raise Cancel("not needed")

    row = await run(dsn, withdrawn)
    assert (row.status, row.last_error) == (JobStatus.CANCELLED, "Cancel: not needed")
    assert await numbers(connection) == []


async def test_a_commit_that_fails_fails_the_job_and_writes_nothing(dsn: str, notes: None, connection: Plain) -> None:
    await connection.execute("INSERT INTO note VALUES (1)")
    row = await run(dsn, write)

    assert row.status is JobStatus.FAILED
    assert row.last_error is not None
    assert '"once"' in row.last_error
    assert await numbers(connection) == [1]


async def test_a_session_left_broken_by_a_swallowed_error_fails_the_job(
    dsn: str, notes: None, connection: Plain
) -> None:
    @job(retry=Never())
    async def swallow(*, db_session: AsyncSession) -> None:
        await db_session.execute(text("SET CONSTRAINTS once IMMEDIATE"))
        await db_session.execute(text("INSERT INTO note VALUES (1)"))
        with pytest.raises(IntegrityError):
            await db_session.execute(text("INSERT INTO note VALUES (1)"))

    row = await run(dsn, swallow)
    assert row.status is JobStatus.FAILED
    assert await numbers(connection) == []


async def test_an_attempt_that_lost_its_token_commits_nothing(dsn: str, notes: None, connection: Plain) -> None:
    outcomes = Outcomes()

    @job
    async def overtaken(*, db_session: AsyncSession) -> None:
        await db_session.execute(text("INSERT INTO note VALUES (1)"))
        # Another worker rescued the job meanwhile, and it ended there.
        await connection.execute(
            "WITH gone AS (DELETE FROM litestar_jobs.running RETURNING id, attempt) "
            "INSERT INTO litestar_jobs.finished (id, finished_at, attempts, status) "
            "SELECT id, now(), attempt, 'failed' FROM gone"
        )

    row = await run(dsn, overtaken, hook=outcomes)
    assert outcomes.seen == [Lost()]
    assert row.status is JobStatus.FAILED
    assert await numbers(connection) == []


async def test_a_handler_that_commits_by_itself_keeps_what_it_committed(
    dsn: str, notes: None, connection: Plain
) -> None:
    outcomes = Outcomes()

    @job(retry=Never())
    async def commits(*, db_session: AsyncSession) -> None:
        async with db_session.begin():
            db_session.add(Note(number=1))

    @job(retry=Never())
    async def commits_and_raises(*, db_session: AsyncSession) -> None:
        db_session.add(Note(number=2))
        await db_session.commit()
        db_session.add(Note(number=3))
        await db_session.flush()
        raise LookupError("afterwards")

    assert (await run(dsn, commits, hook=outcomes)).status is JobStatus.COMPLETED
    assert outcomes.seen == [Completed()]
    assert (await run(dsn, commits_and_raises)).status is JobStatus.FAILED
    assert await numbers(connection) == [1, 2]


async def test_follow_up_jobs_share_the_transaction(dsn: str, notes: None, connection: Plain) -> None:
    @job(retry=Never())
    async def follow(payload: int) -> None: ...

    @job(retry=Never())
    async def lead(*, db_session: AsyncSession, jobs: Jobs) -> None:
        await jobs.enqueue_with(db_session, follow(1))
        raise LookupError("after all")

    assert (await run(dsn, lead)).status is JobStatus.FAILED
    assert await connection.fetchval("SELECT count(*) FROM litestar_jobs.job") == 1


async def test_a_session_that_was_not_used_costs_no_transaction(dsn: str) -> None:
    checkouts: list[Any] = []
    outcomes = Outcomes()
    engine = create_async_engine(plus(dsn))

    @job
    async def idle(*, db_session: AsyncSession) -> None: ...

    async with application([idle], SQLAlchemyAsyncConfig(engine_instance=engine), hook=outcomes) as client:
        event.listen(engine.sync_engine, "checkout", lambda *_: checkouts.append(_))
        await ended(client, await client.enqueue(idle()))

    assert checkouts == []
    assert outcomes.seen == [Completed()]


async def test_a_session_that_no_job_asks_for_is_not_even_opened(dsn: str) -> None:
    @job
    async def alone() -> None: ...

    opened: list[Any] = []
    own = config(dsn)
    event.listen(own.get_engine().sync_engine, "checkout", lambda *_: opened.append(_))
    row = await run(dsn, alone, own)
    assert opened == []
    assert row.status is JobStatus.COMPLETED


async def test_what_a_clean_up_writes_is_part_of_the_transaction(dsn: str, notes: None, connection: Plain) -> None:
    async def audit(db_session: AsyncSession) -> AsyncIterator[int]:
        yield 0
        db_session.add(Note(number=2))

    @job(retry=Never())
    async def audited(*, db_session: AsyncSession, audit: int) -> None:
        db_session.add(Note(number=1))

    row = await run(dsn, audited, dependencies={"audit": audit})
    assert row.status is JobStatus.COMPLETED
    assert await numbers(connection) == [1, 2]
    note, finished = await written_by(connection, row.id)
    assert note == finished


async def test_an_error_in_a_clean_up_rolls_back(dsn: str, notes: None, connection: Plain) -> None:
    async def audit(db_session: AsyncSession) -> AsyncIterator[int]:
        yield 0
        raise LookupError("no audit")

    @job(retry=Never())
    async def audited(*, db_session: AsyncSession, audit: int) -> None:
        db_session.add(Note(number=1))

    row = await run(dsn, audited, dependencies={"audit": audit})
    assert (row.status, row.last_error) == (JobStatus.FAILED, "LookupError: no audit")
    assert await numbers(connection) == []


async def test_a_timeout_rolls_back(dsn: str, notes: None, connection: Plain) -> None:
    @job(retry=Never(), timeout=0.1)
    async def endless(*, db_session: AsyncSession) -> None:
        await db_session.execute(text("INSERT INTO note VALUES (1)"))
        await asyncio.sleep(60)

    row = await run(dsn, endless)
    assert row.status is JobStatus.FAILED
    assert await numbers(connection) == []


async def test_jobs_that_run_at_once_have_sessions_of_their_own(dsn: str, notes: None, connection: Plain) -> None:
    sessions: list[int] = []
    both = asyncio.Barrier(2)

    @job(retry=Never())
    async def meet(payload: int, db_session: AsyncSession) -> None:
        sessions.append(id(db_session))
        db_session.add(Note(number=payload))
        await both.wait()

    async with application([meet], config(dsn)) as client:
        for job_id in await client.enqueue_many([meet(1), meet(2)]):
            assert (await ended(client, job_id)).status is JobStatus.COMPLETED
    assert len(set(sessions)) == 2
    assert await numbers(connection) == [1, 2]


# Whose session it is.


async def test_services_share_the_jobs_session(dsn: str, notes: None, connection: Plain) -> None:
    @job(retry=Never())
    async def serve(*, note_service: NoteService, db_session: AsyncSession) -> None:
        assert note_service.repository.session is db_session
        await note_service.create(Note(number=1))

    row = await run(dsn, serve, dependencies=create_service_dependencies(NoteService, "note_service"))
    assert row.status is JobStatus.COMPLETED, row.last_error
    note, finished = await written_by(connection, row.id)
    assert note == finished


async def test_a_service_alone_is_enough_for_a_session(dsn: str, notes: None, connection: Plain) -> None:
    @job(retry=Never())
    async def serve(*, note_service: NoteService) -> None:
        await note_service.create(Note(number=1))

    row = await run(dsn, serve, dependencies=create_service_dependencies(NoteService, "note_service"))
    assert row.status is JobStatus.COMPLETED, row.last_error
    assert await numbers(connection) == [1]


async def test_session_and_engine_come_under_the_keys_of_their_configuration(
    dsn: str, notes: None, connection: Plain
) -> None:
    seen: list[Any] = []

    @job(retry=Never())
    async def keyed(*, main_session: AsyncSession, main_engine: AsyncEngine) -> None:
        seen.append(main_engine)
        main_session.add(Note(number=1))

    own = config(dsn, session_dependency_key="main_session", engine_dependency_key="main_engine")
    row = await run(dsn, keyed, own)
    assert row.status is JobStatus.COMPLETED, row.last_error
    assert seen == [own.get_engine()]
    note, finished = await written_by(connection, row.id)
    assert note == finished


async def test_an_autocommit_configuration_for_requests_changes_nothing_for_jobs(
    dsn: str, notes: None, connection: Plain
) -> None:
    await connection.execute("INSERT INTO note VALUES (1)")
    row = await run(dsn, write, config(dsn, before_send_handler="autocommit"))

    assert row.status is JobStatus.FAILED


async def test_an_applications_own_provider_in_the_place_of_the_session_is_respected(dsn: str) -> None:
    seen: list[Any] = []

    @job(retry=Never())
    async def own(*, db_session: Any) -> None:
        seen.append(db_session)

    plugin = JobsPlugin(
        JobsConfig(jobs=[own], dependencies={"db_session": Provide(lambda: "my own", sync_to_thread=False)})
    )
    async with running(Litestar(plugins=[plugin, SQLAlchemyPlugin(config=config(dsn))])):
        await ended(plugin.client, await plugin.client.enqueue(own()))
    assert seen == ["my own"]


async def test_a_session_of_another_database_is_committed_and_the_job_finished_afterwards(
    dsn: str, empty_dsn: str
) -> None:
    outcomes = Outcomes()
    other = await asyncpg.connect(empty_dsn)
    await other.execute(NOTE)
    row = await run(dsn, write, config(empty_dsn), hook=outcomes, dsn_of_jobs=dsn)
    written = await numbers(other)
    await other.close()

    assert row.status is JobStatus.COMPLETED
    assert written == [1]
    assert outcomes.seen == [Completed()]


async def test_with_two_databases_both_sessions_commit_and_the_jobs_own_is_last(
    dsn: str, empty_dsn: str, notes: None, connection: Plain
) -> None:
    @job(name="both", retry=Never())
    async def write_both(*, db_session: AsyncSession, other_session: AsyncSession) -> None:
        db_session.add(Note(number=1))
        other_session.add(Note(number=2))

    other = await asyncpg.connect(empty_dsn)
    await other.execute(NOTE)
    configs = (
        config(dsn),
        config(empty_dsn, session_dependency_key="other_session", engine_dependency_key="other_engine", bind_key="b"),
    )
    row = await run(dsn, write_both, *configs, dsn_of_jobs=dsn)
    assert row.status is JobStatus.COMPLETED, row.last_error
    assert (await numbers(connection), await numbers(other)) == ([1], [2])
    note, finished = await written_by(connection, row.id)
    assert note == finished

    # A commit that fails in the other database leaves the job's own transaction undone.
    await connection.execute("DELETE FROM note")
    again = await run(dsn, write_both, *configs, dsn_of_jobs=dsn)
    assert again.status is JobStatus.FAILED
    assert (await numbers(connection), await numbers(other)) == ([], [2])
    await other.close()


async def test_psycopg_engines_finish_jobs_in_their_transaction_too(dsn: str, notes: None, connection: Plain) -> None:
    own = SQLAlchemyAsyncConfig(connection_string=plus(dsn, "psycopg"), metadata=Base.metadata)
    row = await run(dsn, write, own)

    assert row.status is JobStatus.COMPLETED, row.last_error
    note, finished = await written_by(connection, row.id)
    assert note == finished


async def test_a_synchronous_job_has_a_synchronous_session_in_its_thread(
    dsn: str, notes: None, connection: Plain
) -> None:
    threads: list[int] = []

    @job(retry=Never())
    def blocking(*, db_session: Session) -> None:
        threads.append(threading.get_ident())
        db_session.add(Note(number=1))
        db_session.flush()

    own = SQLAlchemySyncConfig(connection_string=plus(dsn, "psycopg"), metadata=Base.metadata)
    row = await run(dsn, blocking, own)
    assert row.status is JobStatus.COMPLETED, row.last_error
    assert threads != [threading.get_ident()]
    note, finished = await written_by(connection, row.id)
    assert note == finished


async def test_a_synchronous_job_that_raises_stop_iteration_fails_like_any_other(dsn: str) -> None:
    @job(retry=Never())
    def exhausted() -> None:
        next(iter(()))

    row = await run(dsn, exhausted)
    assert row.status is JobStatus.FAILED
    assert row.last_error is not None
    assert "StopIteration" in row.last_error


async def test_a_synchronous_job_that_raises_rolls_back(dsn: str, notes: None, connection: Plain) -> None:
    @job(retry=Never())
    def blocking(*, db_session: Session) -> None:
        db_session.execute(text("INSERT INTO note VALUES (1)"))
        raise LookupError("in the thread")

    own = SQLAlchemySyncConfig(connection_string=plus(dsn, "psycopg"), metadata=Base.metadata)
    row = await run(dsn, blocking, own)
    assert (row.status, row.last_error) == (JobStatus.FAILED, "LookupError: in the thread")
    assert await numbers(connection) == []


async def test_a_thread_that_outlives_its_attempt_commits_nothing_with_the_session(
    dsn: str, notes: None, connection: Plain
) -> None:
    go_on, done = threading.Event(), threading.Event()
    refused: list[bool] = []

    @job(retry=Never(), timeout=0.1)
    def too_long(*, db_session: Session) -> None:
        try:
            db_session.execute(text("INSERT INTO note VALUES (1)"))
            go_on.wait(10)
            with pytest.raises(InvalidRequestError):
                db_session.execute(text("INSERT INTO note VALUES (2)"))
            refused.append(True)
        finally:
            done.set()

    own = SQLAlchemySyncConfig(connection_string=plus(dsn, "psycopg"), metadata=Base.metadata)
    async with application([too_long], own) as client:
        row = await ended(client, await client.enqueue(too_long()))
        go_on.set()
        await asyncio.to_thread(done.wait, 10)
    assert refused == [True]
    assert row.status is JobStatus.FAILED
    assert "timeout" in (row.last_error or "")
    assert await numbers(connection) == []


async def test_a_task_that_outlives_its_job_has_no_session_any_more(dsn: str, notes: None, connection: Plain) -> None:
    tasks: list[asyncio.Task[None]] = []
    go_on = asyncio.Event()

    @job(retry=Never())
    async def forgetful(*, db_session: AsyncSession) -> None:
        async def later() -> None:
            await go_on.wait()
            await db_session.execute(text("INSERT INTO note VALUES (1)"))

        tasks.append(asyncio.create_task(later()))

    async with application([forgetful], config(dsn)) as client:
        assert (await ended(client, await client.enqueue(forgetful()))).status is JobStatus.COMPLETED
        go_on.set()
        with pytest.raises(InvalidRequestError):
            await tasks[0]


async def test_a_session_that_reads_elsewhere_finishes_the_job_where_it_writes(
    dsn: str, empty_dsn: str, notes: None, connection: Plain
) -> None:
    primary, replica = create_async_engine(plus(dsn)), create_async_engine(plus(empty_dsn))

    class Routing(Session):
        def get_bind(self, mapper: Any = None, *, clause: Any = None, **_: Any) -> Engine:
            return (primary if self._flushing or isinstance(clause, UpdateBase) else replica).sync_engine

    @job(retry=Never())
    async def read_and_write(*, db_session: AsyncSession, jobs: Jobs) -> None:
        assert await db_session.scalar(text("SELECT to_regclass('note')")) is None, "not the replica"
        db_session.add(Note(number=1))
        await jobs.enqueue_with(db_session, write(delay=60))

    own = config(dsn, session_maker=lambda: AsyncSession(sync_session_class=Routing))
    row = await run(dsn, read_and_write, own, dsn_of_jobs=dsn)
    for engine in (primary, replica):
        await engine.dispose()

    assert row.status is JobStatus.COMPLETED, row.last_error
    note, finished = await written_by(connection, row.id)
    assert note == finished


# Where an engine leads to.


async def connected(own: SQLAlchemyAsyncConfig | SQLAlchemySyncConfig) -> str:
    connection = await database_of(own).connect()
    try:
        name: str = await connection.fetchval("SELECT current_database()")
        return name
    finally:
        await connection.close()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_our_own_connections_go_where_the_engine_goes(driver: str, dsn: str, connection: Plain) -> None:
    name = await connection.fetchval("SELECT current_database()")
    own = SQLAlchemyAsyncConfig(connection_string=plus(dsn, driver))

    assert await connected(own) == name
    assert await connected(SQLAlchemyAsyncConfig(engine_instance=own.get_engine())) == name
    assert make_url(url_of(own)).database == name


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("asyncpg", "prepared_statement_cache_size=0&prepared_statement_name_func=x"),
        ("asyncpg", "ssl=prefer"),
        ("psycopg", "connect_timeout=3&keepalives=1&sslmode=prefer&application_name=mine"),
    ],
)
async def test_options_that_are_about_the_engines_connections_do_not_disturb_ours(
    driver: str, options: str, dsn: str, connection: Plain
) -> None:
    own = SQLAlchemyAsyncConfig(connection_string=plus(dsn, driver) + ("&" if "?" in dsn else "?") + options)

    assert await connected(own) == await connection.fetchval("SELECT current_database()")


async def test_connect_args_count_as_well(dsn: str, connection: Plain) -> None:
    given = {"server_settings": {"application_name": "mine"}, "command_timeout": 5, "statement_cache_size": 0}
    own = SQLAlchemyAsyncConfig(connection_string=plus(dsn), engine_config=EngineConfig(connect_args=given))
    ours = await database_of(own).connect()
    assert await ours.fetchval("SELECT current_setting('application_name')") == "mine"
    await ours.close()


@pytest.mark.parametrize(
    ("url", "connect_args", "expected"),
    [
        ("u:p%2Fw@h:6000/db", {}, "postgresql://u:p%2Fw@h:6000/db"),
        ("u@[::1]/db", {}, "postgresql://u@[::1]/db"),
        ("u@/db?host=a:1&host=b:2", {}, "postgresql://u@/db?host=a%3A1%2Cb%3A2"),
        ("u@h:6000/db", {"host": "/run"}, "postgresql://u@/db?host=%2Frun&port=6000"),
        ("u@h/db", {"host": ["a", "b"], "port": [1, 2]}, "postgresql://u@/db?host=a%2Cb&port=1%2C2"),
        ("u@h:6000/db", {"host": "other", "user": "v", "password": "q"}, "postgresql://v:q@other:6000/db"),
    ],
)
def test_connect_args_go_before_the_url(url: str, connect_args: dict[str, Any], expected: str) -> None:
    engine_config = EngineConfig(connect_args=connect_args)
    own = SQLAlchemyAsyncConfig(connection_string=f"postgresql+asyncpg://{url}", engine_config=engine_config)

    assert database_of(own)._dsn == expected


async def test_no_password_is_ever_shown() -> None:
    own = SQLAlchemyAsyncConfig(connection_string="postgresql+asyncpg://me:se%40cret@127.0.0.1:1/none")
    database = database_of(own)
    with pytest.raises(DatabaseUnreachable, match=r"127\.0\.0\.1:1/none") as caught:
        await database.connect()
    for shown in (repr(database), str(database), str(caught.value), repr(JobsConfig(dsn="postgresql://a:se@cret@b/c"))):
        assert "cret" not in shown
    with pytest.raises(ConfigurationError) as refused:
        Litestar(plugins=[JobsPlugin(JobsConfig(dsn="me:secret@host/name", jobs=[]))])
    assert "secret" not in str(refused.value)


def test_a_configuration_that_leads_nowhere_is_an_error_with_the_remedy() -> None:
    with pytest.raises(ConfigurationError, match=r"JobsConfig\(dsn=\.\.\.\)"):
        url_of(SQLAlchemyAsyncConfig(session_config=AsyncSessionConfig(), engine_instance=None))
