"""The tables arrive: numbered SQL files, applied in order, the version kept in the database.

Each door (the command line, ``migrate="auto"``, Alembic) runs the same script. A script is one statement, so it happens
wholly or not at all whoever runs it; it waits for others of its kind, and leaves out what has already happened.
"""

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files

from litestar_jobs.database import DEADLOCK, MISSING_SCHEMA, NOT_ALLOWED, Link
from litestar_jobs.errors import SchemaError
from litestar_jobs.store import Statements

__all__ = ("LATEST", "check", "current_version", "downgrade", "downgrade_script", "upgrade", "upgrade_script")

UPGRADE = """\
DO $upgrade$ BEGIN
PERFORM pg_advisory_xact_lock(hashtext('litestar_jobs'), hashtext('{name}'));
IF to_regnamespace('"{name}"') IS NULL THEN
    CREATE SCHEMA "{name}";
END IF;
CREATE TABLE IF NOT EXISTS litestar_jobs.migration (
    version    integer     NOT NULL PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);
{steps}
END $upgrade$;
"""
UP = """
IF NOT EXISTS (SELECT FROM litestar_jobs.migration WHERE version = {version}) THEN
{step}
INSERT INTO litestar_jobs.migration (version) VALUES ({version});
END IF;
"""
DOWNGRADE = """\
DO $downgrade$ BEGIN
PERFORM pg_advisory_xact_lock(hashtext('litestar_jobs'), hashtext('{name}'));
IF to_regclass('"{name}".migration') IS NOT NULL THEN
{steps}
END IF;
END $downgrade$;
"""
DOWN = """
IF EXISTS (SELECT FROM litestar_jobs.migration WHERE version = {version}) THEN
{step}
DELETE FROM litestar_jobs.migration WHERE version = {version};
END IF;
"""
LEAVE = """
IF NOT EXISTS (SELECT FROM litestar_jobs.migration) THEN
    DROP TABLE litestar_jobs.migration;
    BEGIN
        DROP SCHEMA "{name}";
    EXCEPTION WHEN dependent_objects_still_exist THEN
        RAISE NOTICE 'schema {name} stays, it holds something else';
    END;
END IF;
"""

TRIES = 10
"""Of a migration that waits for workers which wait for it; each takes PostgreSQL's deadlock_timeout, a second."""


@cache
def _steps() -> dict[int, tuple[str, str]]:
    """By version: the SQL that brings it about, and the SQL that undoes it."""
    directory = files("litestar_jobs").joinpath("sql", "schema")
    names = sorted(
        path.name.removesuffix(".down.sql") for path in directory.iterdir() if path.name.endswith(".down.sql")
    )
    return {
        int(name[:3]): (
            directory.joinpath(f"{name}.sql").read_text(encoding="utf-8"),
            directory.joinpath(f"{name}.down.sql").read_text(encoding="utf-8"),
        )
        for name in names
    }


LATEST = max(_steps())
"""The version of the tables that this library needs."""


def upgrade_script(schema: str, since: int = 0, to: int = LATEST) -> str:
    """SQL that takes the schema from version ``since`` to ``to``; harmless where it has already run."""
    steps = (UP.format(version=version, step=_steps()[version][0]) for version in range(since + 1, to + 1))
    return _script(UPGRADE, schema, "".join(steps))


def downgrade_script(schema: str, since: int = LATEST, to: int = 0) -> str:
    """SQL that takes the schema back from version ``since`` to ``to``. At 0 all jobs are gone."""
    steps = (DOWN.format(version=version, step=_steps()[version][1]) for version in range(since, to, -1))
    return _script(DOWNGRADE, schema, "".join(steps) + ("" if to else LEAVE.format(name=schema)))


def _script(frame: str, schema: str, steps: str) -> str:
    return Statements(schema).render(frame.format(name=schema, steps=steps))


async def current_version(link: Link, schema: str) -> int:
    """The version of the tables in the database; 0 if there are none."""
    sql = Statements(schema).render("SELECT max(version) AS version FROM litestar_jobs.migration")
    try:
        with _permitted(schema, 0):
            rows = await link.fetch(sql)
    except MISSING_SCHEMA:
        return 0
    return rows[0]["version"] or 0


async def upgrade(link: Link, schema: str, to: int = LATEST) -> tuple[int, int]:
    """Bring the tables to version ``to``, in one transaction that only one process enters at a time.

    Answers the versions before and after. Tables that are newer stay as they are.
    """
    before = await current_version(link, schema)
    if before < to:
        with _permitted(schema, before):
            await _run(link, upgrade_script(schema, before, to))
    return before, max(before, to)


async def downgrade(link: Link, schema: str, to: int) -> tuple[int, int]:
    """Take the tables back to version ``to``. Answers the versions before and after."""
    before = await current_version(link, schema)
    if before > LATEST:
        raise _newer(schema, before)
    if to < before:
        with _permitted(schema, before):
            await _run(link, downgrade_script(schema, before, to))
    return before, min(before, to)


async def _run(link: Link, script: str) -> None:
    """Run it whole. Workers go on meanwhile and take the same tables in another order, so one of the two may have to
    give way; the script is the one that costs nothing to run again."""
    for left in reversed(range(TRIES)):
        try:
            return await link.run(script)
        except DEADLOCK:
            if not left:
                raise
    return None


async def check(link: Link, schema: str) -> None:
    """Raise :exc:`SchemaError` unless the tables have the version that this library needs."""
    found = await current_version(link, schema)
    if found > LATEST:
        raise _newer(schema, found)
    if found < LATEST:
        state = f"have version {found}, but version {LATEST} is needed" if found else "do not exist"
        raise SchemaError(
            f"the tables of litestar-jobs in schema {schema!r} {state}. Run `litestar jobs upgrade`, "
            "or let the application do it with JobsConfig(migrate='auto').",
            found=found,
            needed=LATEST,
        )


def _newer(schema: str, found: int) -> SchemaError:
    return SchemaError(
        f"the tables in schema {schema!r} have version {found}, but this litestar-jobs only knows {LATEST}. "
        "Upgrade the litestar-jobs package here, or run `litestar jobs downgrade` where the newer one is.",
        found=found,
        needed=LATEST,
    )


@contextmanager
def _permitted(schema: str, found: int) -> Generator[None, None, None]:
    """A role that may not do it is told who may, and how."""
    try:
        yield
    except NOT_ALLOWED as error:
        raise SchemaError(
            f"the database role of the application may not bring the tables in schema {schema!r} up to date: {error}. "
            f"Let an administrator run `CREATE SCHEMA {schema} AUTHORIZATION the_role` once, or run "
            "`litestar jobs upgrade` with LITESTAR_JOBS_DSN naming a role that owns the schema, and grant this one "
            "the use of it.",
            found=found,
            needed=LATEST,
        ) from error
