"""The command line, but for the worker: what it prints, for people and for machines, and how it exits."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from click import unstyle
from click.testing import CliRunner, Result
from litestar.cli.main import litestar_group

from cli_app import add, create_app, fail, hold
from litestar_jobs import JobRequest, JobsPlugin, JobStatus, Unique, WorkerConfig, job
from litestar_jobs.migrate import LATEST
from litestar_jobs.outcome import Failure, Settlement
from litestar_jobs.store import Store
from litestar_jobs.testing import ended

NOBODY = UUID(int=0)

Litestar_ = Callable[..., Awaitable[Result]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Litestar_:
    """Run ``litestar jobs ...`` on the application of ``cli_app.py``."""
    monkeypatch.setenv("LITESTAR_APP", "cli_app:create_app")
    monkeypatch.setattr(litestar_group, "_prepare_done", False)

    async def run(*arguments: object, **options: Any) -> Result:
        # In a thread: the commands have event loops of their own.
        words = ["jobs", *map(str, arguments)]
        return await asyncio.to_thread(CliRunner().invoke, litestar_group, words, **options)

    return run


@pytest.fixture
def jobs(command: Litestar_, dsn: str, monkeypatch: pytest.MonkeyPatch) -> Litestar_:
    """Run it on a database with tables."""
    monkeypatch.setenv("LITESTAR_JOBS_DSN", dsn)
    return command


@pytest.fixture
def bare(command: Litestar_, empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> Litestar_:
    """Run it on a database without tables."""
    monkeypatch.setenv("LITESTAR_JOBS_DSN", empty_dsn)
    return command


async def enqueued(*requests: JobRequest, work: bool = False) -> Sequence[UUID]:
    """Jobs in the database; with ``work`` they have come to their end."""
    app = create_app()
    (plugin,) = (plugin for plugin in app.plugins.init if isinstance(plugin, JobsPlugin))
    plugin.worker_config = WorkerConfig(queues=list({request.queue for request in requests})) if work else None
    async with app.lifespan():
        ids = await plugin.client.enqueue_many(requests)
        if work:
            await asyncio.gather(*(ended(plugin.client, job_id) for job_id in ids))
        return ids


def printed(result: Result) -> str:
    """What was printed, without the line breaks of a narrow terminal."""
    return " ".join(result.output.replace("│", " ").split())


# The tables.


async def test_init_creates_the_tables_and_says_what_comes_next(bare: Litestar_) -> None:
    first = await bare("init")
    assert first.exit_code == 0
    assert f"The tables are there, in schema litestar_jobs, version {LATEST}." in first.output
    assert "litestar jobs worker" in first.output

    again = await bare("init")
    assert again.exit_code == 0
    assert "Nothing to do" in again.output
    assert (await bare("check")).exit_code == 0


async def test_check_exits_with_1_and_the_remedy_until_the_tables_are_as_needed(bare: Litestar_) -> None:
    missing = await bare("check")
    assert missing.exit_code == 1
    assert "do not exist. Run `litestar jobs upgrade`" in printed(missing)

    machine = await bare("check", "--json")
    assert machine.exit_code == 1
    answer = json.loads(machine.stdout)
    assert "litestar jobs upgrade" in answer.pop("remedy")
    assert answer == {"ok": False, "schema": "litestar_jobs", "found": 0, "needed": LATEST}

    assert f"went from version 0 to {LATEST}" in printed(await bare("upgrade"))
    good = await bare("check", "--json")
    assert good.exit_code == 0
    assert json.loads(good.stdout) == {
        "ok": True,
        "schema": "litestar_jobs",
        "found": LATEST,
        "needed": LATEST,
        "remedy": None,
    }


async def test_downgrade_says_how_many_jobs_will_be_lost_and_goes_on_only_with_consent(jobs: Litestar_) -> None:
    await enqueued(fail("one"), fail("two"))

    refused = await jobs("downgrade", 0, input="n\n")
    assert refused.exit_code == 1
    assert "All jobs will be lost: 2 jobs." in refused.output
    assert (await jobs("check")).exit_code == 0

    agreed = await jobs("downgrade", 0, "--yes")
    assert agreed.exit_code == 0
    assert "are gone" in agreed.output
    assert (await jobs("check")).exit_code == 1
    assert "Nothing to do" in (await jobs("downgrade", 0)).output


async def test_tables_of_a_newer_version_are_not_touched(
    jobs: Litestar_, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await connection.execute("INSERT INTO litestar_jobs.migration (version) VALUES ($1)", LATEST + 1)

    for arguments in (("downgrade", 0, "--yes"), ("check",), ("list",)):
        result = await jobs(*arguments)
        assert result.exit_code == 1
        assert f"have version {LATEST + 1}, but this litestar-jobs only knows {LATEST}" in printed(result)


@pytest.mark.parametrize("version", ["-1", LATEST + 1, "x"])
async def test_a_version_that_does_not_exist_is_a_wrong_call(command: Litestar_, version: object) -> None:
    assert (await command("upgrade", "--", version)).exit_code == 2


async def test_sql_is_printed_without_a_database_and_does_what_upgrade_does(
    bare: Litestar_, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITESTAR_JOBS_DSN", "postgresql://localhost:1/nowhere")
    up, down = await bare("sql"), await bare("sql", "--down")
    assert (up.exit_code, down.exit_code) == (0, 0)

    monkeypatch.setenv("LITESTAR_JOBS_DSN", empty_dsn)
    connection = await asyncpg.connect(empty_dsn)
    try:
        await connection.execute(up.stdout)
        assert (await bare("check")).exit_code == 0
        await connection.execute(down.stdout)
        assert json.loads((await bare("check", "--json")).stdout)["found"] == 0
    finally:
        await connection.close()


async def test_sql_refuses_a_way_that_leads_nowhere(command: Litestar_) -> None:
    result = await command("sql", "--from", LATEST)
    assert result.exit_code == 2
    assert "There is no way up" in result.output
    assert "--down" in result.output


# Looking.


async def test_list_counts_by_queue_and_status_and_says_what_waits_in_vain(jobs: Litestar_, store: Store) -> None:
    await enqueued(fail("no"), work=True)
    await enqueued(
        fail("now"),
        fail("later", delay=timedelta(hours=1)),
        JobRequest(job_type="of [bold]another[/] app", queue="elsewhere"),
    )

    for_people = await jobs("list")
    assert for_people.exit_code == 0
    lines = {line.split()[0]: line.split() for line in for_people.output.splitlines() if line.strip()}
    assert lines["failing"][1:3] == ["2", "1"]
    assert lines["failing"][-4:] == ["0", "0", "1", "0"]
    assert lines["(all)"][1:3] == ["3", "2"]
    assert "1 pending job of type of [bold]another[/] app: this application knows no job" in printed(for_people)
    assert "No worker is alive, and jobs are due." in for_people.output

    await store.register(uuid4(), "a-host", 4711, ["failing"], 60)
    for_machines = json.loads((await jobs("list", "--json")).stdout)
    (elsewhere, failing) = for_machines["queues"]
    assert elsewhere["queue"] == "elsewhere"
    assert failing.pop("oldest") >= 0
    assert failing == {
        "queue": "failing",
        "pending": 2,
        "due": 1,
        "running": 0,
        "completed": 0,
        "failed": 1,
        "cancelled": 0,
    }
    assert for_machines["unknown"] == [{"job_type": "of [bold]another[/] app", "jobs": 1}]
    assert [worker["pid"] for worker in for_machines["workers"]] == [4711]
    assert for_machines["idle_queues"] == ["elsewhere"]
    assert "No live worker takes jobs of queue elsewhere" in printed(await jobs("list"))
    assert "1 worker of failing: a-host:4711" in printed(await jobs("list"))


async def test_a_scheduled_job_whose_time_has_come_is_due_even_if_no_worker_promotes_it(
    jobs: Litestar_, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await enqueued(fail("now"), fail("later", delay=60), fail("much later", delay=600))
    await connection.execute(
        "UPDATE litestar_jobs.scheduled SET run_at = run_at - interval '1 hour' WHERE run_at < now() + interval '5 min'"
    )

    (queue,) = json.loads((await jobs("list", "--json")).stdout)["queues"]
    assert (queue["pending"], queue["due"]) == (3, 2)
    assert 3500 < queue["oldest"] < 3600


async def test_list_fits_into_eighty_columns(jobs: Litestar_, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, for rich
    monkeypatch.setenv("COLUMNS", "80")
    await enqueued(fail("x" * 500, queue="q" * 100), work=True)
    await enqueued(fail("now", queue="q" * 100))
    for arguments in (("list",), ("list", "--failed")):
        result = await jobs(*arguments)
        assert result.exit_code == 0
        assert max(map(len, unstyle(result.output).splitlines())) <= 80


async def test_list_failed_shows_id_queue_type_attempts_and_last_error(jobs: Litestar_) -> None:
    (failed,) = await enqueued(fail("no route\nto [red]host\x1b[31m"), work=True)
    await enqueued(fail("pending"))

    result = await jobs("list", "--failed")
    assert result.exit_code == 0
    first, second, third = result.output.splitlines()
    assert first == f"{failed}  fail  queue failing"
    assert second.startswith("  failed, attempt 2 of 2, ")
    assert third == "  ConnectionError: no route"
    (row,) = json.loads((await jobs("list", "--failed", "--json")).stdout)["jobs"]
    assert (row["id"], row["last_error"]) == (str(failed), "ConnectionError: no route\nto [red]host\x1b[31m")


async def test_list_filters_by_status_queue_type_and_number(jobs: Litestar_) -> None:
    one, two, three = await enqueued(fail("1"), fail("2", queue="other"), hold("3"))

    async def listed(*arguments: object) -> list[UUID]:
        return [UUID(row["id"]) for row in json.loads((await jobs("list", *arguments, "--json")).stdout)["jobs"]]

    assert await listed("--status", "pending") == [three, two, one]
    assert await listed("--queue", "other") == [two]
    assert await listed("--type", "fail", "--limit", 1) == [two]
    assert await listed("--failed") == []
    assert "There are no such jobs." in (await jobs("list", "--failed")).output
    assert (await jobs("list", "--failed", "--status", "pending")).exit_code == 2
    assert (await jobs("list", "--status", "lost")).exit_code == 2


async def test_show_and_list_tell_progress_and_show_tells_the_result(
    jobs: Litestar_, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    (done,) = await enqueued(add([1, 2]), work=True)
    (runs,) = await enqueued(hold("3"))
    await connection.execute("DELETE FROM litestar_jobs.ready")
    await connection.execute(
        """INSERT INTO litestar_jobs.running (id, token, started_at, worker_id, attempt, queue)
           VALUES ($1, 7, now(), $1, 1, 'held')""",
        runs,
    )
    await connection.execute("INSERT INTO litestar_jobs.progress VALUES ($1, 7, now(), 0.4, 'nearly half')", runs)

    shown = await jobs("show", done)
    assert "  result\n    3\n" in shown.output
    assert json.loads((await jobs("show", done, "--json")).stdout)["job"]["result"] == 3
    assert "progress    40%: nearly half" in (await jobs("show", runs)).output
    assert "40%: nearly half" in (await jobs("list", "--status", "running")).output
    (row,) = json.loads((await jobs("list", "--status", "running", "--json")).stdout)["jobs"]
    assert (row["progress"], row["progress_message"]) == (0.4, "nearly half")


async def test_show_tells_until_when_a_job_must_begin_and_end_and_how_often_it_waited(
    jobs: Litestar_, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    (job_id,) = await enqueued(add([1], expires_in=3600, deadline=7200))
    shown = (await jobs("show", job_id)).output
    assert re.search(r"begins by +\d{4}-.*\(in 60 min\)", shown)
    assert re.search(r"ends by +\d{4}-.*\(in 120 min\)", shown)
    assert "has waited" not in shown
    await connection.execute("UPDATE litestar_jobs.job SET snoozes = 2; UPDATE litestar_jobs.ready SET attempts = 1")
    shown = (await jobs("show", job_id)).output
    assert "has waited  2 times" in shown
    assert "begins by" not in shown, "an attempt was begun"
    row = json.loads((await jobs("show", job_id, "--json")).stdout)["job"]
    assert row["snoozes"] == 2
    assert row["created_at"] < row["expires_at"] < row["deadline_at"]


async def test_show_tells_the_whole_story_of_a_failed_job(jobs: Litestar_) -> None:
    (failed,) = await enqueued(fail("no [red]route\x1b[31m"), work=True)

    result = await jobs("show", failed)
    assert result.exit_code == 0
    assert f"{failed}  fail" in result.output
    assert "attempts    2 of 2" in result.output
    assert result.output.count("ConnectionError: no [red]route\\x1b[31m") == 4  # twice a message and a traceback
    assert "\x1b" not in result.output
    assert "Attempt 1 failed" in result.output
    assert "Attempt 2 failed" in result.output
    assert "in fail" in result.output
    assert result.output.splitlines()[-1] == f"Next  Nothing by itself. To run it again: litestar jobs retry {failed}"

    story = json.loads((await jobs("show", failed, "--json")).stdout)
    assert story["job"]["payload"] == "no [red]route\x1b[31m"
    assert [failure["attempt"] for failure in story["failures"]] == [1, 2]
    assert "litestar jobs retry" in story["next"]


async def test_show_says_whether_a_unique_job_holds_its_key(
    jobs: Litestar_, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    once = job(unique=Unique(within=3600), name="fail")(fail.fn)
    (held,) = await enqueued(once("x"))
    assert (
        "unique      holds its key until it has finished, and in any case until " in (await jobs("show", held)).output
    )
    shown = json.loads((await jobs("show", held, "--json")).stdout)["unique"]
    assert (shown["until"], shown["kept_until"] is None) == ("finished", False)

    await jobs("cancel", held)
    assert "holds its key" in (await jobs("show", held)).output
    await connection.execute("UPDATE litestar_jobs.unique_key SET kept_until = NULL")
    assert "holds its key" not in (await jobs("show", held)).output


async def test_show_says_why_a_handler_cancelled_its_job(jobs: Litestar_, store: Store) -> None:
    (asked,) = await enqueued(hold("withdrawn"))
    worker_id = uuid4()
    await store.register(worker_id, "here", 1, ["holding"], 60)
    row = await store.get(asked)
    assert row is not None
    (claimed,) = await store.claim({row.queue: 1}, {}, worker_id, "{}")
    await store.settle([(claimed, Settlement("cancelled", failure=Failure("Cancel", "not needed")))])

    result = await jobs("show", asked)
    assert "Attempt 1 asked to be cancelled" in result.output
    assert "Cancel: not needed" in result.output
    assert "failed" not in result.output


async def test_show_says_what_will_happen_next(jobs: Litestar_, store: Store) -> None:
    now, later, unknown = await enqueued(
        fail("now"), fail("later", delay=3600), JobRequest(job_type="gone", queue="failing")
    )

    async def next_of(job_id: UUID) -> str:
        return str(json.loads((await jobs("show", job_id, "--json")).stdout)["next"])

    assert "no live worker takes jobs of queue 'failing'" in await next_of(now)
    worker_id = uuid4()
    await store.register(worker_id, "here", 1, ["failing"], 60)
    assert await next_of(now) == "Attempt 1 of 2 runs as soon as a worker has a free slot."
    assert "Attempt 1 of 2 runs at " in await next_of(later)
    assert "this application has no job named 'gone'" in await next_of(unknown)

    await store.claim({"failing": 1}, {}, worker_id, "{}")
    assert "If this attempt fails, 1 more may follow." in await next_of(now)
    await store.deregister(worker_id)
    assert "Its process is gone." in await next_of(now)


async def test_show_says_why_a_job_is_held(
    jobs: Litestar_, store: Store, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    (held,) = await enqueued(fail("culprit"))
    await connection.execute(
        "WITH gone AS (DELETE FROM litestar_jobs.ready RETURNING id, run_at, priority, attempts, queue) "
        "INSERT INTO litestar_jobs.held SELECT *, 'suspect' FROM gone"
    )
    result = await jobs("show", held)
    assert "It is held, since it was lost with its process more than once" in printed(result)
    assert "pending" in result.output
    (queue,) = json.loads((await jobs("list", "--json")).stdout)["queues"]
    assert (queue["pending"], queue["due"]) == (1, 0)
    await connection.execute("UPDATE litestar_jobs.held SET reason = 'some other reason'")
    assert "It is held: some other reason." in printed(await jobs("show", held))
    assert (await jobs("cancel", held)).exit_code == 0


async def test_show_of_no_job_exits_with_1_and_of_no_uuid_with_2(jobs: Litestar_) -> None:
    unknown = await jobs("show", NOBODY)
    assert unknown.exit_code == 1
    assert f"There is no job {NOBODY}" in printed(unknown)
    assert (await jobs("show", "me")).exit_code == 2
    assert "is not a valid UUID" in printed(await jobs("retry", "me"))


# Moving.


async def test_retry_and_cancel_say_of_each_job_whether_it_moved_and_why_not(jobs: Litestar_, store: Store) -> None:
    (failed,) = await enqueued(fail("no"), work=True)

    retried = await jobs("retry", failed, NOBODY)
    assert retried.exit_code == 1
    assert retried.output.splitlines() == [
        f"{failed}  runs again",
        f"{NOBODY}  not moved: there is no such job",
    ]
    row = await store.get(failed)
    assert row is not None
    assert (row.status, row.attempts) == (JobStatus.PENDING, 0)

    again = await jobs("retry", failed, "--json")
    assert again.exit_code == 1
    reason = "it is pending and will run anyway"
    assert json.loads(again.stdout) == {
        "jobs": [{"id": str(failed), "moved": False, "status": "pending", "reason": reason}]
    }

    cancelled = await jobs("cancel", failed, "--json")
    assert cancelled.exit_code == 0
    assert json.loads(cancelled.stdout) == {
        "jobs": [{"id": str(failed), "moved": True, "status": "cancelled", "reason": None}]
    }
    refused = await jobs("cancel", failed)
    assert refused.exit_code == 1
    assert refused.output == f"{failed}  not moved: it is cancelled already\n"


async def test_a_running_job_is_cancelled_and_not_retried(jobs: Litestar_, store: Store) -> None:
    (running,) = await enqueued(fail("x"))
    worker_id = uuid4()
    await store.register(worker_id, "here", 1, ["failing"], 60)
    await store.claim({"failing": 1}, {}, worker_id, "{}")

    assert "not moved: it is running" in printed(await jobs("retry", running))
    assert printed(await jobs("cancel", running)) == f"{running} is cancelled"
    assert "not moved: it is cancelled already" in printed(await jobs("cancel", running))


# What can go wrong before.


@pytest.mark.parametrize("arguments", [("list",), ("show", NOBODY), ("retry", NOBODY), ("init",)])
async def test_a_database_that_does_not_answer_is_an_error_without_a_traceback(
    command: Litestar_, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[object, ...]
) -> None:
    monkeypatch.setenv("LITESTAR_JOBS_DSN", f"postgresql://user:secret@/name?host={tmp_path}")
    result = await command(*arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "PostgreSQL cannot be reached" in printed(result)
    assert "secret" not in result.output


async def test_without_tables_the_remedy_is_named(bare: Litestar_) -> None:
    for arguments in (("list",), ("show", NOBODY), ("cancel", NOBODY)):
        result = await bare(*arguments)
        assert result.exit_code == 1
        assert "Run `litestar jobs upgrade`" in printed(result)


async def test_a_worker_for_a_queue_that_cannot_be_does_not_start(jobs: Litestar_) -> None:
    result = await jobs("worker", "--queue", "a\tb")
    assert result.exit_code == 1
    assert "a queue's name must not contain control characters" in printed(result)
