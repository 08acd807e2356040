"""From a command to the plugin of its application and to the database, and from errors back to people."""

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

import click
from litestar import Litestar
from litestar.plugins import CLIPlugin

from litestar_jobs import migrate
from litestar_jobs.config import JobsConfig, WorkerConfig
from litestar_jobs.course import Course
from litestar_jobs.database import COMMAND_TIMEOUT, NOT_ALLOWED, UNAVAILABLE, Database, Link
from litestar_jobs.define import Job
from litestar_jobs.errors import JobsError
from litestar_jobs.store import Statements, Store
from litestar_jobs.worker.run import Worker

__all__ = ("OperatedPlugin", "coursed", "linked", "plugin_of", "run", "stored")

T = TypeVar("T")

FOR_PEOPLE: tuple[type[BaseException], ...] = (JobsError, *UNAVAILABLE, *NOT_ALLOWED)
"""What the reader of a terminal can do something about."""


class OperatedPlugin(CLIPlugin):
    """What commands need of the plugin, which itself is made on top of them."""

    config: JobsConfig
    worker_config: WorkerConfig | None
    statements: Statements
    worker: Worker | None

    @property
    @abstractmethod
    def jobs(self) -> Mapping[str, Job[Any, Any]]:
        """The jobs that the application knows, by name."""

    @abstractmethod
    async def open_database(self) -> Database:
        """The database; the embedded server is started if it is that."""


def plugin_of(app: Litestar) -> OperatedPlugin:
    """The plugin of the application: there is one, or its commands would not be here."""
    return next(plugin for plugin in app.plugins.cli if isinstance(plugin, OperatedPlugin))


@asynccontextmanager
async def linked(plugin: OperatedPlugin, timeout: float = COMMAND_TIMEOUT) -> AsyncGenerator[Link]:
    """A connection to the jobs' database, whatever tables there are."""
    link = Link(await plugin.open_database(), timeout=timeout)
    try:
        yield link
    finally:
        await link.close()


@asynccontextmanager
async def stored(plugin: OperatedPlugin) -> AsyncGenerator[Store]:
    """The statements, once it is clear that the tables are those that they are written for."""
    async with linked(plugin) as link:
        await migrate.check(link, plugin.config.schema)
        yield Store(link.fetch, plugin.statements)


@asynccontextmanager
async def coursed(plugin: OperatedPlugin) -> AsyncGenerator[tuple[Store, Course]]:
    """The same, with the statements about workflows: for those who end jobs that may be steps."""
    async with linked(plugin) as link:
        await migrate.check(link, plugin.config.schema)
        yield Store(link.fetch, plugin.statements), Course(link, plugin.statements)


def run(
    work: Coroutine[Any, Any, T],
    *,
    expected: tuple[type[BaseException], ...] = FOR_PEOPLE,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Run it to its end. An error that is expected comes without a traceback."""
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(work)
    except BaseException as error:
        alone = _alone(error)
        if isinstance(alone, expected):
            raise click.ClickException(str(alone) or type(alone).__name__) from error
        raise


def _alone(error: BaseException) -> BaseException:
    """Litestar's lifespan raises in a group of one what was raised in it."""
    raised: object = error
    grouped = (
        cast("BaseExceptionGroup[BaseException]", raised).exceptions if isinstance(raised, BaseExceptionGroup) else ()
    )
    return _alone(grouped[0]) if len(grouped) == 1 else error
