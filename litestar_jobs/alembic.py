"""The third door of the migrations: operations for Alembic, which autogenerate writes by itself.

``op.upgrade_litestar_jobs()`` runs the script of :mod:`litestar_jobs.migrate`. When an application has a
:class:`JobsPlugin`, ``litestar database make-migrations`` writes it wherever the tables are older than the library,
and never touches the schema otherwise.
"""

from collections.abc import Sequence
from typing import Any

from alembic.autogenerate import comparators, renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, Operations
from alembic.operations.ops import UpgradeOps
from sqlalchemy import Connection, make_url, text
from sqlalchemy.engine import URL

from litestar_jobs.migrate import LATEST, downgrade_script, upgrade_script
from litestar_jobs.store import Statements

__all__ = ("DowngradeJobs", "UpgradeJobs", "autogenerate")

DEFAULT_SCHEMA = "litestar_jobs"

_schemas: dict[str, str | None] = {}
"""The schemas of applications, and the URLs of their databases as far as they are known."""


def autogenerate(schema: str, url: str | None) -> None:
    """From now on autogenerate knows that the schema is ours, and writes upgrades for it in the database there."""
    _schemas[schema] = url


class _Move(MigrateOperation):
    """From one version of the tables to another."""

    def __init__(self, since: int, to: int, schema: str) -> None:
        self.since = since
        self.to = to
        self.schema = schema

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """For ``alembic check``."""
        return (type(self).__name__, self.schema, self.since, self.to)


@Operations.register_operation("upgrade_litestar_jobs")
class UpgradeJobs(_Move):
    """Bring the tables up to a version."""

    @classmethod
    def upgrade_litestar_jobs(
        cls, operations: Operations, *, since: int = 0, to: int = LATEST, schema: str = DEFAULT_SCHEMA
    ) -> None:
        """Bring the tables from version ``since`` to version ``to``. What has already happened is left out."""
        operations.invoke(cls(since, to, schema))

    def reverse(self) -> "DowngradeJobs":
        """What the downgrade in the same file does."""
        return DowngradeJobs(self.to, self.since, self.schema)


@Operations.register_operation("downgrade_litestar_jobs")
class DowngradeJobs(_Move):
    """Take the tables back to a version."""

    @classmethod
    def downgrade_litestar_jobs(
        cls, operations: Operations, *, since: int = LATEST, to: int = 0, schema: str = DEFAULT_SCHEMA
    ) -> None:
        """Take the tables back from version ``since`` to version ``to``. At 0 all jobs are gone."""
        operations.invoke(cls(since, to, schema))

    def reverse(self) -> UpgradeJobs:
        """What undoes it."""
        return UpgradeJobs(self.to, self.since, self.schema)


@Operations.implementation_for(UpgradeJobs)
def _upgrade(operations: Operations, move: UpgradeJobs) -> None:
    _run(operations, upgrade_script(move.schema, move.since, move.to))


@Operations.implementation_for(DowngradeJobs)
def _downgrade(operations: Operations, move: DowngradeJobs) -> None:
    _run(operations, downgrade_script(move.schema, move.since, move.to))


def _run(operations: Operations, script: str) -> None:
    operations.execute(text(script.replace(":", r"\:")))


@renderers.dispatch_for(UpgradeJobs)
@renderers.dispatch_for(DowngradeJobs)
def _render(context: AutogenContext, move: UpgradeJobs | DowngradeJobs) -> str:
    context.imports.add("import litestar_jobs.alembic  # noqa: F401")
    name = "upgrade_litestar_jobs" if isinstance(move, UpgradeJobs) else "downgrade_litestar_jobs"
    prefix = context.opts["alembic_module_prefix"]
    return f"{prefix}{name}(since={move.since}, to={move.to}, schema={move.schema!r})"


@comparators.dispatch_for("schema")
def _compare(context: AutogenContext, operations: UpgradeOps, schemas: set[str | None]) -> None:
    """Compare the tables' version, not the tables."""
    connection = context.connection
    schemas.difference_update(_schemas)
    # Before Alembic 1.18 the tables have been compared by now.
    operations.ops[:] = [each for each in operations.ops if getattr(each, "schema", None) not in _schemas]
    if connection is None or connection.dialect.name != "postgresql":
        return
    for schema, url in _schemas.items():
        if url is None or _place(make_url(url)) != _place(connection.engine.url):
            continue
        version = _current_version(connection, schema)
        if version < LATEST:
            operations.ops.append(UpgradeJobs(version, LATEST, schema))


def _current_version(connection: Connection, schema: str) -> int:
    if connection.scalar(text("SELECT to_regclass(:name)"), {"name": f'"{schema}".migration'}) is None:
        return 0
    sql = Statements(schema).render("SELECT max(version) FROM litestar_jobs.migration")
    return connection.scalar(text(sql)) or 0


def _place(url: URL) -> Sequence[str]:
    """Where a URL leads to, without who goes there and how."""
    host = url.host or url.query.get("host") or "localhost"
    return (str(host), str(url.port or url.query.get("port") or 5432), str(url.database or url.username))
