"""``litestar jobs partitions``: what there is, the change, and the way back."""

import json

import asyncpg
import pytest

from litestar_jobs import migrate
from litestar_jobs.database import Link
from test_cli_queues import Run, jobs, printed

__all__ = ("jobs",)


@pytest.fixture(autouse=True)
async def _plain(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    await connection.execute("SELECT litestar_jobs.unpartition_tables()")


async def test_tables_are_partitioned_listed_and_made_plain_again(jobs: Run) -> None:
    assert printed(await jobs("partitions")).startswith("The tables are plain.")
    assert json.loads((await jobs("partitions", "--json")).stdout) == {"partitions": []}
    shown = printed(await jobs("partitions", "--every", "1d", "--yes"))
    assert shown.count("00:00") >= 3
    assert "the rest" in shown
    first, second, rest = json.loads((await jobs("partitions", "--json")).stdout)["partitions"]
    assert (first["begins"], rest["ends"]) == (None, None)
    assert first["ends"] == second["begins"]
    assert rest["bytes"] > 0
    assert "00:00" in printed(await jobs("partitions", "--every", "6h")), "no row is read, so nobody is asked"
    assert printed(await jobs("partitions", "--off", "--yes")).startswith("The tables are plain.")
    assert printed(await jobs("partitions", "--off")) == "Nothing to do: the tables are plain."


async def test_whoever_is_asked_may_say_no(jobs: Run) -> None:
    result = await jobs("partitions", "--every", "1d")
    assert result.exit_code == 1
    assert "All rows of the tables are read once. Until then nobody can use them. Go on?" in result.output
    assert json.loads((await jobs("partitions", "--json")).stdout) == {"partitions": []}


@pytest.mark.parametrize(
    ("words", "told", "code"),
    [
        (["--every", "30m", "--yes"], "the width of partitions must lie between 3600 and", 1),
        (["--every", "soon"], "is not a number with a unit", 2),
        (["--every", "1d", "--off"], "Either --every or --off.", 2),
    ],
)
async def test_what_makes_no_sense_is_said(jobs: Run, words: list[str], told: str, code: int) -> None:
    result = await jobs("partitions", *words)
    assert result.exit_code == code
    assert told in " ".join(result.stderr.replace("\u2502", " ").split())


async def test_tables_of_another_version_are_not_touched(jobs: Run, link: Link) -> None:
    await migrate.downgrade(link, "litestar_jobs", 9)
    result = await jobs("partitions", "--every", "1d", "--yes")
    assert result.exit_code == 1
    assert "have version 9" in result.stderr
