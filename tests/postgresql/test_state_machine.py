"""Random sequences of moves against a small model: every job is where the model says, and in exactly one table.

The moves are the store's own statements, on a real PostgreSQL. Time passes where a rule makes it pass.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from uuid_utils.compat import uuid7

from litestar_jobs.database import Database, Link
from litestar_jobs.filter import JobFilter
from litestar_jobs.outcome import Failure, Settlement
from litestar_jobs.request import JobRequest, NewJob
from litestar_jobs.store import Claimed, Statements, Store

T = TypeVar("T")
QUEUES = ["default", "other"]
PENDING = ("scheduled", "ready", "held")
HOUR = 3600.0
TABLES = ("job", "scheduled", "ready", "held", "running", "finished", "failure", "worker", "suspect")


class Expected:
    """What the model knows of a job."""

    def __init__(self, queue: str, max_retries: int, priority: int, state: str) -> None:
        self.queue = queue
        self.max_retries = max_retries
        self.priority = priority
        self.state = state
        self.attempts = 0
        self.failures = 0
        self.losses = 0
        self.snoozes = 0
        self.token: int | None = None
        self.worker: UUID | None = None


class Late:
    """A transaction that has written and is still open: a job that somebody enqueues, or finishes, with their own."""

    def __init__(self, dsn: str) -> None:
        self.link = Link(Database(dsn))
        self.store = Store(self.link.fetch, Statements("litestar_jobs"))
        self.writes: Callable[[], None] | None = None
        """What is so once it commits."""
        self.locks: UUID | None = None
        """The running job that it has in its hands: others skip it, or would wait."""


class Moves(RuleBasedStateMachine):
    """Two workers, which may die, lose their lease without knowing it, or start anew; and an operator. What any worker
    ever claimed it may try to write at any time: it may be a zombie by then."""

    dsn: str
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.link = Link(Database(self.dsn))
        self.store = Store(self.link.fetch, Statements("litestar_jobs"))
        self.jobs: dict[UUID, Expected] = {}
        self.workers = [uuid7(), uuid7()]
        self.dead: set[UUID] = set()
        self.claimed: list[Claimed] = []
        self.tokens: set[int] = set()
        self.released: UUID | None = None
        self.late = Late(self.dsn)
        self.run(self.link.run("; ".join(f"DELETE FROM litestar_jobs.{table}" for table in TABLES)))
        for worker in self.workers:
            self.run(self.store.register(worker, "host", 1, QUEUES, HOUR))

    def run(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.run(self.late.link.close())
        self.run(self.link.close())
        self.loop.close()

    @initialize()
    def begin(self) -> None:
        for queue in QUEUES:
            self.enqueue(queue, later=False, priority=0, max_retries=9, count=2)

    def some(self, *states: str) -> list[UUID]:
        """The jobs in these states. Rules that need some wait for them: a move that finds nothing tells nothing."""
        return sorted(job_id for job_id, job in self.jobs.items() if job.state in states)

    @rule(
        queue=st.sampled_from(QUEUES),
        later=st.booleans(),
        priority=st.integers(-1, 1),
        max_retries=st.integers(0, 2),
        count=st.integers(1, 3),
    )
    def enqueue(self, queue: str, later: bool, priority: int, max_retries: int, count: int) -> None:  # noqa: FBT001
        request = JobRequest(
            job_type="note", queue=queue, priority=priority, max_retries=max_retries, delay=3600 if later else None
        )
        jobs = [NewJob(uuid7(), request) for _ in range(count)]
        self.run(self.store.enqueue(jobs))
        for job in jobs:
            self.jobs[job.id] = Expected(queue, max_retries, priority, "scheduled" if later else "ready")

    @precondition(lambda self: self.some("ready"))
    @rule(target=claims, queue=st.sampled_from(QUEUES), slots=st.integers(1, 3), worker=st.integers(0, 1))
    def claim(self, queue: str, slots: int, worker: int) -> Any:
        claimed = self.run(self.store.claim({queue: slots}, {}, self.workers[worker], "{}"))
        if self.workers[worker] in self.dead:
            assert claimed == []
            return multiple()
        ready = [job for job in self.jobs.values() if job.state == "ready" and job.queue == queue]
        assert len(claimed) == min(slots, len(ready))
        best = sorted(job.priority for job in ready)[: len(claimed)]
        assert [job.priority for job in claimed] == best, "lower priorities first"
        for job in claimed:
            expected = self.jobs[job.id]
            assert expected.state == "ready"
            assert job.attempt == expected.attempts + 1
            assert job.token not in self.tokens, "a token is never given twice"
            assert job.snoozes == expected.snoozes
            self.tokens.add(job.token)
            expected.state, expected.token, expected.attempts = "running", job.token, job.attempt
            expected.worker = self.workers[worker]
        self.claimed += claimed
        return multiple(*claimed)

    def holds(self, job: Claimed) -> bool:
        """Whether the model says that this claim still has the right to write."""
        return self.jobs[job.id].state == "running" and self.jobs[job.id].token == job.token

    def is_free(self, job: Claimed) -> bool:
        """Whether nobody would wait for the open transaction."""
        return self.late.locks != job.id

    def zombies(self) -> list[Claimed]:
        return [
            job
            for job in self.claimed
            if self.jobs[job.id].state == "running" and not self.holds(job) and self.is_free(job)
        ]

    @rule(job=claims)
    def complete(self, job: Claimed) -> None:
        if not self.is_free(job):
            return
        moved = self.run(self.store.complete([job]))
        assert bool(moved) == self.holds(job), "the token is the right to write"
        if moved:
            self.jobs[job.id].state = "completed"

    @rule(
        job=claims,
        verdict=st.sampled_from(["failed", "cancelled", "retry", "release", "snooze"]),
        delay=st.sampled_from([0.0, 3600.0]),
    )
    def settle(self, job: Claimed, verdict: Any, delay: float) -> None:
        if not self.is_free(job):
            return
        failure = Failure("ValueError", "no", None) if verdict in ("failed", "retry") else None
        moved = self.run(self.store.settle([(job, Settlement(verdict, delay, failure))]))
        assert bool(moved) == self.holds(job), "the token is the right to write"
        if not moved:
            return
        expected = self.jobs[job.id]
        expected.failures += failure is not None
        if verdict in ("failed", "cancelled"):
            expected.state = verdict
        else:
            expected.state = "scheduled" if delay else "ready"
            expected.attempts -= verdict in ("release", "snooze")
            expected.snoozes += verdict == "snooze"

    @rule(jobs=st.lists(claims, min_size=2, max_size=4))
    def complete_together(self, jobs: list[Claimed]) -> None:
        jobs = [job for job in jobs if self.is_free(job)]
        held = {job.id for job in jobs if self.holds(job)}
        assert self.run(self.store.complete(jobs)) == held
        for job_id in held:
            self.jobs[job_id].state = "completed"

    @precondition(lambda self: self.some("scheduled"))
    @rule()
    def time_passes(self) -> None:
        self.run(self.link.run("UPDATE litestar_jobs.scheduled SET run_at = run_at - interval '2 h'"))

    @precondition(lambda self: self.some("scheduled"))
    @rule(at_most=st.integers(1, 5))
    def promote(self, at_most: int) -> None:
        due = self.run(self.link.fetch("SELECT id FROM litestar_jobs.scheduled WHERE run_at <= now()"))
        moved, next_due, *_ = self.run(self.store.promote(at_most))
        assert moved == min(at_most, len(due))
        assert next_due is None or next_due > 0
        for row in self.run(self.link.fetch("SELECT id FROM litestar_jobs.ready")):
            self.jobs[row["id"]].state = "ready"

    @precondition(lambda self: self.some("running"))
    @rule(worker=st.integers(0, 1))
    def lose_heartbeat(self, worker: int) -> None:
        """A process does not renew in time, and does not know it yet. It claims nothing, and cannot renew."""
        self.run(self.store.renew(self.workers[worker], 0))
        assert not self.run(self.store.renew(self.workers[worker], HOUR)), "an ended lease is not renewed"
        assert not self.run(self.store.claim(dict.fromkeys(QUEUES, 5), {}, self.workers[worker], "{}"))
        self.dead.add(self.workers[worker])

    @precondition(lambda self: self.dead & set(self.workers))
    @rule(worker=st.integers(0, 1), politely=st.booleans())
    def restart(self, worker: int, politely: bool) -> None:  # noqa: FBT001
        """A process takes the place of another, which left, or was never heard of again."""
        before, self.workers[worker] = self.workers[worker], uuid7()
        if politely:
            self.run(self.store.deregister(before))
            self.dead.add(before)
        self.run(self.store.register(self.workers[worker], "host", 1, QUEUES, HOUR))

    @precondition(lambda self: self.some("running"))
    @rule(worker=st.integers(0, 1))
    def interrupt(self, worker: int) -> None:
        """A worker stops: all that it has goes back as it came, and it leaves."""
        mine = [
            job
            for job in self.claimed
            if self.holds(job) and self.is_free(job) and self.jobs[job.id].worker == self.workers[worker]
        ]
        if mine:
            assert len(self.run(self.store.settle([(job, Settlement("release")) for job in mine]))) == len(mine)
        for job in mine:
            self.jobs[job.id].state = "ready"
            self.jobs[job.id].attempts -= 1
        self.restart(worker, politely=True)

    @precondition(lambda self: self.some("running") and self.dead)
    @rule()
    def rescue(self) -> None:
        lost = {
            job_id
            for job_id, job in self.jobs.items()
            if job.state == "running" and job.worker in self.dead and job_id != self.late.locks
        }
        rescued = self.run(self.store.rescue(HOUR))
        assert {job.id for job in rescued} == lost
        for job in rescued:
            expected = self.jobs[job.id]
            assert job.was_last == (expected.attempts > expected.max_retries)
            assert job.suspect == (not job.was_last and expected.losses > 0)
            expected.state = "failed" if job.was_last else "held" if job.suspect else "ready"
            expected.failures += 1
            expected.losses += 1

    @precondition(lambda self: self.some("running"))
    @rule(worker=st.integers(0, 1))
    def die(self, worker: int) -> None:
        """All of this at once, so that it happens often."""
        self.lose_heartbeat(worker)
        self.restart(worker, politely=False)
        self.rescue()

    @precondition(lambda self: self.zombies())
    @rule(data=st.data(), completes=st.booleans())
    def write_as_a_zombie(self, data: st.DataObject, completes: bool) -> None:  # noqa: FBT001
        """A worker that has lost a job ends it, while another one runs it."""
        job = data.draw(st.sampled_from(self.zombies()))
        if completes:
            assert not self.run(self.store.complete([job])), "the token is the right to write"
        else:
            assert not self.run(self.store.settle([(job, Settlement("failed"))])), "the token is the right to write"

    @precondition(lambda self: self.some("held"))
    @rule(queue=st.sampled_from(QUEUES))
    def release(self, queue: str) -> None:
        """The next suspect runs, if the one before neither waits nor runs any more."""
        waiting = [
            (job.priority, job_id) for job_id, job in self.jobs.items() if job.state == "held" and job.queue == queue
        ]
        others = self.released is not None and self.jobs[self.released].state in ("ready", "running")
        waited, suspect = self.run(self.store.release([queue], HOUR))
        assert waited == bool(waiting)
        assert (suspect is not None) == (waited and not others)
        if suspect is not None:
            assert self.jobs[suspect.id].priority == min(waiting)[0]
            self.jobs[suspect.id].state = "ready"
            self.released = suspect.id

    @precondition(lambda self: self.late.writes is None)
    @rule(job=claims)
    def begin_to_finish(self, job: Claimed) -> None:
        """The job's own transaction has finished it, and commits later."""
        self.run(self.late.link.fetch("BEGIN"))
        moved = self.run(self.late.store.complete([job]))
        assert bool(moved) == self.holds(job), "the token is the right to write"
        self.late.locks = job.id if moved else None

        def completed() -> None:
            if moved:
                self.jobs[job.id].state = "completed"

        self.late.writes = completed

    @precondition(lambda self: self.late.writes is None)
    @rule(queue=st.sampled_from(QUEUES), priority=st.integers(-1, 1))
    def begin_to_enqueue(self, queue: str, priority: int) -> None:
        """A job is enqueued with somebody's transaction, which commits later: until then there is none."""
        self.run(self.late.link.fetch("BEGIN"))
        job = NewJob(uuid7(), JobRequest(job_type="note", queue=queue, priority=priority, max_retries=1))
        self.run(self.late.store.enqueue([job]))

        def enqueued() -> None:
            self.jobs[job.id] = Expected(queue, 1, priority, "ready")

        self.late.writes = enqueued

    @precondition(lambda self: self.late.writes is not None)
    @rule(commits=st.booleans())
    def end_late(self, commits: bool) -> None:  # noqa: FBT001
        writes, self.late.writes, self.late.locks = self.late.writes, None, None
        self.run(self.late.link.fetch("COMMIT" if commits else "ROLLBACK"))
        if commits and writes is not None:
            writes()

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Whether it waits or runs; then its token is void at once."""
        job_id = data.draw(st.sampled_from(sorted(self.jobs)))
        if job_id == self.late.locks:
            return  # it would wait
        moved = self.run(self.store.cancel(job_id))
        assert moved == (self.jobs[job_id].state in (*PENDING, "running"))
        if moved:
            self.jobs[job_id].state = "cancelled"

    @precondition(lambda self: self.some(*PENDING, "running"))
    @rule(count=st.integers(1, 4))
    def cancel_many(self, count: int) -> None:
        """What a transaction has in its hands is skipped."""
        ids = self.some(*PENDING, "running")[:count]
        moved = self.run(self.store.cancel_many(ids)).keys()
        assert moved == set(ids) - {self.late.locks}
        for job_id in moved:
            self.jobs[job_id].state = "cancelled"

    @precondition(lambda self: self.claimed)
    @rule()
    def look_for_void_tokens(self) -> None:
        """A worker learns which of its tokens are void, and why."""
        void = self.run(self.store.void(self.claimed))
        assert void == {
            job.token: self.jobs[job.id].state == "cancelled" for job in self.claimed if not self.holds(job)
        }

    @precondition(lambda self: self.some("failed", "cancelled"))
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.jobs)))
        queue = self.run(self.store.retry(job_id))
        expected = self.jobs[job_id]
        assert (queue is not None) == (expected.state in ("failed", "cancelled"))
        if queue is not None:
            assert queue == expected.queue
            expected.state, expected.attempts, expected.snoozes = "ready", 0, 0

    @invariant()
    def every_job_is_in_exactly_one_table(self) -> None:
        assert self.run(self.store.strays()) == []

    @invariant()
    def every_job_is_where_the_model_says(self) -> None:
        for row in self.run(self.store.find(JobFilter.everything(), 10_000)):
            expected = self.jobs[row.id]
            assert row.status == ("pending" if expected.state in PENDING else expected.state)
            assert row.attempts == expected.attempts
        failures = self.run(self.link.fetch("SELECT count(*) AS n FROM litestar_jobs.failure"))[0]["n"]
        assert failures == sum(job.failures for job in self.jobs.values())


def test_moves_agree_with_the_model(own_loop_dsn: str) -> None:
    class OnThisDatabase(Moves):
        dsn = own_loop_dsn

    run_state_machine_as_test(
        OnThisDatabase,
        settings=settings(
            max_examples=50, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
