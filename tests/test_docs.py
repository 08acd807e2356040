"""What the documentation shows is run here, and what it says of names and defaults is compared with the code."""

import asyncio
import dataclasses
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
import uvicorn
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from conftest import IS_PARTITIONED
from limited import INSTRUMENT, most_at_once
from litestar_jobs import (
    Fixed,
    JobFilter,
    JobsClient,
    JobsConfig,
    JobsPlugin,
    JobStatus,
    Retention,
    WorkerConfig,
    define,
    errors,
)
from litestar_jobs.options import JobOptions
from litestar_jobs.store import Store
from litestar_jobs.testing import drained, ended, running, until

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLES = DOCS / "examples"


@pytest.fixture
def _logging_as_it_was() -> Iterator[None]:
    """Litestar configures the logging of the process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def example(dsn: str, monkeypatch: pytest.MonkeyPatch, _logging_as_it_was: None) -> Callable[[str], ModuleType]:
    """Imports an example as if it were alone in its process, on the test's database."""
    monkeypatch.setattr(define, "_registry", {})
    monkeypatch.setenv("LITESTAR_JOBS_DSN", dsn)
    monkeypatch.setenv("DATABASE_URL", dsn.replace("postgresql://", "postgresql+asyncpg://"))

    def load(name: str) -> ModuleType:
        spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


def client_of(module: ModuleType) -> JobsClient:
    plugin: JobsPlugin = module.app.plugins.get(JobsPlugin)
    return plugin.client


async def printed(capsys: pytest.CaptureFixture[str], line: str) -> str:
    """What the logging of an example has written once the line is there; another thread writes it."""
    seen = ""

    async def look() -> bool:
        nonlocal seen
        seen += capsys.readouterr().err
        return line in seen

    await until(look)
    return seen


