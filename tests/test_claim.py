"""Claims begin where the last one ended, and still no job is left behind, whatever is committed when."""

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from litestar_jobs.database import Database, Link
from litestar_jobs.outcome import Settlement
from litestar_jobs.request import JobRequest, NewJob
from litestar_jobs.store import LARGEST, Claimed, Lowest, Statements, Store
from litestar_jobs.worker.claim import BOUND_LIFE, Claimer

SQL = Statements("litestar_jobs")
QUEUES = ["default", "other"]

priorities = st.integers(-2, 2)
queues = st.sampled_from(QUEUES)
moves = st.one_of(
    st.tuples(st.just("enqueue"), queues, priorities),
    st.tuples(st.just("enqueue in a transaction"), queues, priorities),
    st.tuples(st.just("commit it")),
    st.tuples(st.just("claim"), st.integers(0, 1), st.integers(1, 3)),
    st.tuples(st.just("hand one back")),
    st.tuples(st.just("time passes"), st.sampled_from([0.01, 0.06, BOUND_LIFE])),
)


class Clock:
    """Turned by the test."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """Two workers' claimers, told of commits as notifications would tell them, and never polling."""

    def __init__(self, link: Link, late: "asyncpg.Connection[Any]") -> None:
        self.late = late
        self.store = Store(link.fetch, SQL)
        self.link = link
        self.clock = Clock()
        self.workers = [uuid7(), uuid7()]
        self.claimers = [Claimer(self.store, QUEUES, "{}", clock=self.clock) for _ in self.workers]
        self.claimed: list[Claimed] = []
        self.transaction: Any = None
        self.uncommitted: set[str] = set()

    async def begin(self) -> None:
        tables = ("job", "scheduled", "ready", "running", "finished", "worker")
        await self.link.run("TRUNCATE " + ", ".join(f"litestar_jobs.{table}" for table in tables))
        for worker in self.workers:
            await self.store.register(worker, "host", 1, QUEUES, 3600)

    async def move(self, kind: str, *details: Any) -> None:
        match kind, *details:
            case "enqueue", queue, priority:
                await self.store.enqueue([_new(queue, priority)])
                self.tell({queue})
            case "enqueue in a transaction", queue, priority:
                if self.transaction is None:
                    self.transaction = self.late.transaction()
                    await self.transaction.start()
                await self.late.fetch(SQL["enqueue_in_session"], *_new(queue, priority).row)
                self.uncommitted.add(queue)
            case ("commit it",):
                await self.commit()
            case "claim", worker, at_most:
                self.claimed += await self.claimers[worker].claim(self.workers[worker], at_most)
            case ("hand one back",):
                if self.claimed:
                    job = self.claimed.pop()
                    assert await self.store.settle([(job, Settlement("release"))])
                    self.tell({job.queue})
            case "time passes", seconds:
                self.clock.now += seconds

    async def commit(self) -> None:
        if self.transaction is not None:
            await self.transaction.commit()
            self.transaction = None
            self.tell(self.uncommitted)
            self.uncommitted = set()

    def tell(self, queues: set[str]) -> None:
        for claimer in self.claimers:
            claimer.warm(queues)

    async def claim_what_is_left(self) -> None:
        """The first worker claims as long as it believes that there may be something."""
        claimer, worker = self.claimers[0], self.workers[0]
        while (pause := claimer.pause()) is not None:
            self.clock.now += pause
            self.claimed += await claimer.claim(worker, 3)


def _new(queue: str, priority: int) -> NewJob:
    return NewJob(uuid7(), JobRequest(job_type="note", queue=queue, priority=priority))


def test_no_job_is_left_behind(own_loop_dsn: str) -> None:
    """Late commits, better priorities, jobs handed back: all are claimed without a poll, once everybody was told."""

    async def play(played: list[tuple[Any, ...]]) -> None:
        link, late = Link(Database(own_loop_dsn)), await asyncpg.connect(own_loop_dsn)
        try:
            scene = Scene(link, late)
            await scene.begin()
            for move in played:
                await scene.move(*move)
            await scene.commit()
            await scene.claim_what_is_left()
            assert [dict(row) for row in await late.fetch("SELECT queue, priority FROM litestar_jobs.ready")] == []
            assert len({job.id for job in scene.claimed}) == len(scene.claimed)
            assert await scene.store.strays() == []
        finally:
            await link.close()
            await late.close()

    with asyncio.Runner() as runner:

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(moves, min_size=5, max_size=40))
        def example(played: list[tuple[Any, ...]]) -> None:
            runner.run(play(played))

        example()


class LongScans(Store):
    """Scans from the beginning take twenty milliseconds, as behind very many dead entries."""

    def __init__(self, link: Link, clock: Clock) -> None:
        super().__init__(link.fetch, SQL)
        self.clock = clock
        self.scans = 0

    async def claim(
        self, slots: dict[str, int], lowest: dict[str, Lowest], worker_id: UUID, timeouts: str, largest: int = LARGEST
    ) -> list[Claimed]:
        if not lowest:
            self.scans += 1
            self.clock.now += 0.02
        return await super().claim(slots, lowest, worker_id, timeouts, largest)


async def test_scans_from_the_beginning_take_little_of_the_time(link: Link) -> None:
    """While every claim finds less than it asked for, one that takes long is repeated later: a twentieth of the time."""
    clock, worker = Clock(), uuid7()
    store = LongScans(link, clock)
    await store.register(worker, "host", 1, QUEUES, 3600)
    claimer = Claimer(store, ["default"], "{}", clock=clock)
    begun = clock.now
    while clock.now < begun + 5:
        await store.enqueue([_new("default", 0)])
        claimer.warm({"default"})
        while claimer.pause() == 0:
            await claimer.claim(worker, 10)
        clock.now += 0.01
    assert 4 <= store.scans <= 0.06 * 5 / 0.02
