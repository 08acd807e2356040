"""``init``, ``upgrade``, ``downgrade``, ``check`` and ``sql``: the tables, through the door of the command line."""

import sys

import click
import msgspec
from litestar import Litestar
from rich_click import RichCommand

from litestar_jobs import migrate
from litestar_jobs.cli.connect import OperatedPlugin, linked, plugin_of, run
from litestar_jobs.cli.printing import count, print_json, print_line
from litestar_jobs.errors import SchemaError
from litestar_jobs.migrate import LATEST
from litestar_jobs.store import Store

__all__ = ("check", "downgrade", "init", "sql", "upgrade")


class Checked(msgspec.Struct, frozen=True):
    """What ``check --json`` prints. Versions are whole numbers, 0 where there are no tables."""

    ok: bool
    schema: str
    found: int
    needed: int
    remedy: str | None


@click.command(name="init", cls=RichCommand)
def init(app: Litestar) -> None:
    """Create the tables."""
    plugin = plugin_of(app)
    before, after = run(_upgrade(plugin, LATEST))
    if before:
        _say_version(plugin, before, after)
        return
    print_line(("The tables are there", "green"), f", in schema {plugin.config.schema}, version {after}.")
    print_line("Next: start the application, which has a worker of its own unless it is told otherwise,")
    print_line("or start a process that only works: litestar jobs worker. What there is: litestar jobs list.")


@click.command(name="upgrade", cls=RichCommand)
@click.argument("version", type=click.IntRange(1, LATEST), default=LATEST)
def upgrade(app: Litestar, version: int) -> None:
    """Bring the tables to VERSION, or to the newest one.

    Workers may go on meanwhile.
    """
    plugin = plugin_of(app)
    _say_version(plugin, *run(_upgrade(plugin, version)))


@click.command(name="downgrade", cls=RichCommand)
@click.argument("version", type=click.IntRange(0, LATEST))
@click.option("--yes", is_flag=True, help="Do not ask.")
def downgrade(app: Litestar, version: int, *, yes: bool) -> None:
    """Take the tables back to VERSION.

    At 0 they are gone, and all jobs with them.
    """
    plugin = plugin_of(app)
    before, jobs = run(_before_downgrade(plugin))
    if before > version and not yes:
        loss = f" All jobs will be lost: {count(jobs, 'job')}." if version == 0 else ""
        click.confirm(f"Go from version {before} back to {version} in schema {plugin.config.schema}?{loss}", abort=True)
    _say_version(plugin, *run(_downgrade(plugin, version)))


@click.command(name="check", cls=RichCommand)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: ok, schema, found, needed, remedy.")
def check(app: Litestar, *, as_json: bool) -> None:
    """Look whether the tables are as needed.

    Exits with 1 if they are not, and says what to do.
    """
    plugin = plugin_of(app)
    checked = run(_check(plugin))
    if as_json:
        print_json(checked)
    elif checked.ok:
        print_line(("The tables are as needed", "green"), f": schema {checked.schema}, version {checked.found}.")
    else:
        raise click.ClickException(str(checked.remedy))
    sys.exit(0 if checked.ok else 1)


@click.command(name="sql", cls=RichCommand)
@click.option("--from", "since", type=click.IntRange(0, LATEST), help="The version that is there.")
@click.option("--to", "to", type=click.IntRange(0, LATEST), help="The version that is wanted.")
@click.option("--down", is_flag=True, help="The way back.")
def sql(app: Litestar, *, since: int | None, to: int | None, down: bool) -> None:
    """Print the SQL for somebody else to run.

    That of an upgrade, or with --down of a downgrade. Needs no database.
    """
    first, last = (LATEST, 0) if down else (0, LATEST)
    since = first if since is None else since
    to = last if to is None else to
    if (since <= to) if down else (since >= to):
        direction, hint = ("down", "") if down else ("up", " For the way back there is --down.")
        raise click.UsageError(f"There is no way {direction} from version {since} to {to}.{hint}")
    write = migrate.downgrade_script if down else migrate.upgrade_script
    click.echo(write(plugin_of(app).config.schema, since, to), nl=False)


async def _upgrade(plugin: OperatedPlugin, version: int) -> tuple[int, int]:
    async with linked(plugin) as link:
        return await migrate.upgrade(link, plugin.config.schema, version)


async def _before_downgrade(plugin: OperatedPlugin) -> tuple[int, int]:
    """The version that is there, and how many jobs."""
    async with linked(plugin) as link:
        version = await migrate.current_version(link, plugin.config.schema)
        if version == 0:
            return 0, 0
        if version > LATEST:
            await migrate.check(link, plugin.config.schema)  # says who knows the way back
        return version, sum(counted.jobs for counted in await Store(link.fetch, plugin.statements).count())


async def _downgrade(plugin: OperatedPlugin, version: int) -> tuple[int, int]:
    async with linked(plugin) as link:
        return await migrate.downgrade(link, plugin.config.schema, version)


async def _check(plugin: OperatedPlugin) -> Checked:
    schema = plugin.config.schema
    async with linked(plugin) as link:
        try:
            await migrate.check(link, schema)
        except SchemaError as error:
            return Checked(ok=False, schema=schema, found=error.found, needed=error.needed, remedy=str(error))
    return Checked(ok=True, schema=schema, found=LATEST, needed=LATEST, remedy=None)


def _say_version(plugin: OperatedPlugin, before: int, after: int) -> None:
    schema = plugin.config.schema
    if before == after:
        print_line(f"Nothing to do: schema {schema} has version {after}.")
    elif after == 0:
        print_line(f"The tables in schema {schema} are gone.")
    else:
        print_line(("Done", "green"), f": schema {schema} went from version {before} to {after}.")
