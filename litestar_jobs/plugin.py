"""The plugin: it puts the parts into an application, and starts and stops them at the right moments.

Litestar enters lifespans in order and leaves them in reverse, then runs shutdown hooks. The worker has to start after
everything of the user's and to stop before any engine closes. So a second plugin appends itself behind all others,
twice: once to be behind those that were given, and once behind those that these appended.
"""

import logging
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

from litestar import Litestar
from litestar.config.app import AppConfig
from litestar.di import NamedDependency, Provide
from litestar.handlers import BaseRouteHandler
from litestar.plugins import InitPlugin, InitPluginProtocol, ReceiveRoutePlugin
from litestar.routes import ASGIRoute, BaseRoute, HTTPRoute, WebSocketRoute

from litestar_jobs import migrate
from litestar_jobs.alchemy import AlchemyConfig, alchemy_configs, open_session, session_key
from litestar_jobs.alembic import autogenerate
from litestar_jobs.cli import jobs_group
from litestar_jobs.cli.connect import OperatedPlugin
from litestar_jobs.config import JobsConfig, WorkerConfig
from litestar_jobs.context import JobContext
from litestar_jobs.database import MISSING_SCHEMA, NOT_ALLOWED, Database, Link
from litestar_jobs.define import Job
from litestar_jobs.enqueue import JobsClient
from litestar_jobs.errors import ConfigurationError, StartupError
from litestar_jobs.hooks import log_events
from litestar_jobs.inject import Plan, Planner, SessionFactory, as_provide
from litestar_jobs.logs import install_record_factory
from litestar_jobs.middleware import TraceMiddleware
from litestar_jobs.payload import READ_FACTOR
from litestar_jobs.select import select_jobs
from litestar_jobs.source import DatabaseSource, find_database, listening_at
from litestar_jobs.store import Statements
from litestar_jobs.telemetry import NoTracing, Tracing
from litestar_jobs.trace import current_carrier
from litestar_jobs.worker.run import Worker

__all__ = ("Jobs", "JobsPlugin")

logger = logging.getLogger("litestar_jobs")

Jobs = NamedDependency[JobsClient]
"""What a handler or a job asks for: ``jobs: Jobs``."""

WORKER_VARIABLE = "LITESTAR_JOBS_WORKER"
NO = {"0", "false", "no", "off"}
YES = {"", "1", "true", "yes", "on"}


def _tracing() -> Tracing:
    # Other packages share the name opentelemetry, and directories of it stay behind: only its API counts.
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.trace") is None:
        return NoTracing(current_carrier.get)
    from litestar_jobs.otel import OpenTelemetryTracing  # noqa: PLC0415 - an optional dependency

    return OpenTelemetryTracing()


