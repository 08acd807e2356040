"""``litestar jobs workflows`` and ``workflow``: what an operator sees of many jobs as one."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import UUID

import pytest
from click.testing import CliRunner, Result
from litestar import Litestar
from litestar.cli.main import litestar_group

from cli_app import fail, quick
from litestar_jobs import JobsClient, JobsConfig, JobsPlugin, Workflow, chain
from litestar_jobs.store import Store
from litestar_jobs.testing import running, until

Command = Callable[..., Awaitable[Result]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, dsn: str) -> Command:
    """Run ``litestar jobs ...`` on the application of ``cli_app.py``."""
    monkeypatch.setenv("LITESTAR_APP", "cli_app:create_app")
    monkeypatch.setenv("LITESTAR_JOBS_DSN", dsn)
    monkeypatch.setattr(litestar_group, "_prepare_done", False)

    async def run(*arguments: str) -> Result:
        # In a thread: the commands have event loops of their own.
        return await asyncio.to_thread(CliRunner().invoke, litestar_group, ["jobs", *arguments])

    return run


@pytest.fixture
async def client(dsn: str) -> AsyncIterator[JobsClient]:
    """Of an application whose worker runs the failing jobs only."""
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[fail]))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        yield plugin.client


def order() -> Workflow:
    workflow = Workflow("order 7")
    workflow.add("pay", fail("no money", max_retries=0))
    workflow.add("pack", quick())
    workflow.add("ship", quick(), after=["pay", "pack"])
    workflow.add("report", quick(), after=["ship", "pack"], run_when="ended")
    return workflow


async def test_a_workflow_is_shown_as_a_tree_with_the_state_of_each_step_and_why(
    command: Command, client: JobsClient
) -> None:
    started = await client.workflows.start(order())

    async def cancelled() -> bool:
        row = await client.workflows.get(started.id)
        return row is not None and row.steps[2].status == "cancelled"

    await until(cancelled)
    lines = (await command("workflow", str(started.id))).output.splitlines()
    ids = started.steps
    assert lines[0] == f"{started.id}  order 7  running"
    assert lines[1].startswith("  started ")
    assert lines[2:] == [
        f"  pay  failed  job fail  {ids['pay']}",
        "    ConnectionError: no money",
        f"  pack  pending  job quick  {ids['pack']}",
        f"    ship  cancelled  job quick  {ids['ship']}  after pay, pack",
        "      step 'pay' failed",
        f"      report  waiting  job quick  {ids['report']}  after pack, ship",
    ]
    document = json.loads((await command("workflow", str(started.id), "--json")).output)
    assert document["cancelled"] == 0
    assert document["workflow"]["id"] == str(started.id)
    assert [(step["name"], step["status"]) for step in document["workflow"]["steps"]] == [
        ("pay", "failed"),
        ("pack", "pending"),
        ("ship", "cancelled"),
        ("report", "waiting"),
    ]
    assert "It is a step of a workflow and waits" in (await command("show", str(ids["report"]))).output


async def test_workflows_are_listed_newest_first_with_how_far_they_are(command: Command, client: JobsClient) -> None:
    assert "There are no workflows." in (await command("workflows")).output
    first = await client.workflows.start(chain(quick(), quick(), quick(), name="first"))
    second = await client.workflows.start(chain(quick(), name="second"))
    assert await client.workflows.cancel(second.id) == 1
    lines = (await command("workflows")).output.splitlines()
    assert lines[0] == f"{second.id}  second  cancelled"
    assert lines[1].startswith("  1 step: 1 cancelled; started ")
    assert lines[2] == f"{first.id}  first  running"
    assert lines[3].startswith("  3 steps: 1 active, 2 waiting; started ")
    assert "These are the newest 1; there may be more" in (await command("workflows", "--limit", "1")).output
    (newest,) = json.loads((await command("workflows", "--limit", "1", "--json")).output)["workflows"]
    assert (newest["id"], newest["status"], newest["steps"], newest["cancelled"]) == (str(second.id), "cancelled", 1, 1)


async def test_a_workflow_is_cancelled_by_hand(command: Command, client: JobsClient) -> None:
    started = await client.workflows.start(chain(quick(), quick(), quick()))
    result = await command("workflow", str(started.id), "--cancel")
    assert result.output.splitlines()[0] == "3 jobs cancelled."
    row = await client.workflows.get(started.id)
    assert row is not None
    assert row.status == "cancelled"


async def test_cancelling_a_job_by_hand_leads_on(command: Command, client: JobsClient, store: Store) -> None:
    for way in ([], ["--status", "pending", "--yes"]):
        started = await client.workflows.start(chain(quick(), quick()))
        first = str(started.steps["quick"])
        assert (await command("cancel", first, *way)).exit_code == 0
        row = await store.get(started.last)
        assert row is not None
        assert row.status == "cancelled"


async def test_a_workflow_that_there_is_not_is_an_error(command: Command) -> None:
    result = await command("workflow", str(UUID(int=1)))
    assert result.exit_code == 1
    assert f"There is no workflow {UUID(int=1)}" in result.output
