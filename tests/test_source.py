"""Which database the jobs live in: the first of five places, and no password is ever shown."""

import pytest
from advanced_alchemy.extensions.litestar import SQLAlchemyAsyncConfig, SQLAlchemyPlugin, SQLAlchemySyncConfig
from litestar import Litestar

from litestar_jobs import JobsConfig, JobsPlugin, source
from litestar_jobs.alchemy import AlchemyConfig
from litestar_jobs.database import Database
from litestar_jobs.errors import ConfigurationError, DatabaseUnreachable
from litestar_jobs.source import find_database
from litestar_jobs.testing import running

ALCHEMY = SQLAlchemyAsyncConfig(connection_string="postgresql+asyncpg://u:p@alchemy/jobs")


async def where(dsn: str | None, *configs: AlchemyConfig) -> tuple[str, str]:
    found = find_database(dsn, configs)
    return (await found.open()).address, found.name


async def test_the_first_of_the_places_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "embedded_dsn", lambda: "postgresql://postgres@/postgres?host=/somewhere")
    monkeypatch.setattr(source, "is_installed", lambda: True)
    assert await where(None) == ("local socket/postgres", "the embedded PostgreSQL, which is not for production")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:p@common/jobs")
    assert await where(None) == ("common/jobs", "DATABASE_URL")
    assert await where(None, ALCHEMY) == ("alchemy/jobs", "the application's advanced-alchemy configuration")
    monkeypatch.setenv("LITESTAR_JOBS_DSN", "postgresql://u:p@variable/jobs")
    assert await where(None, ALCHEMY) == ("variable/jobs", "LITESTAR_JOBS_DSN")
    assert await where("postgresql://u:p@given:5433/jobs", ALCHEMY) == ("given:5433/jobs", "JobsConfig.dsn")


def test_without_a_database_the_error_names_all_five(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "is_installed", lambda: False)
    with pytest.raises(ConfigurationError) as caught:
        Litestar(plugins=[JobsPlugin(JobsConfig(jobs=[]))])
    for place in (
        "JobsConfig(dsn=",
        "LITESTAR_JOBS_DSN",
        "SQLAlchemyPlugin",
        "DATABASE_URL",
        "litestar-jobs[embedded]",
    ):
        assert place in str(caught.value)


def test_of_several_configurations_none_is_guessed() -> None:
    other = SQLAlchemyAsyncConfig(
        connection_string="postgresql+asyncpg://u:p@other/db", session_dependency_key="other_session", bind_key="other"
    )
    with pytest.raises(ConfigurationError, match=r"2 advanced-alchemy configurations \(db_session, other_session\)"):
        find_database(None, [ALCHEMY, other])
    assert find_database("postgresql://given/db", [ALCHEMY, other]).name == "JobsConfig.dsn"


@pytest.mark.parametrize("url", ["sqlite+aiosqlite:///jobs.db", "mysql+asyncmy://u:hunter2@h/db"])
def test_an_application_on_another_kind_of_database_is_told_when_it_is_made(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"needs PostgreSQL, but the database is (sqlite|mysql)") as caught:
        Litestar(
            plugins=[
                SQLAlchemyPlugin(config=SQLAlchemyAsyncConfig(connection_string=url)),
                JobsPlugin(JobsConfig(jobs=[])),
            ]
        )
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["LITESTAR_JOBS_DSN", "DATABASE_URL"])
def test_a_variable_that_names_another_kind_of_database_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "mysql://u:hunter2@h/db")
    with pytest.raises(ConfigurationError, match="the database is mysql") as caught:
        Litestar(plugins=[JobsPlugin(JobsConfig(jobs=[]))])
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "driver"),
    [(SQLAlchemyAsyncConfig, "asyncpg"), (SQLAlchemyAsyncConfig, "psycopg"), (SQLAlchemySyncConfig, "psycopg")],
)
async def test_the_engines_driver_does_not_matter(
    dsn: str, kind: type[SQLAlchemyAsyncConfig | SQLAlchemySyncConfig], driver: str
) -> None:
    config = kind(connection_string=dsn.replace("postgresql://", f"postgresql+{driver}://"))
    plugin = JobsPlugin(JobsConfig(jobs=[]))
    async with running(Litestar(plugins=[SQLAlchemyPlugin(config=config), plugin], logging_config=None)):
        assert await plugin.client.store.count() == []


SECRETS = [
    "postgresql://me:hunter2@localhost:1/db",
    "postgresql://me:hunter2@localhost:1/db?sslmode=disable",
    "postgresql://localhost:1/db?user=me&password=hunter2",
    "postgresql://me:p%40hunter2@localhost:1/db",
    "postgresql://me:at@hunter2@localhost:1/db",
]


@pytest.mark.parametrize("dsn", SECRETS)
async def test_a_password_is_never_shown(dsn: str) -> None:
    config = JobsConfig(dsn=dsn, jobs=[])
    database = Database(dsn)
    assert "hunter2" not in repr([config, database, find_database(dsn, []), JobsPlugin(config)])
    assert database.address == "localhost:1/db"
    with pytest.raises(DatabaseUnreachable, match="cannot be reached at localhost:1/db") as caught:
        await database.connect()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("dsn", ["host=localhost password=hunter2", "hunter2", "me:hunter2@localhost/db"])
def test_what_is_no_url_is_refused_unseen(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match="Give a DSN that begins with postgresql://") as caught:
        find_database(dsn, [])
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "dsn", ["postgresql://me:hun/ter2@h/db", "postgresql://me:hun#ter2@h/db", "postgresql://me:hun?ter2@h/db"]
)
def test_a_password_with_unescaped_characters_is_refused_unseen(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be read.*percent-encoded") as caught:
        find_database(dsn, [])
    assert "hun" not in str(caught.value)
    assert "ter2" not in str(caught.value)


def test_several_hosts_are_fine() -> None:
    assert Database("postgresql://me:pw@a:5432,b:5433/db").address == "a:5432,b:5433/db"
    assert Database("postgresql://me:pw@[::1]:5432/db").address == "[::1]:5432/db"
