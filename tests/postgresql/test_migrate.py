"""The tables arrive, whoever brings them, once; and those who may not or must not are told."""

import asyncio
from collections.abc import AsyncIterator
from importlib.resources import files
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from litestar import Litestar

from conftest import database
from litestar_jobs import JobsConfig, JobsPlugin, chain, job, migrate
from litestar_jobs.database import Database, Link
from litestar_jobs.errors import ConfigurationError, SchemaError
from litestar_jobs.store import Statements, Store
from litestar_jobs.testing import drained, running, until

EVERYTHING = """
    SELECT n.nspname || '.' || c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    UNION ALL SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public')
"""


@job
async def nothing() -> None:
    """Do nothing."""


@pytest.fixture
async def empty(empty_dsn: str) -> AsyncIterator[Link]:
    """A link to a database without our tables."""
    link = Link(Database(empty_dsn))
    yield link
    await link.close()


async def everything(link: Link) -> set[str]:
    return {row["name"] for row in await link.fetch(EVERYTHING)}


async def test_a_fresh_database_goes_to_the_latest_version(empty: Link) -> None:
    assert await migrate.current_version(empty, "litestar_jobs") == 0
    assert await migrate.upgrade(empty, "litestar_jobs") == (0, migrate.LATEST)
    assert await migrate.current_version(empty, "litestar_jobs") == migrate.LATEST
    await migrate.check(empty, "litestar_jobs")


async def test_an_upgrade_of_what_is_up_to_date_changes_nothing(link: Link) -> None:
    before = await everything(link)
    assert await migrate.upgrade(link, "litestar_jobs") == (migrate.LATEST, migrate.LATEST)
    assert await everything(link) == before


async def test_the_upgrade_script_may_run_again(link: Link) -> None:
    await link.fetch("INSERT INTO litestar_jobs.job VALUES (gen_random_uuid(), now(), now(), 0, 0, 'q', 't', 'null')")
    before = await everything(link)
    await link.run(migrate.upgrade_script("litestar_jobs"))
    assert await everything(link) == before
    assert len(await link.fetch("DELETE FROM litestar_jobs.job RETURNING id")) == 1


async def test_the_upgrade_script_leaves_newer_tables_alone(link: Link) -> None:
    await link.run(
        "DROP VIEW litestar_jobs.jobs; ALTER TABLE litestar_jobs.job RENAME COLUMN payload TO body;"
        "INSERT INTO litestar_jobs.migration (version) VALUES (999)"
    )
    before = await everything(link)
    await link.run(migrate.upgrade_script("litestar_jobs"))
    assert await everything(link) == before
    await link.run("ALTER TABLE litestar_jobs.job RENAME COLUMN body TO payload; TRUNCATE litestar_jobs.migration")


async def test_many_processes_may_upgrade_at_once(empty_dsn: str) -> None:
    links = [Link(Database(empty_dsn)) for _ in range(8)]
    await asyncio.gather(*(link.fetch("SELECT 1") for link in links))
    try:
        results = await asyncio.gather(*(migrate.upgrade(link, "litestar_jobs") for link in links))
        assert {after for _, after in results} == {migrate.LATEST}
        versions = await links[0].fetch("SELECT version FROM litestar_jobs.migration ORDER BY version")
        assert [row["version"] for row in versions] == list(range(1, migrate.LATEST + 1))
    finally:
        await asyncio.gather(*(link.close() for link in links))


async def test_two_schemas_in_one_database_know_nothing_of_each_other(link: Link) -> None:
    await migrate.upgrade(link, "other_jobs")
    before = await everything(link)
    assert await migrate.downgrade(link, "litestar_jobs", 0) == (migrate.LATEST, 0)
    assert await everything(link) == {name for name in before if name.startswith("other_jobs")}
    assert await Store(link.fetch, Statements("other_jobs")).count() == []


@pytest.mark.parametrize("schema", ["order", "user", "_jobs2", "j" * 51])
async def test_an_app_works_in_any_schema_that_is_a_plain_name(empty_dsn: str, schema: str) -> None:
    plugin = JobsPlugin(JobsConfig(dsn=empty_dsn, schema=schema, jobs=[nothing]))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        await plugin.client.enqueue(nothing())
        await drained(plugin.client)
        assert [(count.status, count.jobs) for count in await plugin.client.store.count()] == [("completed", 1)]


