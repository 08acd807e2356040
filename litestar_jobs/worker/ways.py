"""Which ways lead to the jobs' database: where the worker listens, and the application's own sessions. All are asked whether
they see the worker's row."""

import logging
from collections.abc import Mapping
from uuid import UUID

from litestar_jobs.alchemy import is_refusal
from litestar_jobs.database import MISSING_SCHEMA, Database, Fetch
from litestar_jobs.errors import ConfigurationError
from litestar_jobs.inject import JobSession, SessionFactory
from litestar_jobs.store import Statements

__all__ = ("OwnSessions", "check_way")

logger = logging.getLogger("litestar_jobs")


async def check_way(fetch: Fetch, sql: Statements, worker_id: UUID, listens_at: Database) -> None:
    """Chores run where the worker listens, so that has to be the jobs' database too: :exc:`ConfigurationError` if not."""
    try:
        (row,) = await fetch(sql["same_database"], worker_id)
        is_same = row["same"]
    except MISSING_SCHEMA:
        is_same = False
    if not is_same:
        raise ConfigurationError(
            f"the worker would listen at {listens_at.address}, which is not the database that the jobs live in. "
            "WorkerConfig.listen_dsn (LITESTAR_JOBS_LISTEN_DSN) is another way to the same database, past a pooler."
        )


class OwnSessions:
    """Finds out which of the application's sessions lead to the jobs' database: their jobs finish in their transaction."""

    def __init__(self, sessions: Mapping[str, SessionFactory], sql: Statements, found: set[str]) -> None:
        """``found`` is where the names of those go that do."""
        self._unasked = dict(sessions)
        self._sql = sql
        self._found = found

    async def find(self, worker_id: UUID) -> None:
        """Ask those that have not answered yet. One that cannot be asked now is asked the next time."""
        for name in list(self._unasked):
            try:
                is_own = await self._is_own(self._unasked[name](), worker_id)
            except Exception as error:  # noqa: BLE001 - whatever its driver raises
                logger.warning("jobs that use %r are finished after its commit until it answers: %s", name, error)
                continue
            del self._unasked[name]
            if is_own:
                self._found.add(name)
            else:
                logger.info("jobs that use %r, of another database, are finished after its commit", name)

    async def _is_own(self, session: JobSession, worker_id: UUID) -> bool:
        try:
            (row,) = await session.execute(self._sql["same_database"], [str(worker_id)])
        except Exception as error:
            if is_refusal(error):
                return False
            raise
        finally:
            await session.rollback()
            await session.close()
        return bool(row["same"])
