"""Where the jobs live: connections to PostgreSQL through asyncpg, and nothing about jobs.

Hot statements have a connection of their own each (:class:`Link`): a pool resets a connection whenever it is given
back, which is a round trip for every statement.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Literal, Protocol, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg

from litestar_jobs.errors import ConfigurationError, DatabaseUnreachable

__all__ = (
    "BAD_ROW",
    "COMMAND_TIMEOUT",
    "DEADLOCK",
    "HINDERED",
    "MISSING_SCHEMA",
    "NOT_ALLOWED",
    "UNAVAILABLE",
    "WAITED",
    "Database",
    "Fetch",
    "Link",
    "Record",
    "may_have_been_written",
)

UNAVAILABLE: tuple[type[BaseException], ...] = (
    DatabaseUnreachable,
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
    asyncpg.exceptions.LockNotAvailableError,
)
"""What a driver raises when the database cannot be talked to at the moment, and may be again later."""

NO_CONNECTION: tuple[type[BaseException], ...] = (*UNAVAILABLE, asyncpg.PostgresError, OverflowError)
"""What opening a connection can fail with: there, an answer of the server's is a refusal too. A port may be too high."""

BAD_ROW: tuple[type[BaseException], ...] = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.exceptions.ProgramLimitExceededError,
)
"""What one row of a batch can do to the whole batch."""

WAITED: tuple[type[BaseException], ...] = (asyncpg.exceptions.LockNotAvailableError,)
"""What the database answers to who waited too long for another transaction."""

HINDERED: tuple[type[BaseException], ...] = (asyncpg.ObjectNotInPrerequisiteStateError,)
"""What the database answers when something stands in the way of a change."""

MISSING_SCHEMA: tuple[type[BaseException], ...] = (
    asyncpg.UndefinedTableError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.UndefinedFunctionError,
)

DEADLOCK: tuple[type[BaseException], ...] = (asyncpg.DeadlockDetectedError,)
"""What one of two transactions is told that wait for each other. It can be run again."""

NOT_ALLOWED: tuple[type[BaseException], ...] = (asyncpg.InsufficientPrivilegeError,)
"""What the database answers to a role that may not do this."""

ERROR = "ERROR"
"""The severity of what ends a statement; ``FATAL`` and ``PANIC`` end the connection."""

IS_IT_RIGHT = "Is the server running, and is the DSN right (JobsConfig.dsn, LITESTAR_JOBS_DSN)?"
CROWDED = (
    "A process with a worker has up to seven connections for jobs, besides those of its engine: raise max_connections or the "
    "limit of the role or database, run fewer processes, or put a pooler in front."
)

CONNECT_TIMEOUT = 10.0
COMMAND_TIMEOUT = 60.0
"""Seconds after which a statement is given up: long for any statement of ours, short for a connection that is dead."""

CACHE_SIZE = "statement_cache_size"

HOSTS = re.compile(r"((\[[^\[\]]*\]|[^\[\]:,]*)(:\d*)?)(,(\[[^\[\]]*\]|[^\[\]:,]*)(:\d*)?)*")
"""One or more hosts with or without a port. A password that is not encoded looks like a host with a strange port."""

NAME = {"application_name": "litestar_jobs"}
SETTINGS = {
    **NAME,
    # The tables turn over wholly, so a plan made while one was empty must not read it whole for ever after.
    "enable_seqscan": "off",
    # Compiling a plan takes longer than any statement here.
    "jit": "off",
}
PLANNED_ONCE = {"plan_cache_mode": "force_generic_plan"}
"""For statements whose plan does not depend on their arguments. Left to itself, the server plans some of them anew each
time, which takes longer than to run them."""


def may_have_been_written(error: BaseException) -> bool:
    """Whether a statement that failed like this may be committed all the same: nobody heard the server's answer."""
    if isinstance(error, asyncpg.PostgresError) and getattr(error, "severity_en", None) == ERROR:
        return False
    return isinstance(error, (*UNAVAILABLE, asyncpg.InternalClientError))


