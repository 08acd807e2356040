"""SQLAlchemy and advanced-alchemy: the application's own sessions.

Statements go through ``exec_driver_sql``, never through the raw connection: SQLAlchemy's asyncpg dialect begins a
transaction lazily, with its own first statement, and what bypasses it stays after a rollback.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias, cast

from advanced_alchemy.extensions.litestar import SQLAlchemyAsyncConfig, SQLAlchemyInitPlugin, SQLAlchemySyncConfig
from litestar.concurrency import sync_to_thread
from litestar.di import Provide
from sqlalchemy import URL, Connection, event, insert, table
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from litestar_jobs.database import Database, Record, may_have_been_written
from litestar_jobs.errors import ConfigurationError, ConnectionRefused

__all__ = (
    "OUTSIDE",
    "AlchemyConfig",
    "Committed",
    "alchemy_configs",
    "database_of",
    "execute_in_session",
    "is_refusal",
    "is_sqlalchemy",
    "is_unanswered",
    "numbered_as_named",
    "open_session",
    "session_key",
    "url_of",
)

AlchemyConfig: TypeAlias = SQLAlchemyAsyncConfig | SQLAlchemySyncConfig

NUMBERED, NAMED = "$1", "%(p1)s"
DRIVERS = {"asyncpg": NUMBERED, "psycopg": NAMED, "psycopg2": NAMED}
"""How each driver writes a parameter."""

IN_URL = frozenset(
    {
        *("host", "port", "user", "password", "passfile", "service", "application_name", "options"),
        *("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword", "sslnegotiation"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version"),
        *("target_session_attrs", "krbsrvname", "gsslib"),
    }
)
"""What an engine may be told about its connections, in its URL or in ``connect_args``, and a URL can say as well."""

AS_ARGUMENTS = frozenset({"ssl", "password", "direct_tls", "server_settings", "timeout", "statement_cache_size"})
"""What only :func:`asyncpg.connect` can be told. All the rest is about SQLAlchemy's connections, not ours."""

COMMITTED = "litestar_jobs_committed"

Committed: TypeAlias = Callable[[Callable[[], bool]], None]
"""Called when a transaction commits, in whatever thread; what it is given answers whether the commit is over."""

OUTSIDE = (
    "enqueue_with was given {what} that is not in a transaction, so the job could not commit or roll back with your "
    "own writes. {remedy}, or use jobs.enqueue(...) for a transaction of its own."
)

A_WRITE = insert(table("job"))


def is_sqlalchemy(connection: object) -> bool:
    """Whether ``connection`` is one of SQLAlchemy's things."""
    return type(connection).__module__.startswith("sqlalchemy") or isinstance(
        connection, AsyncSession | Session | AsyncConnection | Connection
    )


async def execute_in_session(
    connection: Any, sql: str, arguments: Sequence[Any], committed: Committed
) -> Sequence[Record]:
    """Run a statement inside the session's or the connection's transaction, and call ``committed`` when it commits."""
    is_scoped = isinstance(connection, async_scoped_session | scoped_session)
    own = cast("object", connection() if is_scoped else connection)
    match own:
        case AsyncSession():
            return await own.run_sync(_in_session, sql, arguments, committed)
        case Session():
            return _in_session(own, sql, arguments, committed)
        case AsyncConnection():
            return await own.run_sync(_in_connection, sql, arguments, committed)
        case Connection():
            return _in_connection(own, sql, arguments, committed)
        case _:
            raise ConnectionRefused(
                f"enqueue_with was given SQLAlchemy's {type(own).__qualname__}, which is in no transaction. "
                "Give it the session or connection that your own writes use."
            )


def _in_session(session: Session, sql: str, arguments: Sequence[Any], committed: Committed) -> Sequence[Record]:
    if not (session.autobegin or session.in_transaction()):
        raise ConnectionRefused(
            OUTSIDE.format(what="a session without autobegin", remedy="Open one with `async with session.begin():`")
        )
    rows = execute(write_connection(session), sql, arguments)
    waiting: list[Committed] | None = session.info.get(COMMITTED)
    if waiting is None:
        waiting = session.info[COMMITTED] = []
        event.listen(session, "after_commit", _after_commit)
        event.listen(session, "after_rollback", _after_rollback)
    waiting.append(committed)
    return rows


def _after_commit(session: Session) -> None:
    if session.in_nested_transaction():
        return
    waiting: list[Committed] = session.info[COMMITTED]
    told, waiting[:] = waiting[:], []
    for committed in told:
        committed(lambda: True)


def _after_rollback(session: Session) -> None:
    if not session.in_nested_transaction():
        session.info[COMMITTED].clear()


def _in_connection(
    connection: Connection, sql: str, arguments: Sequence[Any], committed: Committed
) -> Sequence[Record]:
    rows = execute(connection, sql, arguments)

    def commits(connection: Connection) -> None:
        """Called before the COMMIT is sent; nothing is called after it."""
        transaction = connection.get_transaction()
        committed(lambda: transaction is None or not transaction.is_active)

    event.listen(connection, "commit", commits, once=True)
    return rows


def is_refusal(error: Exception) -> bool:
    """Whether a statement of ours failed because its connection leads to another database, not for the moment."""
    return isinstance(error, ConnectionRefused | ProgrammingError)


def is_unanswered(error: BaseException) -> bool:
    """Whether a commit that failed like this may have taken place: the connection broke before the answer."""
    return may_have_been_written(error) or (isinstance(error, DBAPIError) and error.connection_invalidated)


def write_connection(session: Session) -> Connection:
    """The connection of the session's transaction; of a session that routes reads elsewhere, the one for writes."""
    return session.connection(bind_arguments={"clause": A_WRITE})


