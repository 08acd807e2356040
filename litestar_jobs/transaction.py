"""``enqueue_with``: a statement on somebody else's connection, inside the transaction that is open there.

asyncpg is used as it is; psycopg is recognised without importing it; SQLAlchemy has a file of its own.
"""

from collections.abc import Callable, Sequence
from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from litestar_jobs.alchemy import execute_in_session, is_sqlalchemy, numbered_as_named
from litestar_jobs.errors import ConnectionRefused

__all__ = ("execute_in_transaction",)

OUTSIDE = (
    "enqueue_with was given {what} that is not in a transaction, so the job could not commit or roll back with your "
    "own writes. {remedy}, or use jobs.enqueue(...) for a transaction of its own."
)


async def execute_in_transaction(
    connection: Any, sql: str, columns: Sequence[Any], channel: str, committed: Callable[[], None]
) -> None:
    """Run a statement whose last parameter is the channel to notify.

    On a driver's own connection the statement notifies inside the transaction. SQLAlchemy tells when it has
    committed, so there ``committed`` is called then, and the transaction does not pay for the notification.

    Raises :exc:`ConnectionRefused`.
    """
    if isinstance(connection, asyncpg.Connection | PoolConnectionProxy):
        if not connection.is_in_transaction():
            raise ConnectionRefused(
                OUTSIDE.format(what="an asyncpg connection", remedy="Open one with `async with connection.transaction():`")
            )
        await connection.fetch(sql, *columns, channel)
    elif type(connection).__module__.startswith("psycopg") and hasattr(connection, "pgconn"):
        await _execute_psycopg(connection, sql, [*columns, channel])
    elif is_sqlalchemy(connection):
        await execute_in_session(connection, sql, [*columns, None], committed)
    else:
        raise ConnectionRefused(
            f"enqueue_with takes an SQLAlchemy AsyncSession, AsyncConnection, Session or Connection, an asyncpg "
            f"connection or a psycopg AsyncConnection, not {type(connection).__module__}.{type(connection).__qualname__}"
        )


async def _execute_psycopg(connection: Any, sql: str, arguments: Sequence[Any]) -> None:
    if not hasattr(connection, "__aenter__"):
        raise ConnectionRefused("enqueue_with takes psycopg's AsyncConnection, not its synchronous Connection")
    if connection.autocommit and connection.info.transaction_status.name == "IDLE":
        raise ConnectionRefused(
            OUTSIDE.format(
                what="a psycopg connection in autocommit mode",
                remedy="Open one with `async with connection.transaction():`",
            )
        )
    await connection.execute(numbered_as_named(sql), {f"p{n}": value for n, value in enumerate(arguments, 1)})