@pytest.mark.parametrize("schema", ["", "Jobs", "my jobs", 'a"b', "a;b", "pg_jobs", "public", "2jobs", "j" * 52, "a\n"])
def test_a_schema_name_that_would_need_care_is_refused(schema: str) -> None:
    with pytest.raises(ConfigurationError, match=r"the schema must be a plain lower-case name"):
        JobsPlugin(JobsConfig(schema=schema))


async def test_a_downgrade_to_0_leaves_nothing(link: Link) -> None:
    assert await migrate.downgrade(link, "litestar_jobs", 0) == (migrate.LATEST, 0)
    assert await everything(link) == set()
    assert await migrate.current_version(link, "litestar_jobs") == 0
    await link.run(migrate.downgrade_script("litestar_jobs"))  # harmless where it has already run


async def test_a_downgrade_spares_what_others_put_into_the_schema(link: Link) -> None:
    await link.run("CREATE TABLE litestar_jobs.mine ()")
    await migrate.downgrade(link, "litestar_jobs", 0)
    assert await everything(link) == {"litestar_jobs", "litestar_jobs.mine"}
    await migrate.upgrade(link, "litestar_jobs")


async def test_a_failure_half_way_leaves_nothing(empty: Link) -> None:
    await empty.run("CREATE SCHEMA litestar_jobs; CREATE VIEW litestar_jobs.finished AS SELECT 1")
    before = await everything(empty)
    with pytest.raises(asyncpg.PostgresError):
        await migrate.upgrade(empty, "litestar_jobs")
    assert await everything(empty) == before


async def test_a_migration_that_gives_way_to_others_in_a_deadlock_begins_anew(link: Link, dsn: str) -> None:
    """Workers take the tables in another order."""
    other = await asyncpg.connect(dsn)
    await other.execute("SET deadlock_timeout = '60s'")  # so it is the migration that is told
    transaction = other.transaction()
    await transaction.start()
    await other.execute("SELECT FROM litestar_jobs.ready")
    migration = asyncio.create_task(migrate.downgrade(link, "litestar_jobs", 1))

    async def waits() -> bool:
        query = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'litestar_jobs.ready'::regclass)"
        return bool(await other.fetchval(query))

    await until(waits)
    await other.execute("SELECT FROM litestar_jobs.progress")  # which the migration has dropped, and waits for us
    assert not migration.done()
    await transaction.rollback()
    assert await migration == (migrate.LATEST, 1)
    assert await migrate.upgrade(link, "litestar_jobs") == (1, migrate.LATEST)
    await other.close()


async def test_tables_newer_than_the_library_are_left_alone_and_refused_at_start_up(dsn: str, link: Link) -> None:
    await link.fetch("INSERT INTO litestar_jobs.migration (version) VALUES (999)")
    app = Litestar(plugins=[JobsPlugin(JobsConfig(dsn=dsn, jobs=[]))], logging_config=None)
    with pytest.raises(SchemaError, match=r"have version 999, .* Upgrade the litestar-jobs package here") as caught:
        async with running(app):
            pass
    assert (caught.value.found, caught.value.needed) == (999, migrate.LATEST)
    with pytest.raises(SchemaError, match=r"run `litestar jobs downgrade` where the newer one is"):
        await migrate.downgrade(link, "litestar_jobs", 0)


async def test_with_check_missing_tables_are_an_error_at_start_up(empty_dsn: str, empty: Link) -> None:
    app = Litestar(plugins=[JobsPlugin(JobsConfig(dsn=empty_dsn, jobs=[], migrate="check"))], logging_config=None)
    with pytest.raises(SchemaError, match=r"do not exist. Run `litestar jobs upgrade`") as caught:
        async with running(app):
            pass
    assert (caught.value.found, caught.value.needed) == (0, migrate.LATEST)
    assert await everything(empty) == set()


