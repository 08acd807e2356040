"""Events: whatever happens to a job is said once, with its id and its trace, and without what it carries."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import pytest
from litestar import Litestar
from litestar.di import NamedDependency, Provide
from msgspec import Struct
from uuid_utils.compat import uuid7

from litestar_jobs import Fixed, Job, JobContext, JobsConfig, JobsPlugin, JobStatus, Never, WorkerConfig, job
from litestar_jobs.context import current_job
from litestar_jobs.hooks import log_events
from litestar_jobs.logs import install_record_factory
from litestar_jobs.outcome import Cancelled, Completed, Failed, Failure, Interrupted, Lost, Outcome, Retry, Snoozed
from litestar_jobs.telemetry import (
    AttemptAbandoned,
    AttemptEnded,
    AttemptStarted,
    ChoreFailed,
    CleanupFailed,
    Event,
    HandlerStuck,
    Hook,
    JobLapsed,
    JobRescued,
    JobUnknown,
    LeaseEnded,
    OutcomeRefused,
    QueueLimited,
    SlotEnqueued,
    SlotsSkipped,
    StepSkipped,
    SuspectReleased,
    WorkerStarted,
    WorkerStopped,
)
from litestar_jobs.testing import ended, running, until
from litestar_jobs.trace import current_trace_id

EventT = TypeVar("EventT")

SECRET = "correct horse battery staple"


class Happened(list[Event]):
    """A hook that keeps what it hears."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    def of(self, kind: type[EventT]) -> list[EventT]:
        return [event for event in self if isinstance(event, kind)]

    async def seen(self, kind: type[EventT]) -> EventT:
        """The first event of a kind, as soon as there is one."""

        async def look() -> list[EventT]:
            return self.of(kind)

        return (await until(look, what=f"no {kind.__name__} came"))[0]


@asynccontextmanager
async def worker(
    dsn: str,
    jobs: Sequence[Job[Any, Any]],
    *hooks: Hook,
    dependencies: dict[str, Provide] | None = None,
    **settings: Any,
) -> AsyncIterator[JobsPlugin]:
    config = JobsConfig(
        dsn=dsn, jobs=jobs, hooks=hooks, dependencies=dependencies or {}, worker=WorkerConfig(**settings)
    )
    plugin = JobsPlugin(config)
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        yield plugin


class Letter(Struct):
    text: str


@job(retry=Fixed(0), max_retries=1)
async def fails(payload: Letter) -> None:
    raise ValueError("no such mailbox\nDETAIL: " + payload.text)


@job
async def works() -> None:
    pass


# Every end of an attempt is an event.


async def test_each_attempt_tells_when_it_starts_and_how_it_ended(dsn: str) -> None:
    happened = Happened()
    async with worker(dsn, [fails], happened) as plugin:
        job_id = await plugin.client.enqueue(fails(Letter(SECRET)))
        await ended(plugin.client, job_id)
    started, ends = happened.of(AttemptStarted), happened.of(AttemptEnded)
    assert [event.job.attempt for event in started] == [1, 2]
    assert [type(event.outcome) for event in ends] == [Retry, Failed]
    assert all(event.job.id == job_id and isinstance(event.error, ValueError) for event in ends)
    assert all(event.duration >= 0 for event in ends)


async def test_a_worker_tells_when_it_starts_and_when_it_has_stopped(dsn: str) -> None:
    happened = Happened()
    async with worker(dsn, [works], happened, concurrency=3):
        pass
    first, last = happened[0], happened[-1]
    assert isinstance(first, WorkerStarted)
    assert isinstance(last, WorkerStopped)
    assert (first.queues, first.concurrency, last.interrupted) == (["default"], 3, 0)
    assert first.worker_id == last.worker_id


