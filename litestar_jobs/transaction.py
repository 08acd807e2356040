"""``enqueue_with``: a statement on somebody else's connection, inside the transaction that is open there.

asyncpg is used as it is; psycopg is recognised without importing it; SQLAlchemy has a file of its own.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from litestar_jobs.alchemy import OUTSIDE, Committed, execute_in_session, is_sqlalchemy, numbered_as_named
from litestar_jobs.errors import ConnectionRefused
from litestar_jobs.request import NewJob
from litestar_jobs.store import Statements

__all__ = ("enqueue_in_transaction", "start_in_transaction")

Call: TypeAlias = tuple[str, Sequence[Any]]
"""A statement and its arguments."""


async def enqueue_in_transaction(connection: Any, sql: Statements, job: NewJob, committed: Committed) -> None:
    """Write the job.

    On a driver's own connection the statement notifies inside the transaction. SQLAlchemy tells when it commits, so
    there ``committed`` is called then, and the transaction does not pay for the notification.

    Raises :exc:`ConnectionRefused`.
    """
    notifying = (sql["enqueue_one"], (*job.row, sql.channel))
    await _execute(connection, (sql["enqueue_in_session"], job.row), notifying, committed)


async def start_in_transaction(
    connection: Any, sql: Statements, arguments: Sequence[Any], committed: Committed
) -> None:
    """Write a workflow, as ``start_workflow.sql`` does with these arguments, in the same way."""
    start = sql["start_workflow"]
    await _execute(connection, (start, (*arguments, None)), (start, (*arguments, sql.channel)), committed)


async def _execute(connection: Any, silent: Call, notifying: Call, committed: Committed) -> None:
    if is_sqlalchemy(connection):
        await execute_in_session(connection, *silent, committed)
    elif isinstance(connection, asyncpg.Connection | PoolConnectionProxy):
        if not connection.is_in_transaction():
            raise ConnectionRefused(
                OUTSIDE.format(
                    what="an asyncpg connection", remedy="Open one with `async with connection.transaction():`"
                )
            )
        await connection.fetch(notifying[0], *notifying[1])
    elif _is_psycopg(connection):
        await _execute_psycopg(connection, *notifying)
    else:
        raise ConnectionRefused(
            f"enqueue_with takes the connection that your own writes use: an SQLAlchemy AsyncSession, AsyncConnection, "
            f"Session or Connection, an asyncpg connection (of a pool: `async with pool.acquire()`), or a psycopg "
            f"AsyncConnection. It was given {type(connection).__module__}.{type(connection).__qualname__}."
        )


def _is_psycopg(connection: object) -> bool:
    return hasattr(connection, "pgconn") and any(
        cls.__module__.partition(".")[0] == "psycopg" for cls in type(connection).__mro__
    )


async def _execute_psycopg(connection: Any, sql: str, arguments: Sequence[Any]) -> None:
    if not hasattr(connection, "__aenter__"):
        raise ConnectionRefused(
            "enqueue_with takes psycopg's AsyncConnection, not its synchronous Connection, which would block the event "
            "loop. Use an AsyncConnection, or jobs.enqueue(...) for a transaction of its own."
        )
    if connection.autocommit and connection.info.transaction_status.name == "IDLE":
        raise ConnectionRefused(
            OUTSIDE.format(
                what="a psycopg connection in autocommit mode",
                remedy="Open one with `async with connection.transaction():`",
            )
        )
    await connection.execute(numbered_as_named(sql), {f"p{n}": value for n, value in enumerate(arguments, 1)})