class Record(Protocol):
    """A row, read by name."""

    def __getitem__(self, key: str, /) -> Any: ...


Fetch: TypeAlias = Callable[..., Awaitable[Sequence[Record]]]


class Database:
    """Knows how to connect. ``repr`` and errors show where to, never the password."""

    def __init__(self, dsn: str, **connect: Any) -> None:
        """``connect`` are further arguments for :func:`asyncpg.connect`, such as ``ssl``."""
        scheme, separator, _ = dsn.partition("://")
        if not separator or scheme.partition("+")[0] not in {"postgresql", "postgres"}:
            raise ConfigurationError(
                f"litestar-jobs needs PostgreSQL, but the database is {scheme if separator else 'not a URL'}. "
                "Give a DSN that begins with postgresql://, for example JobsConfig(dsn='postgresql://user@host/name')."
            )
        plain = "postgresql" + dsn[len(scheme) :]
        if not _is_readable(plain):
            raise ConfigurationError(
                "the DSN of the jobs' database cannot be read: what stands where the host should be is none. Special "
                "characters in a password, such as / # ? @, must be percent-encoded: urllib.parse.quote(password, '')."
            )
        self._dsn, said = _without_cache_size(plain)
        self._connect = connect | said

    def __repr__(self) -> str:
        return f"<Database {self.address}>"

    @property
    def address(self) -> str:
        """Host, port and database, for people."""
        parts = urlsplit(self._dsn)
        name = parts.path.lstrip("/")
        return f"{parts.netloc.rpartition('@')[2] or 'local socket'}/{name}"

    async def connect(self, settings: Mapping[str, str] = SETTINGS) -> "asyncpg.Connection[Any]":
        """Open a connection; :exc:`DatabaseUnreachable` if that fails."""
        try:
            try:
                return await self._open(settings)
            except asyncpg.exceptions.ProtocolViolationError:
                # A pooler such as PgBouncer refuses settings that it does not know. Behind it every transaction may
                # have another connection, on which a statement that was prepared before is unknown.
                return await self._open(NAME, statement_cache_size=0)
        except NO_CONNECTION as error:
            raise self._unreachable(error) from error

    async def _open(self, settings: Mapping[str, str], **defaults: Any) -> "asyncpg.Connection[Any]":
        defaults |= {"timeout": CONNECT_TIMEOUT, "command_timeout": COMMAND_TIMEOUT}
        arguments: dict[str, Any] = defaults | self._connect
        arguments["server_settings"] = dict(settings) | dict(arguments.get("server_settings") or {})
        connection: asyncpg.Connection[Any] = await asyncpg.connect(self._dsn, **arguments)
        return connection

    def _unreachable(self, error: BaseException) -> DatabaseUnreachable:
        reason = str(error) or type(error).__name__
        remedy = CROWDED if isinstance(error, asyncpg.TooManyConnectionsError) else IS_IT_RIGHT
        return DatabaseUnreachable(f"PostgreSQL cannot be reached at {self.address}: {reason}. {remedy}")

    @contextmanager
    def writable(self, connection: "asyncpg.Connection[Any]") -> Generator[None]:
        """A connection that turns out to be read-only is closed: what it led to may be a standby by now, and another one
        the primary. Whatever had to be written gets :exc:`DatabaseUnreachable`."""
        try:
            yield
        except asyncpg.exceptions.ReadOnlySQLTransactionError as error:
            connection.terminate()
            raise DatabaseUnreachable(
                f"PostgreSQL at {self.address} takes no writes: {error}. It is a standby, or was set to "
                "default_transaction_read_only. With all hosts in the DSN, target_session_attrs=read-write finds the primary."
            ) from error


