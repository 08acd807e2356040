"""``enqueue_with``: a statement on somebody else's connection, inside the transaction that is open there.

asyncpg is used as it is; psycopg is recognised without importing it; SQLAlchemy has a file of its own.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from litestar_jobs.alchemy import OUTSIDE, Committed, execute_in_session, is_sqlalchemy, numbered_as_named
from litestar_jobs.database import Fetch, Record
from litestar_jobs.errors import ConnectionRefused
from litestar_jobs.request import NewJob
from litestar_jobs.special import Written, write_special
from litestar_jobs.store import Statements

__all__ = ("enqueue_in_transaction", "start_in_transaction")


async def enqueue_in_transaction(connection: Any, sql: Statements, job: NewJob, committed: Committed) -> Written | None:
    """Write the job. Answers what became of a special one.

    On a driver's own connection the statement notifies inside the transaction. SQLAlchemy tells when it commits, so
    there ``committed`` is called then, and the transaction does not pay for the notification.

    Raises :exc:`ConnectionRefused`.
    """
    is_told = is_sqlalchemy(connection)
    run = _way(connection, committed)
    if job.request.is_plain:
        if is_told:
            await run(sql["enqueue_in_session"], *job.row)
        else:
            await run(sql["enqueue_one"], *job.row, sql.channel)
        return None
    became = await write_special(run, sql, [job], None if is_told else sql.channel)
    return became[job.id]


async def _execute_sqlalchemy(connection: Any, committed: Committed, sql: str, *arguments: Any) -> Sequence[Record]:
    return await execute_in_session(connection, sql, arguments, committed)


async def start_in_transaction(
    connection: Any, sql: Statements, arguments: Sequence[Any], committed: Committed
) -> None:
    """Write a workflow, as ``start_workflow.sql`` does with these arguments, in the same way."""
    run = _way(connection, committed)
    await run(sql["start_workflow"], *arguments, None if is_sqlalchemy(connection) else sql.channel)


def _way(connection: Any, committed: Committed) -> Fetch:
    """How to run statements there."""
    if is_sqlalchemy(connection):
        return partial(_execute_sqlalchemy, connection, committed)
    if isinstance(connection, asyncpg.Connection | PoolConnectionProxy):
        if not connection.is_in_transaction():
            raise ConnectionRefused(
                OUTSIDE.format(
                    what="an asyncpg connection", remedy="Open one with `async with connection.transaction():`"
                )
            )
        fetch: Fetch = connection.fetch
        return fetch
    if _is_psycopg(connection):
        return partial(_execute_psycopg, connection)
    raise ConnectionRefused(
        f"enqueue_with takes the connection that your own writes use: an SQLAlchemy AsyncSession, AsyncConnection, "
        f"Session or Connection, an asyncpg connection (of a pool: `async with pool.acquire()`), or a psycopg "
        f"AsyncConnection. It was given {type(connection).__module__}.{type(connection).__qualname__}."
    )


def _is_psycopg(connection: object) -> bool:
    return hasattr(connection, "pgconn") and any(
        cls.__module__.partition(".")[0] == "psycopg" for cls in type(connection).__mro__
    )


async def _execute_psycopg(connection: Any, sql: str, *arguments: Any) -> Sequence[Record]:
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
    cursor = connection.cursor(row_factory=_named)  # the connection's own may make anything
    await cursor.execute(numbered_as_named(sql), {f"p{n}": value for n, value in enumerate(arguments, 1)})
    rows: Sequence[Record] = await cursor.fetchall()
    return rows


def _named(cursor: Any) -> Callable[[Sequence[Any]], Record]:
    names = [column.name for column in cursor.description or ()]
    return lambda values: dict(zip(names, values, strict=True))