async def test_with_check_tables_of_an_older_version_are_refused_at_start_up(dsn: str, link: Link) -> None:
    older = migrate.LATEST - 1
    await migrate.downgrade(link, "litestar_jobs", older)
    app = Litestar(plugins=[JobsPlugin(JobsConfig(dsn=dsn, jobs=[], migrate="check"))], logging_config=None)
    with pytest.raises(SchemaError, match=rf"have version {older}, .* Run `litestar jobs upgrade`") as caught:
        async with running(app):
            pass
    assert (caught.value.found, caught.value.needed) == (older, migrate.LATEST)
    await migrate.upgrade(link, "litestar_jobs")


async def test_with_check_tables_that_are_there_do(dsn: str) -> None:
    async with running(
        Litestar(plugins=[JobsPlugin(JobsConfig(dsn=dsn, jobs=[], migrate="check"))], logging_config=None)
    ):
        pass


async def test_older_tables_are_named_as_such(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "LATEST", migrate.LATEST + 1)
    with pytest.raises(SchemaError, match=f"have version {migrate.LATEST - 1}, but version {migrate.LATEST} is needed"):
        await migrate.check(link, "litestar_jobs")


async def test_with_never_nobody_looks(dsn: str, link: Link) -> None:
    await link.fetch("INSERT INTO litestar_jobs.migration (version) VALUES (999)")
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[nothing], migrate="never"))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        await plugin.client.enqueue(nothing())
        await drained(plugin.client)


@pytest.fixture
async def powerless(server_dsn: str, empty_dsn: str, empty: Link) -> AsyncIterator[str]:
    """A DSN with a role that may connect, and nothing else."""
    await empty.run("CREATE ROLE powerless LOGIN PASSWORD 'powerless'")
    parts = urlsplit(database(server_dsn, urlsplit(empty_dsn).path[1:]))
    yield urlunsplit(parts._replace(netloc="powerless:powerless@" + parts.netloc.rpartition("@")[2]))
    await empty.run("DROP OWNED BY powerless CASCADE; DROP ROLE powerless")


async def test_a_role_that_may_not_create_is_told_who_may_and_how(powerless: str, empty: Link) -> None:
    app = Litestar(plugins=[JobsPlugin(JobsConfig(dsn=powerless, jobs=[]))], logging_config=None)
    with pytest.raises(SchemaError, match=r"permission denied.*CREATE SCHEMA litestar_jobs AUTHORIZATION") as caught:
        async with running(app):
            pass
    assert isinstance(caught.value.__cause__, asyncpg.InsufficientPrivilegeError)

    await empty.run("CREATE SCHEMA litestar_jobs AUTHORIZATION powerless")
    async with running(app):
        pass
    assert await migrate.current_version(empty, "litestar_jobs") == migrate.LATEST


async def test_a_role_that_may_not_look_is_told_the_same(powerless: str, empty: Link) -> None:
    await migrate.upgrade(empty, "litestar_jobs")
    app = Litestar(plugins=[JobsPlugin(JobsConfig(dsn=powerless, jobs=[]))], logging_config=None)
    with pytest.raises(SchemaError, match=r"permission denied"):
        async with running(app):
            pass


def test_each_version_has_its_way_up_and_its_way_down() -> None:
    names = sorted(path.name for path in files("litestar_jobs").joinpath("sql", "schema").iterdir())
    ups = [name for name in names if not name.endswith(".down.sql")]
    assert [int(name[:3]) for name in ups] == list(range(1, migrate.LATEST + 1))
    assert [name.replace(".sql", ".down.sql") for name in ups] == [name for name in names if name not in ups]


async def test_steps_that_wait_are_cancelled_when_the_tables_go_back_to_before_there_were_workflows(
    dsn: str, link: Link
) -> None:
    """They must not run before what they wait for, and nobody would let them go any more."""
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[nothing], worker=None))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        started = await plugin.client.workflows.start(chain(nothing(), nothing()))
    before = next(version for version in range(migrate.LATEST) if "litestar_jobs.step" in upgrade_of(version + 1))
    await migrate.downgrade(link, "litestar_jobs", before)
    rows = await link.fetch("SELECT id, status FROM litestar_jobs.jobs")
    assert {row["id"]: row["status"] for row in rows} == {
        started.steps["nothing"]: "pending",
        started.last: "cancelled",
    }
    await migrate.upgrade(link, "litestar_jobs")


def upgrade_of(version: int) -> str:
    return migrate.upgrade_script("litestar_jobs", version - 1, version)