async def test_the_quickstart_runs_its_job(
    example: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    shop = example("quickstart")
    async with running(shop.app) as http:
        response = await http.post("/users", json={"email": "ada@example.com"})
        row = await ended(client_of(shop), UUID(response.json()["job"]))
    assert (row.status, row.queue, row.max_retries) == (JobStatus.COMPLETED, "emails", 5)
    await printed(capsys, "a welcome goes to ada@example.com")


async def test_the_example_of_unique_jobs_enqueues_one_of_each_key(
    example: Callable[[str], ModuleType], connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    shop = example("unique")
    async with running(shop.app) as http:
        edits = [(await http.post("/accounts/7")).json() for _ in range(3)]
        exports = [(await http.post("/export")).json() for _ in range(2)]
        await drained(client_of(shop))
    assert edits[0]["is_new"]
    assert exports[1] == {"already": exports[0]["job"]}
    pending = "SELECT count(*) FROM litestar_jobs.scheduled JOIN litestar_jobs.job USING (id) WHERE job_type = 'index_account'"
    assert await connection.fetchval(pending) == 1


async def test_the_database_example_commits_user_and_job_together_or_neither(
    example: Callable[[str], ModuleType], connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    shop = example("with_database")
    shop.app.debug = True
    async with running(shop.app) as http:
        # Other tests of this process may have given advanced-alchemy other tables to create.
        create = CreateTable(shop.User.__table__, if_not_exists=True)
        await connection.execute(str(create.compile(dialect=postgresql.dialect())))  # type: ignore[no-untyped-call] # SQLAlchemy's
        response = await http.post("/users", json={"email": "ada@example.com"})
        assert response.status_code == 201, response.text
        assert (await http.post("/users", json={"email": "nobody@example.invalid"})).status_code == 400
        await drained(client_of(shop))
    users = await connection.fetch("SELECT email, welcomed FROM app_user")
    jobs = await connection.fetch("SELECT payload ->> 'email' AS email, status FROM litestar_jobs.jobs")
    assert [tuple(user) for user in users] == [("ada@example.com", True)]
    assert [tuple(job) for job in jobs] == [("ada@example.com", "completed")]


async def test_the_policies_of_the_retry_example_say_what_the_page_says(example: Callable[[str], ModuleType]) -> None:
    shop = example("retries")
    policy = shop.charge_card.retry
    assert policy(1, shop.CardDeclined()) is None
    assert policy(1, shop.TryLater(7)).total_seconds() == 7
    assert policy(3, OSError()).total_seconds() == 8
    assert shop.print_label.retry(1, OSError()) is None
    assert shop.refund.retry(2, shop.TryLater(7)).total_seconds() == 7
    assert shop.refund.retry(1, KeyError()) is None
    assert shop.remind.retry(1, KeyError()) is None
    assert shop.remind.retry(1, OSError()) is not None
    assert shop.refresh_stock.retry(5, OSError()).total_seconds() == 10
    assert all(1 <= shop.notify_warehouse.retry(1, OSError()).total_seconds() <= 2 for _ in range(20))
    assert shop.notify_warehouse.retry(20, OSError()).total_seconds() <= 3600


async def test_the_outcomes_example_ends_its_jobs_as_it_says(example: Callable[[str], ModuleType]) -> None:
    shop = example("outcomes")
    async with running(shop.app):
        client = client_of(shop)
        ids = [await client.enqueue(shop.ship(shop.Shipment(order))) for order in ("paid", "withdrawn", "unknown")]
        assert [(await ended(client, job_id)).status for job_id in ids] == ["completed", "cancelled", "failed"]
        later = [await client.enqueue(shop.ship(shop.Shipment(order))) for order in ("pending", "unpacked")]
        await drained(client)
        rows = [await client.get(job_id) for job_id in later]
        assert [(row.status, row.attempts) for row in rows if row] == [("pending", 1), ("pending", 0)]


async def test_the_example_of_limits_gives_its_jobs_the_times_of_its_page(
    example: Callable[[str], ModuleType], connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    shop = example("in_time")
    async with running(shop.app):
        await shop.send(client_of(shop))
        await client_of(shop).enqueue(shop.capture_payment(shop.Code("+49 30 1234")))
        await drained(client_of(shop))
    rows = await connection.fetch(
        "SELECT extract(epoch FROM expires_at - created_at)::int, extract(epoch FROM deadline_at - created_at)::int,"
        " status FROM litestar_jobs.job JOIN litestar_jobs.finished USING (id) ORDER BY id"
    )
    assert [tuple(row) for row in rows] == [(30, None, "completed"), (None, 3600, "completed")]


async def test_the_alarms_example_tells_of_the_failure(example: Callable[[str], ModuleType]) -> None:
    shop = example("alarms")
    async with running(shop.app):
        job_id = await client_of(shop).enqueue(shop.charge(shop.Order(7)))
        await ended(client_of(shop), job_id)
        await drained(client_of(shop))
    assert [f"charge {job_id} has failed: no route to the bank of order 7"] == shop.ALARMS


async def test_the_cancelling_example_stops_its_export(example: Callable[[str], ModuleType], tmp_path: Path) -> None:
    shop = example("cancelling")
    path = tmp_path / "export"
    async with running(shop.app) as http:
        export_id = (await http.post("/exports", json={"path": str(path)})).json()

        async def begun() -> bool:
            return path.exists()

        await until(begun)
        assert (await http.post(f"/exports/{export_id}/cancel")).json() is True
        assert (await ended(client_of(shop), export_id)).status == "cancelled"
        await drained(client_of(shop))
    assert len(path.read_text().splitlines()) < 10_000


async def test_the_options_example_enqueues_as_its_comments_say(example: Callable[[str], ModuleType]) -> None:
    shop = example("options")
    from litestar import Litestar

    plugin = JobsPlugin(JobsConfig(worker=None))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        rows = [await plugin.client.get(job_id) for job_id in await shop.enqueue_some(plugin.client)]
    told = [
        (row.job_type, row.queue, row.priority, round((row.run_at - row.created_at).total_seconds()))
        for row in rows
        if row
    ]
    assert told == [
        ("write_report", "reports", 10, 0),
        ("write_report", "reports", -5, 0),
        ("write_report", "reports", 10, 60),
        ("write_report", "reports", 10, 24 * 3600),
        ("write_report", "urgent", 10, 0),
        ("tidy_up", "default", 0, 0),
        ("tidy_up", "default", 0, 3600),
    ]


async def test_the_periodic_example_fires_as_its_page_says(
    example: Callable[[str], ModuleType], connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    shop = example("periodic")

    async def ran() -> str | None:
        slot: str | None = await connection.fetchval(
            "SELECT headers ->> 'slot' FROM litestar_jobs.job JOIN litestar_jobs.finished USING (id) "
            """WHERE headers ->> 'schedule' = 'write_report:world' AND payload = '{"region": "world"}' AND queue = 'reports'"""
        )
        return slot

    async with running(shop.app):
        await until(ran)
    schedules = await connection.fetch("SELECT name FROM litestar_jobs.schedule ORDER BY name")
    assert [row["name"] for row in schedules] == ["look_at_stock", "tidy_up", "write_report:us", "write_report:world"]


async def test_the_dependencies_example_fills_its_jobs_and_cleans_up(example: Callable[[str], ModuleType]) -> None:
    news = example("dependencies")
    async with running(news.app):
        await client_of(news).enqueue(news.send_newsletter(news.Newsletter("news", ["ada"])))
        await drained(client_of(news))
    assert news.app.state.outbox == ["shop@example.com: news for ada, sent by a job, 1", "connection closed"]


async def test_the_line_of_the_logging_example_names_trace_and_job(
    example: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    shop = example("logs")
    async with running(shop.app) as http:
        await http.post("/greet", headers={"x-trace-id": "trace-7"})
        await drained(client_of(shop))
    lines = await printed(capsys, "hello from the job")
    assert "INFO logs trace=trace-7 job=- type=- attempt=0 | hello from the request" in lines
    assert re.search(r"INFO logs trace=trace-7 job=[0-9a-f-]{36} type=greet attempt=1 \| hello from the job", lines)


async def test_the_queues_example_pauses_and_resumes(example: Callable[[str], ModuleType], store: Store) -> None:
    shop = example("queues")
    async with running(shop.app) as http:
        await http.post("/payments/down")
        (paused,) = await store.queue_settings()
        assert (paused.name, paused.paused_at is not None) == ("payments", True)
        job_id = await client_of(shop).enqueue(shop.charge("a card"))
        await http.post("/payments/up")
        await ended(client_of(shop), job_id)
    (resized,) = await store.queue_settings()
    assert (resized.paused_at, resized.concurrency) == (None, 2)


async def test_the_limits_example_runs_and_keeps_its_limits(
    example: Callable[[str], ModuleType], connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await connection.execute(INSTRUMENT)
    shop = example("limits")
    jobs = (shop.render, shop.bill, shop.collect, shop.refund)
    async with running(shop.app):
        await client_of(shop).enqueue_many([each(shop.Invoice(n % 2, "")) for n in range(10) for each in jobs])
        await drained(client_of(shop))
    most = await most_at_once(connection)
    assert {key for key in most if most[key]} == {"render", "bill:0", "bill:1", "bank"}
    assert all(most[key] <= limit for key, limit in {"render": 2, "bill:0": 1, "bill:1": 1, "bank": 5}.items())


async def test_the_hook_example_counts(example: Callable[[str], ModuleType]) -> None:
    shop = example("hooks")
    shop.fail.retry = Fixed(0)
    async with running(shop.app):
        await ended(client_of(shop), await client_of(shop).enqueue(shop.fail()))
    assert shop.ended == {("fail", "Retry"): 1, ("fail", "Failed"): 1}


async def test_the_page_of_failed_jobs_shows_a_failed_job(example: Callable[[str], ModuleType]) -> None:
    shop = example("job_pages")
    async with running(shop.app) as http:
        job_id = await client_of(shop).enqueue(shop.fail())
        await ended(client_of(shop), job_id)
        page = (await http.get("/jobs/failed")).json()
    assert page["total"] == 1
    assert (page["items"][0]["id"], page["items"][0]["last_error"]) == (
        str(job_id),
        "ConnectionError: the printer is on fire",
    )


async def test_the_progress_example_streams_changes_and_gives_the_result(example: Callable[[str], ModuleType]) -> None:
    """Over a real socket, as the events come."""
    shop = example("progress")
    server = uvicorn.Server(uvicorn.Config(shop.app, port=0, log_config=None, lifespan="on"))
    serving = asyncio.create_task(server.serve())
    try:
        await until(lambda: asyncio.sleep(0, server.started or serving.done()))
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url, timeout=20) as http:
            job_id = (await http.post("/reports")).json()["job"]
            async with http.stream("GET", f"/reports/{job_id}/events") as stream:
                assert stream.headers["content-type"].startswith("text/event-stream")
                lines = [line async for line in stream.aiter_lines() if line]
            seen = [(lines[n].split(": ")[1], json.loads(lines[n + 1][6:])) for n in range(0, len(lines), 2)]
            assert seen[-1] == ("completed", {"progress": None, "message": None, "result": {"pages": 5}})
            told = [news["progress"] for status, news in seen if status == "running" and news["progress"] is not None]
            assert len(told) >= 2
            assert told == sorted(told)
            assert (await http.get(f"/reports/{job_id}")).json() == {"pages": 5}
            assert (await http.get(f"/reports/{UUID(int=1)}")).status_code == 404
    finally:
        server.should_exit = True
        await serving


async def test_the_script_example_enqueues(example: Callable[[str], ModuleType], store: Store) -> None:
    shop = example("script")
    assert await shop.remind_all(range(3)) == 3
    (count,) = await store.count()
    assert (count.queue, count.status, count.jobs) == ("reminders", "pending", 3)


async def test_the_tests_of_the_testing_page_pass(example: Callable[[str], ModuleType]) -> None:
    example("quickstart")
    shown = example("test_shop")
    shown.test_what_is_asked_for()
    await shown.test_the_job_alone()
    await shown.test_the_whole_way()


async def test_the_queries_for_monitoring_run(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    await connection.execute((EXAMPLES / "monitoring.sql").read_text())


@pytest.mark.skipif(IS_PARTITIONED, reason="completed jobs wait for their partition")
async def test_the_retention_example_keeps_as_it_says(
    example: Callable[[str], ModuleType], connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    shop = example("retention")
    client = client_of(shop)
    async with running(shop.app):
        old, recent = [await client.enqueue(shop.greet("ada")) for _ in range(2)]
        await drained(client)
    old_id = UUID(bytes=(int.from_bytes(old.bytes[:6]) - 7 * 3_600_000).to_bytes(6) + old.bytes[6:])
    await connection.execute("UPDATE litestar_jobs.job SET id = $2 WHERE id = $1", old, old_id)
    await connection.execute(
        "UPDATE litestar_jobs.finished SET id = $2, finished_at = now() - interval '7 hours' WHERE id = $1", old, old_id
    )

    async def pruned() -> bool:
        return [row.id for row in await client.find(JobFilter.everything())] == [recent]

    async with running(shop.app):
        await until(pruned)


async def test_the_workflows_example_ends_as_its_page_says(example: Callable[[str], ModuleType]) -> None:
    shop = example("workflows")
    async with running(shop.app) as http:
        client = client_of(shop)
        placed = (await http.post("/orders", json={"number": 7})).json()
        assert await client.result(UUID(placed["shipment"]), of=shop.ship, timeout=10) == "parcel 7 has left"
        await drained(client)
        found = (await http.get(f"/orders/{placed['workflow']}")).json()
        assert (found["status"], found["steps"][-1]["job"]["result"]) == (
            "completed",
            {"receipt": "completed", "ship": "completed"},
        )
        closing = (await http.post("/charges", json=[{"number": 1}, {"number": 2}])).json()["closing"]
        assert await client.result(UUID(closing), timeout=10) == {"charge": "completed", "charge 2": "completed"}
        assert (await http.get(f"/orders/{UUID(int=1)}")).status_code == 404


async def test_the_operations_example_does_as_it_says(example: Callable[[str], ModuleType]) -> None:
    shop = example("operations")
    client = client_of(shop)
    async with running(shop.app) as http:
        for number in range(3):
            await client.enqueue(shop.charge(number))
        await drained(client)
        assert (await http.post("/charges/retry")).json() == {"retried": 3}
        await drained(client)
        await client.enqueue(shop.charge(4, delay=3600))
        tidied = (await http.post("/charges/tidy")).json()
    assert tidied == {"cancelled": 0, "moved": 1, "reprioritised": 1, "deleted": 0}


def rows_of(page: str, table: str) -> dict[str, str]:
    """First and second column of a list-table, without their back-quotes."""
    text = (DOCS / page).read_text(encoding="utf-8")
    _, _, rest = text.partition(f".. list-table:: {table}\n")
    assert rest, f"{page} has no table {table!r}"
    body = re.split(r"\n(?=\S)", rest, maxsplit=1)[0]
    return {
        name: value.strip("`") for name, value in re.findall(r"^   \* - ``([^`]+)``\n     - (.*)$", body, re.MULTILINE)
    }


def shown(default: object) -> str:
    if isinstance(default, timedelta):
        return f"timedelta(days={default.days})"
    if isinstance(default, float) and default.is_integer():
        return f"{default:g}"
    return f'"{default}"' if isinstance(default, str) else repr(default)


@pytest.mark.parametrize("settings", [JobsConfig, WorkerConfig, Retention])
def test_every_setting_and_its_default_is_in_the_configuration_page(settings: Any) -> None:
    told = rows_of("configuration.rst", settings.__name__)
    made = settings()
    assert told == {field.name: shown(getattr(made, field.name)) for field in dataclasses.fields(settings)} | (
        {"worker": "WorkerConfig()", "retention": "Retention()"} if settings is JobsConfig else {}
    )


def test_every_option_of_job_and_its_default_is_in_the_configuration_page() -> None:
    options = JobOptions()
    told = rows_of("configuration.rst", "@job")
    assert told.pop("name") == "the function's name"
    assert told.pop("retry") == "Exponential()"
    assert told == {
        name: shown(getattr(options, name)) for name in JobOptions.__struct_fields__ if name not in {"name", "retry"}
    }


def test_every_environment_variable_that_is_read_is_in_the_configuration_page() -> None:
    source = "".join(path.read_text() for path in Path(define.__file__).parent.rglob("*.py"))
    read = set(re.findall(r'"(LITESTAR_JOBS_[A-Z_]+|DATABASE_URL)"', source))
    assert read == set(rows_of("configuration.rst", "Environment variables"))


def test_every_error_is_in_the_tree() -> None:
    assert errors.__doc__ is not None
    assert all(name in errors.__doc__ for name in errors.__all__)


@pytest.mark.skipif(find_spec("sphinx") is None, reason="sphinx is not installed here; the docs environment has it")
@pytest.mark.timeout(300)
def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-d", str(tmp_path / "trees")]
    built = subprocess.run(
        [*command, str(DOCS), str(tmp_path / "html")], capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "html" / "index.html").exists()