def execute(connection: Connection, sql: str, arguments: Sequence[Any]) -> Sequence[Record]:
    """Run a statement of ours, written with ``$1``, whatever the driver; the rows that it answers.

    Raises :exc:`ConnectionRefused` if it is not PostgreSQL or every statement would commit by itself.
    """
    dialect = connection.dialect
    if dialect.name != "postgresql" or dialect.driver not in DRIVERS:
        raise ConnectionRefused(
            f"jobs live in PostgreSQL and are written through asyncpg or psycopg, but this connection is "
            f"{dialect.name}+{dialect.driver}. Use a session of a postgresql+asyncpg:// engine, or jobs.enqueue(...)."
        )
    if getattr(connection.connection.dbapi_connection, "autocommit", False):
        raise ConnectionRefused(
            "this connection has the isolation level AUTOCOMMIT, so the job could not roll back with your own writes. "
            "Use an engine or session without it, or jobs.enqueue(...) for a transaction of its own."
        )
    if DRIVERS[dialect.driver] is NUMBERED:
        result = connection.exec_driver_sql(sql, tuple(arguments))
    else:
        named = {f"p{number}": value for number, value in enumerate(arguments, 1)}
        result = connection.exec_driver_sql(numbered_as_named(sql), named)
    return result.mappings().all() if result.returns_rows else ()


@cache
def numbered_as_named(sql: str) -> str:
    """``$1`` as ``%(p1)s``, for psycopg."""
    return re.sub(r"\$(\d+)", r"%(p\1)s", sql.replace("%", "%%"))


class AsyncJobSession:
    """A job's session of an asynchronous engine."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    def in_transaction(self) -> bool:
        return self.session.in_transaction()

    async def execute(self, sql: str, arguments: Sequence[Any]) -> Sequence[Record]:
        return await self.session.run_sync(lambda session: execute(write_connection(session), sql, arguments))

    async def commit(self) -> None:
        await self.session.commit()

    async def rollback(self) -> None:
        await self.session.rollback()

    async def close(self) -> None:
        self.session.sync_session.autobegin = False  # a task that outlives its attempt begins nothing with it any more
        await self.session.close()


class SyncJobSession:
    """A job's session of a synchronous engine: what waits for the database does so in a thread."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def in_transaction(self) -> bool:
        return self.session.in_transaction()

    async def execute(self, sql: str, arguments: Sequence[Any]) -> Sequence[Record]:
        return await sync_to_thread(lambda: execute(write_connection(self.session), sql, arguments))

    async def commit(self) -> None:
        await sync_to_thread(self.session.commit)

    async def rollback(self) -> None:
        await sync_to_thread(self.session.rollback)

    async def close(self) -> None:
        self.session.autobegin = False  # nor does a thread
        await sync_to_thread(self.session.close)


def alchemy_configs(plugins: Iterable[object]) -> list[AlchemyConfig]:
    """The configurations of the SQLAlchemy plugins among these."""
    return [config for plugin in plugins if isinstance(plugin, SQLAlchemyInitPlugin) for config in plugin.config]


def open_session(config: AlchemyConfig) -> AsyncJobSession | SyncJobSession:
    """A new session, not the request's: its end is the job's."""
    session = config.create_session_maker()()
    return AsyncJobSession(session) if isinstance(session, AsyncSession) else SyncJobSession(session)


def session_key(config: AlchemyConfig, provided: Mapping[str, Provide]) -> str | None:
    """The name under which jobs get a session of this configuration; None if the application put something of its
    own in its place."""
    provide = provided.get(config.session_dependency_key)
    return config.session_dependency_key if provide and provide.dependency == config.provide_session else None


def database_of(config: AlchemyConfig) -> Database:
    """The database that the configuration's engine leads to, for connections of our own."""
    url = config.get_engine().url
    given = {**url.query, **_connect_args(config)}
    if isinstance(given.get("ssl"), str):
        given["sslmode"] = given.pop("ssl")
    query = {name: _listed(value) for name, value in given.items() if name in IN_URL and not callable(value)}
    arguments = {name: value for name, value in given.items() if name in AS_ARGUMENTS and name not in query}
    return Database(_joined(url, query).render_as_string(hide_password=False), **arguments)


def _joined(url: URL, query: dict[str, str]) -> URL:
    """The URL with this query, which goes before what the URL itself says, as it does for an engine."""
    username, password = query.pop("user", url.username), query.pop("password", url.password)
    if any(character in query.get("host", "") for character in "/,:"):
        host, port = None, None  # a socket or several hosts, which only fit into the query
        if url.port is not None:
            query.setdefault("port", str(url.port))
    else:
        host, port = query.pop("host", url.host), int(query.pop("port", url.port or 0)) or None
    return URL.create("postgresql", username, password, host, port, url.database, query)


def _listed(value: Any) -> str:
    """Several hosts are one list in a URL."""
    several = cast("Iterable[object]", value) if isinstance(value, list | tuple) else (value,)
    return ",".join(map(str, several))


def _connect_args(config: AlchemyConfig) -> Mapping[str, Any]:
    given: Any = getattr(config.engine_config, "connect_args", None)
    return (
        cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    )  # advanced-alchemy's word for nothing is a class


def url_of(config: AlchemyConfig) -> str:
    """Where the configuration's engine leads to, as a URL; the engine is not made."""
    if config.engine_instance is not None:
        return config.engine_instance.url.render_as_string(hide_password=False)
    if config.connection_string is None:
        raise ConfigurationError(
            "the application's advanced-alchemy configuration has no connection_string and no engine_instance; "
            "name the jobs' database with JobsConfig(dsn=...)"
        )
    return config.connection_string
