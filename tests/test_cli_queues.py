"""``litestar jobs queues``: what is in each queue, who may take it, and the hand on it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from click import unstyle
from click.testing import CliRunner, Result
from litestar.cli.main import litestar_group
from uuid_utils.compat import uuid7

from litestar_jobs import JobRequest
from litestar_jobs.request import NewJob
from litestar_jobs.store import Store

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch, dsn: str) -> Run:
    """Run ``litestar jobs ...`` on the application of ``cli_app.py``."""
    monkeypatch.setenv("LITESTAR_APP", "cli_app:create_app")
    monkeypatch.setenv("LITESTAR_JOBS_DSN", dsn)
    monkeypatch.setattr(litestar_group, "_prepare_done", False)

    async def run(*arguments: str) -> Result:
        # In a thread: the commands have event loops of their own.
        return await asyncio.to_thread(CliRunner().invoke, litestar_group, ["jobs", *arguments])

    return run


def printed(result: Result) -> str:
    return " ".join(unstyle(result.output).split())


async def listed(jobs: Run) -> dict[str, Any]:
    result = await jobs("queues", "--json")
    assert result.exit_code == 0, result.output
    return {line.pop("queue"): line for line in json.loads(result.stdout)["queues"]}


async def enqueued(store: Store, queue: str) -> NewJob:
    new = NewJob(uuid7(), JobRequest(job_type="quick", queue=queue))
    await store.enqueue([new])
    return new


async def test_queues_are_listed_with_jobs_workers_and_limits(jobs: Run, store: Store) -> None:
    assert "No queue has jobs" in printed(await jobs("queues"))
    await enqueued(store, "held")
    await store.register(uuid4(), "here", 1, ["held", "failing"], 60)
    await jobs("queues", "resize", "held", "3")
    await jobs("queues", "pause", "away")

    lines = await listed(jobs)
    assert lines["held"].pop("oldest") >= 0
    nothing = {"paused_at": None, "concurrency": None, "workers": 0, "pending": 0, "due": 0, "running": 0}
    assert lines["held"] == {**nothing, "concurrency": 3, "workers": 1, "pending": 1, "due": 1}
    assert lines["failing"] == {**nothing, "workers": 1, "oldest": None}
    assert lines["away"].pop("paused_at") is not None
    assert set(lines) == {"away", "failing", "held"}

    output = printed(await jobs("queues"))
    assert "held 1 3 1 1" in output
    assert "Queue away is paused since" in output
    assert "litestar jobs queues resume away" in output


async def test_pause_and_resume_say_what_became_of_each_queue(jobs: Run) -> None:
    paused = await jobs("queues", "pause", "held", "heldd")
    assert paused.exit_code == 0
    assert "held is paused heldd is paused No job and no live worker has this queue." in printed(paused)
    again = json.loads((await jobs("queues", "pause", "held", "--json")).stdout)
    assert again == {"queues": [{"queue": "held", "changed": False, "known": True}]}
    assert "held is paused, as it was before" in printed(await jobs("queues", "pause", "held"))
    assert "held is active" in printed(await jobs("queues", "resume", "held"))
    assert set(await listed(jobs)) == {"heldd"}


async def test_resize_is_for_each_worker_and_can_be_taken_back(jobs: Run) -> None:
    assert "runs at most 2 at once in each worker" in printed(await jobs("queues", "resize", "held", "2"))
    assert (await listed(jobs))["held"]["concurrency"] == 2
    assert "is unbounded" in printed(await jobs("queues", "resize", "held", "--unbounded"))
    assert await listed(jobs) == {}


@pytest.mark.parametrize("arguments", [("held",), ("held", "2", "--unbounded"), ("held", "0"), ("held", "many"), ()])
async def test_resize_without_a_size_that_makes_sense_exits_with_2(jobs: Run, arguments: tuple[str, ...]) -> None:
    assert (await jobs("queues", "resize", *arguments)).exit_code == 2


async def test_a_name_that_cannot_be_one_exits_with_1(jobs: Run) -> None:
    result = await jobs("queues", "pause", "q" * 101)
    assert result.exit_code == 1
    assert "a queue's name must be text of 1 to 100 characters" in printed(result)


async def test_list_and_show_say_that_a_queue_is_paused(jobs: Run, store: Store) -> None:
    new = await enqueued(store, "held")
    await jobs("queues", "pause", "held")
    assert json.loads((await jobs("list", "--json")).stdout)["paused"] == ["held"]
    assert "Queue held is paused. To go on: litestar jobs queues resume held" in printed(await jobs("list"))
    story = json.loads((await jobs("show", str(new.id), "--json")).stdout)
    assert story["next"] == "It waits: queue 'held' is paused. To go on: litestar jobs queues resume held"