def _is_readable(dsn: str) -> bool:
    """Whether nothing of a password that is not encoded stands where the host, the port or the name should be."""
    try:
        parts = urlsplit(dsn)
    except ValueError:  # its text quotes what it could not read
        return False
    behind = parts.path + parts.fragment + parts.query.partition("=")[0]
    return HOSTS.fullmatch(parts.netloc.rpartition("@")[2]) is not None and "@" not in behind


def _without_cache_size(dsn: str) -> tuple[str, dict[str, int]]:
    """The DSN, and what it says of ``statement_cache_size``: asyncpg would take that for a setting of the server's."""
    parts = urlsplit(dsn)
    query = parse_qsl(parts.query, keep_blank_values=True)
    others = [(name, value) for name, value in query if name != CACHE_SIZE]
    if others == query:
        return dsn, {}
    size = dict(query)[CACHE_SIZE]
    if not (size.isascii() and size.isdigit()):
        raise ConfigurationError(f"{CACHE_SIZE} in the DSN of the jobs' database must be a number, not {size!r}")
    return urlunsplit(parts._replace(query=urlencode(others))), {CACHE_SIZE: int(size)}


class Link:
    """One connection for one purpose, opened when first needed and opened anew after it broke.

    A statement whose connection breaks fails; the next statement finds a new connection. Statements wait for each
    other, in order.
    """

    def __init__(
        self,
        database: Database,
        *,
        timeout: float = COMMAND_TIMEOUT,
        on_open: Callable[["asyncpg.Connection[Any]"], Awaitable[None]] | None = None,
        planned_once: bool = False,
    ) -> None:
        """A connection that does not answer :meth:`fetch` for ``timeout`` seconds is taken for dead, and replaced.
        ``planned_once``: no plan of its statements depends on arguments."""
        self.timeout = timeout
        self._database = database
        self._settings = SETTINGS | (PLANNED_ONCE if planned_once else {})
        self._on_open = on_open
        self._connection: asyncpg.Connection[Any] | None = None
        self._lock = asyncio.Lock()

    async def fetch(self, sql: str, *arguments: Any) -> Sequence[Record]:
        """The rows that the statement answers."""
        async with self._lock:
            connection = await self._opened()
            try:
                with self._database.writable(connection):
                    return await connection.fetch(sql, *arguments, timeout=self.timeout)
            except TimeoutError:
                # Nobody answered: the other side may be gone without a word.
                connection.terminate()
                raise

    async def run(self, script: str) -> None:
        """Run any number of statements without parameters, in one transaction."""
        async with self.transaction() as connection:
            await connection.execute(script)

    @asynccontextmanager
    async def transaction(
        self, isolation: Literal["repeatable_read"] | None = None
    ) -> "AsyncGenerator[asyncpg.Connection[Any]]":
        """The connection, in a transaction that commits at the end and rolls back after an error."""
        async with self._lock:
            connection = await self._opened()
            transaction = connection.transaction(isolation=isolation)
            await transaction.start()
            try:
                with self._database.writable(connection):
                    yield connection
            except BaseException as error:
                if isinstance(error, TimeoutError):  # nobody answered, nor would a rollback be
                    connection.terminate()
                with suppress(
                    *UNAVAILABLE, asyncpg.InternalClientError
                ):  # a connection that is gone rolls back by itself
                    await transaction.rollback()
                raise
            await transaction.commit()

    def drop(self) -> None:
        """Give the connection up without a word: whatever waits for it fails, the next statement finds a new one."""
        if self._connection is not None:
            self._connection.terminate()

    async def close(self) -> None:
        """Close the connection if there is one; the link may be used again."""
        async with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None and not connection.is_closed():
                with suppress(*UNAVAILABLE):
                    await connection.close(timeout=CONNECT_TIMEOUT)

    async def _opened(self) -> "asyncpg.Connection[Any]":
        if self._connection is None or self._connection.is_closed():
            connection = await self._database.connect(self._settings)
            if self._on_open is not None:
                try:
                    await self._on_open(connection)
                except BaseException:
                    connection.terminate()
                    raise
            self._connection = connection
        return self._connection