async def test_a_payload_that_does_not_decode_is_a_failure_like_others(dsn: str) -> None:
    happened = Happened()
    async with worker(dsn, [fails], happened) as plugin:
        request = fails(Letter(""))
        job_id = await plugin.client.enqueue(type(request)(job_type="fails", payload=b'{"text": 5}'))
        await ended(plugin.client, job_id)
    (end,) = happened.of(AttemptEnded)
    assert isinstance(end.outcome, Failed)
    assert end.outcome.failure.error_type == "PayloadError"


async def test_an_interrupted_job_tells_it(dsn: str) -> None:
    happened, entered = Happened(), asyncio.Event()

    @job
    async def waits() -> None:
        entered.set()
        await asyncio.Event().wait()

    async with worker(dsn, [waits], happened, shutdown_timeout=0) as plugin:
        await plugin.client.enqueue(waits())
        await entered.wait()
    assert [type(event.outcome) for event in happened.of(AttemptEnded)] == [Interrupted]
    assert happened.of(WorkerStopped)[0].interrupted == 1


async def test_a_handler_that_does_not_end_when_cancelled_is_told_of(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litestar_jobs.worker.attend.AFTER_CANCEL", 0.05)
    happened, entered, at_last = Happened(), asyncio.Event(), asyncio.Event()

    @job
    async def stubborn() -> None:
        entered.set()
        while not at_last.is_set():
            try:
                await at_last.wait()
            except asyncio.CancelledError:
                continue

    async with worker(dsn, [stubborn], happened, shutdown_timeout=0) as plugin:
        job_id = await plugin.client.enqueue(stubborn())
        await entered.wait()
    assert [event.job_id for event in happened.of(AttemptAbandoned)] == [job_id]
    at_last.set()
    await happened.seen(AttemptEnded)


async def test_an_outcome_that_may_not_be_written_is_told_of(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """Somebody else took the job meanwhile: its token holds no more."""
    happened, entered, go_on = Happened(), asyncio.Event(), asyncio.Event()

    @job(queue="mail")
    async def is_taken() -> None:
        entered.set()
        await go_on.wait()

    async with worker(dsn, [is_taken], happened) as plugin:
        token = current_trace_id.set("t1")
        job_id = await plugin.client.enqueue(is_taken())
        current_trace_id.reset(token)
        await entered.wait()
        await connection.execute("UPDATE litestar_jobs.running SET token = nextval('litestar_jobs.token')")
        go_on.set()
        refused = await happened.seen(OutcomeRefused)
    assert refused == OutcomeRefused(job_id, "is_taken", "mail", "t1", 1, "completed")


async def test_a_job_of_an_unknown_type_is_told_of(dsn: str) -> None:
    happened = Happened()
    async with worker(dsn, [works], happened) as plugin:
        request = works()
        job_id = await plugin.client.enqueue(type(request)(job_type="of the future"))
        unknown = await happened.seen(JobUnknown)
    assert (unknown.job_id, unknown.job_type, unknown.queue) == (job_id, "of the future", "default")


@pytest.mark.parametrize(("max_retries", "was_last"), [(1, False), (0, True)])
async def test_a_job_whose_process_is_gone_is_told_of(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]", max_retries: int, *, was_last: bool
) -> None:
    happened = Happened()
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[works], worker=None))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        job_id = await plugin.client.enqueue(works(max_retries=max_retries))
    await connection.execute("DELETE FROM litestar_jobs.ready")
    await connection.execute(
        "INSERT INTO litestar_jobs.running (id, token, queue, attempt, worker_id, started_at)"
        " VALUES ($1, nextval('litestar_jobs.token'), 'default', 1, $2, now())",
        job_id,
        uuid7(),
    )
    async with worker(dsn, [works], happened) as plugin:
        rescued = await happened.seen(JobRescued)
        row = await ended(plugin.client, job_id)
    assert (rescued.job_id, rescued.attempt, rescued.was_last, rescued.overdue) == (job_id, 1, was_last, False)
    assert row.status is (JobStatus.FAILED if was_last else JobStatus.COMPLETED)


