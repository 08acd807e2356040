"""The tables arrive: numbered SQL files, applied in order, the version kept in the database.

Each door (the command line, ``migrate="auto"``, Alembic) applies the same files.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from litestar_jobs.database import MISSING_SCHEMA, Link
from litestar_jobs.errors import SchemaError
from litestar_jobs.store import Statements

__all__ = ("LATEST", "check", "current_version", "downgrade", "downgrade_script", "statements", "upgrade", "upgrade_script")

LATEST = 1
"""The version of the tables that this library needs."""

LOCK = "SELECT pg_advisory_xact_lock(hashtext('litestar_jobs'), hashtext('{schema}'));\n"
BEGIN_SCHEMA = """
CREATE SCHEMA IF NOT EXISTS litestar_jobs;
CREATE TABLE IF NOT EXISTS litestar_jobs.migration (
    version    integer     NOT NULL PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);
"""
RECORD = "INSERT INTO litestar_jobs.migration (version) VALUES ({version}) ON CONFLICT DO NOTHING;\n"
FORGET = "DELETE FROM litestar_jobs.migration WHERE version = {version};\n"
END_SCHEMA = "DROP TABLE IF EXISTS litestar_jobs.migration;\nDROP SCHEMA IF EXISTS litestar_jobs;\n"


@cache
def _file(name: str) -> str:
    return files("litestar_jobs").joinpath("sql", "schema", name).read_text(encoding="utf-8")


@cache
def _names() -> dict[int, str]:
    found = (path.name for path in files("litestar_jobs").joinpath("sql", "schema").iterdir())
    return {int(name[:3]): name[:-4] for name in found if name.endswith(".sql") and not name.endswith(".down.sql")}


def upgrade_script(schema: str, since: int = 0, to: int = LATEST) -> str:
    """SQL that takes the schema from version ``since`` to ``to``; harmless where it has already run."""
    steps = (_file(f"{_names()[version]}.sql") + RECORD.format(version=version) for version in range(since + 1, to + 1))
    return _for(schema, BEGIN_SCHEMA + "\n".join(steps))


def downgrade_script(schema: str, since: int = LATEST, to: int = 0) -> str:
    """SQL that takes the schema back from version ``since`` to ``to``. At 0 all jobs are gone."""
    steps = (
        _file(f"{_names()[version]}.down.sql") + FORGET.format(version=version) for version in range(since, to, -1)
    )
    return _for(schema, "\n".join(steps) + ("" if to else END_SCHEMA))


def statements(script: str) -> Iterator[str]:
    """The statements of a script of ours, for drivers that take one at a time."""
    for statement in re.split(r";\s*(?:\n|\Z)", re.sub(r"--[^\n]*", "", script)):
        if statement.strip():
            yield statement.strip()


async def current_version(link: Link, schema: str) -> int:
    """The version of the tables in the database; 0 if there are none."""
    try:
        rows = await link.fetch(f"SELECT max(version) AS version FROM {Statements(schema).schema}.migration")  # noqa: S608
    except MISSING_SCHEMA:
        return 0
    return rows[0]["version"] or 0


async def upgrade(link: Link, schema: str, to: int = LATEST) -> tuple[int, int]:
    """Bring the tables to version ``to``, in one transaction that only one process enters at a time.

    Answers the versions before and after. Tables that are newer stay as they are.
    """
    before = await current_version(link, schema)
    if before < to:
        await link.run(LOCK.format(schema=schema) + upgrade_script(schema, before, to))
    return before, max(before, to)


async def downgrade(link: Link, schema: str, to: int) -> tuple[int, int]:
    """Take the tables back to version ``to``. Answers the versions before and after."""
    before = await current_version(link, schema)
    if to < before:
        await link.run(LOCK.format(schema=schema) + downgrade_script(schema, before, to))
    return before, min(before, to)


async def check(link: Link, schema: str) -> None:
    """Raise :exc:`SchemaError` unless the tables have the version that this library needs."""
    found = await current_version(link, schema)
    if found == LATEST:
        return
    if found > LATEST:
        raise SchemaError(
            f"the tables in schema {schema!r} have version {found}, but this litestar-jobs only knows {LATEST}. "
            "Upgrade the litestar-jobs package here, or run `litestar jobs downgrade` where the newer one is.",
            found=found,
            needed=LATEST,
        )
    state = f"have version {found}, but version {LATEST} is needed" if found else "do not exist"
    raise SchemaError(
        f"the tables of litestar-jobs in schema {schema!r} {state}. Run `litestar jobs upgrade`, "
        "or let the application do it with JobsConfig(migrate='auto').",
        found=found,
        needed=LATEST,
    )


def _for(schema: str, script: str) -> str:
    return re.sub(r"\blitestar_jobs\b(?=[.;])", Statements(schema).schema, script)
