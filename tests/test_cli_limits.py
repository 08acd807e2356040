"""``litestar jobs limits``, and what ``show`` and ``list`` say of jobs that wait for one."""

import json

import asyncpg
import pytest

from limited import wait_at
from litestar_jobs.gates import Gates
from litestar_jobs.request import Limited
from litestar_jobs.store import Statements, Store
from test_cli_queues import Run, jobs, printed

__all__ = ("jobs",)


@pytest.fixture
def gates(store: Store, connection: "asyncpg.Connection[asyncpg.Record]") -> Gates:
    return Gates(connection.fetch, Statements("litestar_jobs"))


async def test_limits_are_listed_with_their_numbers_and_who_waits(
    jobs: Run, gates: Gates, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    assert printed(await jobs("limits")) == "No limit and no rate has jobs."
    await wait_at(connection, Limited("sap", "calls", 2, 1, 90.0), 5)
    await wait_at(connection, Limited("other", None, 7), 1)
    await gates.admit([("limit", "sap")], [], None, 0, "{}")
    await gates.admit([("rate", "calls")], [], None, 0, "{}")

    result = await jobs("limits", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "limits": [
            {"kind": "limit", "key": "other", "most": 7, "per": None, "taken": 0, "waiting": 1},
            {"kind": "limit", "key": "sap", "most": 2, "per": None, "taken": 2, "waiting": 3},
            {"kind": "rate", "key": "calls", "most": 1, "per": 90.0, "taken": 1, "waiting": 1},
        ]
    }
    shown = printed(await jobs("limits"))
    assert "limit sap 2 at once 2 3" in shown
    assert "rate calls 1 in 90 s 1 1" in shown


async def test_show_says_for_which_limit_or_rate_a_job_waits(
    jobs: Run, gates: Gates, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    (first,) = await wait_at(connection, Limited("sap", "calls:{a}", 1, 1, 90.0))
    (second,) = await wait_at(connection, Limited("sap", "calls:{a}", 1, 1, 90.0))
    await gates.admit([("limit", "sap")], [], None, 0, "{}")
    assert "It waits for a slot of the limit 'sap'" in printed(await jobs("show", str(second)))
    assert "It waits until the rate 'calls:{a}' lets it start" in printed(await jobs("show", str(first)))


async def test_a_job_that_waits_for_its_limit_is_due(
    jobs: Run, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """So that whoever looks sees that there is work, and for whom there is no worker."""
    await wait_at(connection, Limited("sap", None, 1), 2)
    (queue,) = json.loads((await jobs("list", "--json")).stdout)["queues"]
    assert (queue["pending"], queue["due"], queue["oldest"]) == (2, 2, None)