async def test_a_chore_that_fails_is_told_of_and_goes_on(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    happened = Happened()
    async with worker(dsn, [works], happened) as plugin:
        await connection.execute("ALTER TABLE litestar_jobs.ready RENAME TO elsewhere")
        plugin.worker._claims.wake()  # type: ignore[union-attr]

        async def claims_failed() -> bool:
            return any(event.chore == "claim" for event in happened.of(ChoreFailed))

        await until(claims_failed)
        await connection.execute("ALTER TABLE litestar_jobs.elsewhere RENAME TO ready")
        row = await ended(plugin.client, await plugin.client.enqueue(works()))
    assert {type(event.error) for event in happened.of(ChoreFailed)} == {asyncpg.UndefinedTableError}
    assert row.status is JobStatus.COMPLETED


async def test_a_clean_up_that_fails_after_the_failure_is_told_of(dsn: str) -> None:
    async def provide() -> AsyncIterator[int]:
        try:
            yield 5
        finally:
            raise OSError("cannot close")

    @job(retry=Never())
    async def uses(*, thing: NamedDependency[int]) -> None:
        raise ValueError("first")

    happened = Happened()
    async with worker(dsn, [uses], happened, dependencies={"thing": Provide(provide)}) as plugin:
        await ended(plugin.client, await plugin.client.enqueue(uses()))
    assert [type(event.error) for event in happened.of(CleanupFailed)] == [OSError]
    (end,) = happened.of(AttemptEnded)
    assert isinstance(end.error, ValueError)


# Hooks.


async def test_a_hook_that_raises_is_logged_and_disturbs_nobody(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    def breaks(event: Event) -> None:
        raise RuntimeError("broken hook")

    happened = Happened()
    async with worker(dsn, [fails, works], breaks, happened) as plugin:
        failed = await ended(plugin.client, await plugin.client.enqueue(fails(Letter(SECRET))))
        worked = await ended(plugin.client, await plugin.client.enqueue(works()))
    assert (failed.status, worked.status) == (JobStatus.FAILED, JobStatus.COMPLETED)
    assert {type(event) for event in happened} >= {WorkerStarted, AttemptStarted, AttemptEnded, WorkerStopped}
    complaints = [record for record in caplog.records if "broken hook" in str(record.exc_info)]
    assert len(complaints) == len(happened)
    assert "breaks" in complaints[0].getMessage()
    assert SECRET not in caplog.text


async def test_hooks_are_called_inside_of_the_job(dsn: str) -> None:
    inside: list[UUID | None] = []

    def look(event: Event) -> None:
        if isinstance(event, AttemptStarted | AttemptEnded):
            context = current_job.get()
            inside.append(None if context is None else context.id)

    async with worker(dsn, [works], look) as plugin:
        job_id = await plugin.client.enqueue(works())
        await ended(plugin.client, job_id)
    assert inside == [job_id, job_id]


# Logging them.

ID, WORKER = UUID("0199d3c5-0000-7000-8000-000000000001"), UUID("0199d3c5-0000-7000-8000-000000000002")
CONTEXT = JobContext(
    id=ID, job_type="mail", queue="q", attempt=2, max_retries=3, trace_id="t1", enqueued_at=datetime.now(UTC)
)
FAILURE = Failure("IntegrityError", f"duplicate key\nDETAIL: ({SECRET})", f"Traceback: {SECRET}")
BROKEN = ValueError(f"it broke\n{SECRET}")
MAIL = f"mail {ID} (queue q, trace t1)"


def after(outcome: Outcome, error: BaseException | None = None) -> AttemptEnded:
    return AttemptEnded(CONTEXT, outcome, 0.5, error)


SLOT = datetime(2026, 11, 24, 3, tzinfo=UTC)

OF_A_JOB: list[tuple[Event, int, str]] = [
    (
        after(Retry(FAILURE, 16), BROKEN),
        logging.WARNING,
        "attempt 2 of 4 failed, the next one is in 16.0 s: IntegrityError: duplicate key",
    ),
    (after(Failed(FAILURE), BROKEN), logging.ERROR, "failed for good at attempt 2: IntegrityError: duplicate key"),
    (after(Interrupted()), logging.WARNING, "was interrupted and handed back, uncounted"),
    (after(Lost()), logging.ERROR, "was stopped, its lease is lost; it runs or ran elsewhere"),
    (after(Snoozed(5)), logging.INFO, "waits 5 s"),
    (after(Snoozed(5, "not\nyet")), logging.INFO, "waits 5 s: 'not\\nyet'"),
    (after(Cancelled()), logging.INFO, "was cancelled"),
    (
        CleanupFailed(CONTEXT, BROKEN),
        logging.ERROR,
        "a dependency failed while it was cleaned up: ValueError: it broke",
    ),
    (
        JobUnknown(ID, "mail", "q", "t1", 5),
        logging.WARNING,
        "no job of this name is known here, it waits 5 s for a worker that knows it",
    ),
    (
        JobRescued(ID, "mail", "q", "t1", 2, was_last=False, overdue=False, suspect=False),
        logging.WARNING,
        "attempt 2 was lost with its process, so it runs again",
    ),
    (
        JobRescued(ID, "mail", "q", "t1", 2, was_last=False, overdue=False, suspect=True),
        logging.WARNING,
        "attempt 2 was lost with its process, not for the first time: it is held until no other such job runs",
    ),
    (
        SuspectReleased(ID, "mail", "q", "t1"),
        logging.WARNING,
        "was lost with its process more than once; it is its turn to run again",
    ),
    (
        JobRescued(ID, "mail", "q", "t1", 2, was_last=True, overdue=True, suspect=False),
        logging.ERROR,
        "attempt 2 ran on long after its timeout, and was the last one: failed for good",
    ),
    (
        JobLapsed(ID, "mail", "q", "t1", is_expired=True),
        logging.WARNING,
        "was not begun in time, and is cancelled",
    ),
    (
        JobLapsed(ID, "mail", "q", "t1", is_expired=False),
        logging.ERROR,
        "failed for good: its deadline was over while it waited",
    ),
    (
        OutcomeRefused(ID, "mail", "q", "t1", 2, "completed"),
        logging.WARNING,
        "attempt 2 was not recorded as completed: its job was cancelled, or its lease was lost and it runs elsewhere",
    ),
    (
        AttemptAbandoned(ID, "mail", "q", "t1", 2),
        logging.ERROR,
        "attempt 2 did not end when it was cancelled, and was handed back",
    ),
    (
        HandlerStuck(ID, "mail", "q", "t1", 2, 3),
        logging.ERROR,
        "attempt 2 is over, but its handler cannot be stopped and goes on; this process has 3 such",
    ),
    (StepSkipped(ID, "mail", "q", "t1", "step 'pay' failed"), logging.WARNING, "was cancelled: step 'pay' failed"),
]


@pytest.mark.parametrize(("event", "level", "text"), OF_A_JOB)
@pytest.mark.parametrize("where", ["inside", "outside", "without the factory"])
def test_what_happened_to_a_job_is_logged_once_with_its_id_and_trace(
    where: str, event: Event, level: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    factory = logging.getLogRecordFactory()
    token = current_job.set(CONTEXT if where == "inside" else None)
    try:
        if where != "without the factory":
            install_record_factory()
        else:
            logging.setLogRecordFactory(logging.LogRecord)
        with caplog.at_level(logging.INFO, "litestar_jobs"):
            log_events(event)
    finally:
        logging.setLogRecordFactory(factory)
        current_job.reset(token)
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (level, f"{MAIL} {text}")
    assert (record.job_id, record.trace_id, record.job_type, record.queue) == (str(ID), "t1", "mail", "q")  # type: ignore[attr-defined]
    assert SECRET not in caplog.text
    assert record.exc_info is None


@pytest.mark.parametrize(
    ("event", "level", "text"),
    [
        (WorkerStarted(WORKER, ["a", "b"], 3), logging.INFO, f"worker {WORKER} takes jobs of a, b, 3 at once"),
        (WorkerStopped(WORKER, 2), logging.INFO, f"worker {WORKER} stopped, 2 jobs handed back"),
        (
            LeaseEnded(WORKER, 2, "why"),
            logging.ERROR,
            f"worker {WORKER} lost its lease and stopped 2 jobs, others may run them: why",
        ),
        (
            ChoreFailed("claim", BROKEN, 0.1),
            logging.ERROR,
            "claim failed and will be tried again in 0.1 s: ValueError: it broke",
        ),
        (
            ChoreFailed("claim", TimeoutError(), 5),
            logging.ERROR,
            "claim failed and will be tried again in 5 s: TimeoutError",
        ),
        (
            SlotsSkipped("mail:nightly", "mail", 3, SLOT, "missed"),
            logging.WARNING,
            "schedule mail:nightly: 3 slots up to 2026-11-24T03:00:00+00:00 were missed and are not made up for",
        ),
        (
            SlotsSkipped("mail", "mail", 1, SLOT, "overlap"),
            logging.WARNING,
            "schedule mail: nothing for 2026-11-24T03:00:00+00:00, a job of it has not finished",
        ),
        (QueueLimited("a", 0), logging.INFO, "queue a is paused"),
        (QueueLimited("a", 2), logging.INFO, "queue a is limited to 2 jobs at once in this worker"),
        (QueueLimited("a\n", None), logging.INFO, r"queue 'a\n' is without a limit"),
    ],
)
def test_what_happened_to_a_worker_or_a_schedule_is_logged_once(
    event: Event, level: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "litestar_jobs"):
        log_events(event)
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [(level, text)]


@pytest.mark.parametrize(
    "event", [AttemptStarted(CONTEXT), after(Completed()), SlotEnqueued("mail", SLOT, ID, "mail", "q", "t1")]
)
def test_what_was_asked_for_is_logged_at_debug_only(event: Event, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "litestar_jobs"):
        log_events(event)
    assert caplog.records == []
    with caplog.at_level(logging.DEBUG, "litestar_jobs"):
        log_events(event)
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]


def test_the_traceback_is_there_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "litestar_jobs"):
        log_events(after(Failed(FAILURE), BROKEN))
    failed, traceback = caplog.records
    assert (failed.levelno, traceback.levelno) == (logging.ERROR, logging.DEBUG)
    assert traceback.exc_info is not None
    assert traceback.exc_info[1] is BROKEN


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("x" * 1000, "E: " + "x" * 200 + "…"),
        ("", "E"),
        ("red \x1b[31m alert", r"E: 'red \x1b[31m alert'"),
        ("first\r\nsecond", "E: first"),
        ("first\u2028second", "E: first"),
        ("grün", "E: grün"),
    ],
)
def test_of_an_error_only_a_printable_line_is_shown(message: str, shown: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "litestar_jobs"):
        log_events(after(Failed(Failure("E", message))))
    assert caplog.messages == [f"{MAIL} failed for good at attempt 2: {shown}"]


async def test_a_real_failure_leaves_its_two_lines_and_nothing_of_its_payload(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with worker(dsn, [fails]) as plugin:
            token = current_trace_id.set("t9")
            row = await ended(plugin.client, await plugin.client.enqueue(fails(Letter(SECRET))))
            current_trace_id.reset(token)
    about = [record for record in caplog.records if str(row.id) in record.getMessage()]
    assert [record.levelno for record in about] == [logging.WARNING, logging.ERROR]
    assert all("trace t9" in record.getMessage() for record in about)
    assert [record.attempt for record in about] == [1, 2]  # type: ignore[attr-defined]
    assert SECRET not in caplog.text