class JobsPlugin(InitPlugin, OperatedPlugin, ReceiveRoutePlugin):
    """Background jobs for an application: ``Litestar(plugins=[JobsPlugin(JobsConfig(...))])``.

    The order among the plugins does not matter.
    """

    def __init__(self, config: JobsConfig | None = None) -> None:
        self.config = config or JobsConfig()
        self.worker_config = self._worker_config()
        self.statements = Statements(self.config.schema)
        self.worker: Worker | None = None
        """The worker of this process, while it runs."""
        self._tracing = _tracing()
        self._client = JobsClient(self.statements, self._tracing, max_payload=self.config.max_payload)
        self._source: DatabaseSource | None = None

    @property
    def client(self) -> JobsClient:
        """The client, for scripts and tests inside the lifespan of the application."""
        return self._client

    @property
    def jobs(self) -> Mapping[str, Job[Any, Any]]:
        """The jobs that the application knows, by name."""
        return self._jobs

    @property
    def source(self) -> DatabaseSource:
        """Where the database was found."""
        if self._source is None:
            raise ConfigurationError("the JobsPlugin is not part of an application: Litestar(plugins=[JobsPlugin()])")
        return self._source

    def provide_client(self) -> JobsClient:
        """The provider behind ``jobs: Jobs``."""
        return self._client

    # While the application is constructed.

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """First part: what handlers see."""
        key = self.config.dependency_key
        if key in app_config.dependencies:
            raise ConfigurationError(
                f"the application already has a dependency {key!r}. Choose another name for the jobs client, "
                f"for example JobsConfig(dependency_key='job_queue'), and ask for it with `job_queue: Jobs`."
            )
        if any(isinstance(plugin, JobsPlugin) and plugin is not self for plugin in app_config.plugins):
            raise ConfigurationError("an application has one JobsPlugin; it can serve any number of queues and workers")
        install_record_factory()
        app_config.dependencies[key] = Provide(self.provide_client, sync_to_thread=False)
        app_config.middleware.insert(0, TraceMiddleware(self.config.trace_header, self._tracing.trace_id))
        app_config.signature_namespace.update({"Jobs": Jobs, "JobsClient": JobsClient, "JobContext": JobContext})
        app_config.plugins.append(_Last(self))
        return app_config

    def complete(self, app_config: AppConfig) -> None:
        """Second part, behind all other plugins: what jobs see, and when the worker starts."""
        self._jobs = select_jobs(self.config.jobs)
        self._configs = alchemy_configs(app_config.plugins)
        self._source = find_database(self.config.dsn, self._configs)
        autogenerate(self.config.schema, self._source.url)
        given = {**app_config.dependencies, **self.config.dependencies}
        self._provided = {name: as_provide(dependency) for name, dependency in given.items()}
        self._plans = {} if self.config.worker is None else self._plan()
        app_config.lifespan.append(self._lifespan)  # pyright: ignore[reportUnknownMemberType] - Litestar's own
        app_config.on_startup.append(self._start_worker)

    def receive_route(self, route: BaseRoute) -> None:
        """Refuse handlers that have a parameter of the client's name for something else."""
        for handler in _handlers(route):
            parameter = handler.parsed_fn_signature.parameters.get(self.config.dependency_key)
            if parameter is None or _is_client(parameter.annotation):
                continue
            provide = handler.resolve_dependencies().get(self.config.dependency_key)
            if provide is None or provide.dependency != self.provide_client:
                continue
            raise ConfigurationError(
                f"handler {handler.handler_name} has a parameter {self.config.dependency_key!r} of its own, which "
                f"would get the jobs client. Rename it, ask for the client with "
                f"`{self.config.dependency_key}: Jobs`, or name the client otherwise: JobsConfig(dependency_key=...)."
            )

    def on_cli_init(self, cli: Any) -> None:
        """Add ``litestar jobs``."""
        cli.add_command(jobs_group)

    # While it runs.

    async def open_database(self) -> Database:
        """The database; the embedded server is started if it is that."""
        return await self.source.open()

    @asynccontextmanager
    async def _lifespan(self, _app: Litestar) -> AsyncGenerator[None]:
        database = await self.open_database()
        logger.info("jobs live in %s (%s)", database.address, self.source.name)
        if self.config.migrate != "never":
            await self._migrate(database, look_only=self.config.migrate == "check")
        await self._client.start(database)
        self._database = database
        try:
            yield
        finally:
            try:
                if self.worker is not None:
                    await self.worker.stop()
            finally:
                self.worker = None
                await self._client.stop()

    async def _migrate(self, database: Database, *, look_only: bool) -> None:
        link = Link(database)
        try:
            if not look_only:
                before, after = await migrate.upgrade(link, self.config.schema)
                if before != after:
                    logger.info("the tables in schema %s went from version %d to %d", self.config.schema, before, after)
            await migrate.check(link, self.config.schema)
        finally:
            await link.close()

    async def _start_worker(self, app: Litestar) -> None:
        install_record_factory()  # again: somebody may have put an older one back since
        if self.worker_config is None:
            return
        worker = Worker(
            self.worker_config,
            self._database,
            self.statements,
            listens_at=listening_at(self.worker_config.listen_dsn),
            largest=READ_FACTOR * self.config.max_payload,
            jobs=self._jobs,
            plans=self._plans or self._plan(),
            constants={"state": app.state, self.config.dependency_key: self._client},
            sessions=self._sessions,
            client=self._client,
            tracing=self._tracing,
            hooks=[log_events, *self.config.hooks],
            keep=self.config.retention.limits,
        )
        try:
            await worker.start()
        except MISSING_SCHEMA:
            # With migrate="never" nobody has looked yet whether the tables are those that are needed.
            await self._migrate(self._database, look_only=True)
            raise
        except NOT_ALLOWED as error:
            raise StartupError(
                f"the database role of the application may enqueue, perhaps, but not work: {error}. Grant it what a worker "
                "needs (the documentation has the statements, under Security), or run no worker here: "
                "JobsConfig(worker=None), LITESTAR_JOBS_WORKER=0."
            ) from error
        self.worker = worker

    def _plan(self) -> dict[str, Plan]:
        planner = Planner(self._provided, self._sessions, ("state", self.config.dependency_key))
        return {name: planner.plan(job) for name, job in self._jobs.items()}

    @property
    def _sessions(self) -> dict[str, SessionFactory]:
        return {
            key: _session_factory(config)
            for config in self._configs
            if (key := session_key(config, self._provided)) is not None
        }

    def _worker_config(self) -> WorkerConfig | None:
        wanted = os.environ.get(WORKER_VARIABLE, "").lower()
        if wanted not in NO | YES:
            raise ConfigurationError(f"{WORKER_VARIABLE} must be 1 or 0, not {wanted!r}")
        return None if wanted in NO else self.config.worker


class _Last(InitPluginProtocol):
    """Stands behind all other plugins; see the top of this file."""

    def __init__(self, plugin: JobsPlugin) -> None:
        self._plugin = plugin
        self._moved = False

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        if self._moved:
            self._plugin.complete(app_config)
        else:
            self._moved = True
            app_config.plugins.append(self)
        return app_config


def _session_factory(config: AlchemyConfig) -> SessionFactory:
    return lambda: open_session(config)


def _handlers(route: BaseRoute) -> list[BaseRouteHandler]:
    match route:
        case HTTPRoute():
            return list(route.route_handlers)
        case WebSocketRoute() | ASGIRoute():
            return [route.route_handler]
        case _:
            return []


def _is_client(annotation: Any) -> bool:
    return annotation is Any or (isinstance(annotation, type) and issubclass(annotation, JobsClient))
