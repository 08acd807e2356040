"""Gates, as the statements have them: random moves against the rule, and many at once.

However jobs move, no more of a key are on their way than its limit says, and whoever may go goes.
"""

import asyncio
import random
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from uuid_utils.compat import uuid7

from limited import INSTRUMENT, TABLES, Connection, most_at_once, starts, too_close, wait_at
from litestar_jobs.database import SETTINGS, Database
from litestar_jobs.gates import BEGINNING, Gates
from litestar_jobs.outcome import Failure, Settlement
from litestar_jobs.records import Walk
from litestar_jobs.request import Limited
from litestar_jobs.store import Claimed, Statements, Store

T = TypeVar("T")
SQL = Statements("litestar_jobs")
HOUR = 3600.0

SELDOM = Limited(None, "seldom", None, 1, HOUR)
KINDS = {
    "one": Limited("one", None, 1),
    "three": Limited("three", None, 3),
    "rated": Limited("rated", "seldom", 2, 1, HOUR),
    "seldom": SELDOM,
    "free": None,
}


class Moves(RuleBasedStateMachine):
    """Jobs of some keys, workers that may die, and an operator."""

    dsn: str

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.connection = self.run(Database(self.dsn).connect())
        self.store = Store(self.connection.fetch, SQL)
        self.gates = Gates(self.connection.fetch, SQL)
        self.claimed: dict[UUID, Claimed] = {}
        tables = ["seen", *(f"litestar_jobs.{table}" for table in TABLES)]
        self.run(self.connection.execute("; ".join(f"DELETE FROM {table}" for table in tables)))
        self.worker = uuid7()
        self.run(self.store.register(self.worker, "host", 1, ["default"], HOUR))

    def run(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        self.run(self.connection.close())
        self.loop.close()

    def fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        return self.run(self.connection.fetch(sql, *arguments))

    def all_ids(self) -> list[UUID]:
        return [row["id"] for row in self.fetch("SELECT id FROM litestar_jobs.job ORDER BY id")]

    def some_running(self) -> list[Claimed]:
        running = {row["token"] for row in self.fetch("SELECT token FROM litestar_jobs.running")}
        return [job for job in self.claimed.values() if job.token in running]

    @rule(
        kind=st.sampled_from(sorted(KINDS)),
        count=st.integers(1, 3),
        priority=st.integers(-1, 1),
        retries=st.integers(0, 3),
    )
    def enqueue(self, kind: str, count: int, priority: int, retries: int) -> None:
        limited = KINDS[kind]
        if limited is None:
            return
        self.run(wait_at(self.connection, limited, count, priority=priority, max_retries=retries))

    @rule(gate=st.sampled_from([("limit", "one"), ("limit", "three"), ("limit", "rated"), ("rate", "seldom")]))
    def admit(self, gate: tuple[str, str]) -> None:
        """Whoever may go goes, and nobody who waits comes before one that went."""
        before = self.waiting(gate)
        self.run(self.gates.admit([gate], [], None, 0, "{}"))
        left = self.waiting(gate)
        went = [row for row in before if row not in left]
        assert went == before[: len(went)], "in order"
        if gate[0] == "limit":
            assert not left or self.on_their_way(gate[1]) == {"one": 1, "three": 3, "rated": 2}[gate[1]], (
                "no room is lost"
            )

    def waiting(self, gate: tuple[str, str]) -> list[UUID]:
        sql = "SELECT id FROM litestar_jobs.held WHERE reason = $1 AND key = $2 ORDER BY priority, run_at, id"
        return [row["id"] for row in self.fetch(sql, *gate)]

    def on_their_way(self, key: str) -> int:
        sql = """
            SELECT count(*) AS n FROM litestar_jobs.limited WHERE limit_key = $1 AND (
                id IN (SELECT id FROM litestar_jobs.ready UNION ALL SELECT id FROM litestar_jobs.running
                       UNION ALL SELECT id FROM litestar_jobs.held WHERE reason = 'rate'))
        """
        count: int = self.fetch(sql, key)[0]["n"]
        return count

    @rule(at_most=st.integers(1, 3))
    def walk(self, at_most: int) -> None:
        """From gate to gate, in slices: each is visited once, and after the last one nobody is left who may go."""
        place, visited = BEGINNING, []
        while True:
            behind = [each for each in self.run(self.gates.admit([], [], place, at_most, "{}")) if each.is_behind]
            visited += [each.gate for each in behind]
            if len(behind) < at_most:
                break
            place = behind[-1].gate
        assert visited == sorted(set(visited))
        for key, most in (("one", 1), ("three", 3), ("rated", 2)):
            assert not self.waiting(("limit", key)) or self.on_their_way(key) == most

    @rule(slots=st.integers(1, 4))
    def claim(self, slots: int) -> None:
        claimed = self.run(self.store.claim({"default": slots}, {}, self.worker, "{}"))
        self.claimed |= {job.id: job for job in claimed}

    @precondition(lambda self: self.some_running())
    @rule(data=st.data(), visits=st.booleans())
    def complete(self, data: st.DataObject, visits: bool) -> None:  # noqa: FBT001
        job = data.draw(st.sampled_from(self.some_running()))
        assert self.run(self.store.complete([job]))
        if visits:
            self.run(self.gates.admit([], [job.id], None, 0, "{}"))

    @precondition(lambda self: self.some_running())
    @rule(
        data=st.data(),
        verdict=st.sampled_from(["failed", "cancelled", "retry", "release"]),
        delay=st.sampled_from([0.0, HOUR]),
    )
    def settle(self, data: st.DataObject, verdict: Any, delay: float) -> None:
        job = data.draw(st.sampled_from(self.some_running()))
        failure = Failure("ValueError", "no", None) if verdict in ("failed", "retry") else None
        assert self.run(self.store.settle([(job, Settlement(verdict, delay, failure))]))

    @precondition(lambda self: self.some_running())
    @rule()
    def hand_back(self) -> None:
        self.run(self.store.hand_back(self.worker, []))

    @rule()
    def time_passes(self) -> None:
        """An hour, as far as what waits for later and what counts for a time can tell."""
        self.fetch("UPDATE litestar_jobs.scheduled SET run_at = run_at - interval '1 h'")
        self.fetch(
            "UPDATE litestar_jobs.pass SET passed_at = passed_at - interval '1 h', started_at = started_at - interval '1 h'"
        )
        for table in ("running", "finished"):
            self.fetch(f"UPDATE litestar_jobs.{table} SET started_at = started_at - interval '1 h'")
        self.fetch("UPDATE litestar_jobs.failure SET failed_at = failed_at - interval '1 h'")
        self.fetch("UPDATE seen SET at = at - interval '1 h'")
        self.run(self.store.promote(100))

    @precondition(lambda self: self.some_running())
    @rule()
    def die(self) -> None:
        self.run(self.store.renew(self.worker, 0))
        self.worker = uuid7()
        self.run(self.store.register(self.worker, "host", 1, ["default"], HOUR))
        self.run(self.store.rescue(HOUR))

    @rule()
    def release(self) -> None:
        self.run(self.store.release(["default"], HOUR))

    @precondition(lambda self: self.all_ids())
    @rule(data=st.data(), what=st.sampled_from(["cancel", "retry", "cancel_many", "retry_many", "move", "delete"]))
    def operate(self, data: st.DataObject, what: str) -> None:
        ids = data.draw(st.lists(st.sampled_from(self.all_ids()), min_size=1, max_size=3, unique=True))
        match what:
            case "cancel":
                self.run(self.store.cancel(ids[0]))
            case "retry":
                self.run(self.store.retry(ids[0]))
            case "cancel_many":
                self.run(self.store.cancel_many(ids))
            case "retry_many":
                self.run(self.store.retry_many(ids, ["failed", "cancelled"]))
            case "move":
                self.run(self.store.move_many(ids, None, 1))
            case _:
                self.run(self.store.delete_many(ids, ["completed", "failed", "cancelled"]))

    @invariant()
    def no_more_are_on_their_way_than_the_limit_says(self) -> None:
        for key, most in (("one", 1), ("three", 3), ("rated", 2)):
            assert self.on_their_way(key) <= most

    @invariant()
    def no_more_start_than_the_rate_says(self) -> None:
        """Within the hour that is now, with those who may start at any moment."""
        sql = """
            SELECT count(*) AS n FROM litestar_jobs.limited JOIN (
                SELECT id FROM litestar_jobs.ready
                UNION ALL SELECT id FROM seen WHERE what = 'start' AND at > now() - interval '1 h') AS begun USING (id)
             WHERE rate_key = 'seldom'
        """
        assert self.fetch(sql)[0]["n"] <= 1

    @invariant()
    def nobody_is_ready_without_passes(self) -> None:
        sql = """
            SELECT l.id FROM litestar_jobs.limited l
             WHERE l.id IN (SELECT id FROM litestar_jobs.ready UNION ALL SELECT id FROM litestar_jobs.running)
               AND (l.limit_key IS NOT NULL AND NOT EXISTS (
                        SELECT FROM litestar_jobs.pass p WHERE p.id = l.id AND p.reason = 'limit' AND p.key = l.limit_key)
                    OR l.rate_key IS NOT NULL AND NOT EXISTS (SELECT FROM litestar_jobs.pass p WHERE p.id = l.id AND p.reason = 'rate')
                       AND NOT EXISTS (SELECT FROM litestar_jobs.running r WHERE r.id = l.id AND r.started_at < now() - interval '1 h'))
        """
        assert self.fetch(sql) == []

    @invariant()
    def every_job_is_in_exactly_one_table(self) -> None:
        assert self.run(self.store.strays()) == []
        lost = "SELECT id FROM litestar_jobs.limited WHERE NOT EXISTS (SELECT FROM litestar_jobs.job WHERE job.id = limited.id)"
        assert self.fetch(lost) == []


def test_moves_keep_the_rule(own_loop_dsn: str) -> None:
    class OnThisDatabase(Moves):
        dsn = own_loop_dsn

    asyncio.run(_instrument(own_loop_dsn))

    run_state_machine_as_test(
        OnThisDatabase,
        settings=settings(
            max_examples=40, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


async def _instrument(dsn: str) -> None:
    connection = await Database(dsn).connect()
    await connection.execute(INSTRUMENT)
    await connection.close()


class Actor:
    """A worker with a connection of its own that does one thing after another, and may die with what it has."""

    def __init__(self, connection: Connection, dice: random.Random) -> None:
        self.connection = connection
        self.store = Store(connection.fetch, SQL)
        self.gates = Gates(connection.fetch, SQL)
        self.dice = dice
        self.worker = uuid7()
        self.has: list[Claimed] = []

    async def begin(self) -> None:
        self.worker, self.has = uuid7(), []
        await self.store.register(self.worker, "host", 1, ["default"], HOUR)

    async def live(self, steps: int) -> None:
        await self.begin()
        for _ in range(steps):
            await self.dice.choice((self.admit, self.admit, self.claim, self.end, self.end, self.disturb))()
        for job in self.has:
            await self.store.complete([job])
        await self.store.deregister(self.worker)

    async def admit(self) -> None:
        gates = [("limit", "one"), ("limit", "three"), ("rate", "quick"), ("limit", "rated")]
        self.dice.shuffle(gates)
        await self.gates.admit(gates[: self.dice.randint(0, 4)], [], self.dice.choice([BEGINNING, None]), 10, "{}")

    async def claim(self) -> None:
        self.has += await self.store.claim({"default": 2}, {}, self.worker, "{}")

    async def end(self) -> None:
        if not self.has:
            return await self.claim()
        job = self.has.pop(self.dice.randrange(len(self.has)))
        match self.dice.randrange(5):
            case 0:
                await self.store.settle([(job, Settlement("retry", self.dice.choice([0.0, 0.01]), Failure("E", "no")))])
            case 1:
                await self.store.settle([(job, Settlement("release"))])
            case _:
                await self.store.complete([job])
                await self.gates.admit([], [job.id], None, 0, "{}")
        return None

    async def disturb(self) -> None:
        match self.dice.randrange(6):
            case 0:  # it dies
                await self.store.renew(self.worker, 0)
                await self.begin()
            case 1:
                await self.store.rescue(HOUR)
            case 2:
                await self.store.hand_back(self.worker, [job.token for job in self.has])
            case 3:
                ids = [row["id"] for row in await self.connection.fetch("SELECT id FROM litestar_jobs.ready LIMIT 2")]
                await self.store.cancel_many(ids)
                await self.store.retry_many(ids, ["cancelled"])
            case 4:
                await self.store.release(["default"], HOUR)
            case _:
                await self.store.promote(100)


# What a start is. Of the rate, one an hour: whether the next job may go tells whether the one before it counts.


async def let_one_through(connection: Connection) -> tuple[Actor, UUID]:
    actor = Actor(connection, random.Random(0))
    await actor.begin()
    first, _ = await wait_at(connection, SELDOM, 2)
    assert await may_start(actor) == [first]
    return actor, first


async def may_start(actor: Actor) -> list[UUID]:
    await actor.gates.admit([("rate", "seldom")], [], None, 0, "{}")
    return [row["id"] for row in await actor.connection.fetch("SELECT id FROM litestar_jobs.ready")]


async def take_away(actor: Actor, job_id: UUID, how: str) -> None:
    match how:
        case "cancel":
            assert await actor.store.cancel(job_id)
        case "cancel many":
            assert await actor.store.cancel_many([job_id])
        case "lapse":
            await actor.connection.execute("UPDATE litestar_jobs.job SET deadline_at = now() WHERE id = $1", job_id)
            assert (await actor.store.lapse(Walk(), 10))[0]
        case _:
            change = msgspec.json.encode([{"id": job_id, "delay": HOUR, "replace": False}]).decode()
            assert await actor.connection.fetch(SQL["change_pending"], change, None)


@pytest.mark.parametrize("how", ["cancel", "cancel many", "lapse", "reschedule"])
@pytest.mark.parametrize("verdict", ["retry", "release", "lost"])
async def test_an_attempt_counts_whatever_becomes_of_its_job(connection: Connection, verdict: Any, how: str) -> None:
    actor, first = await let_one_through(connection)
    (claimed,) = await actor.store.claim({"default": 1}, {}, actor.worker, "{}")
    if verdict == "lost":
        await actor.store.renew(actor.worker, 0)
        assert await actor.store.rescue(HOUR)
    else:
        failure = Failure("E", "no") if verdict == "retry" else None
        assert await actor.store.settle([(claimed, Settlement(verdict, 0.0, failure))])
    await take_away(actor, first, how)
    assert await may_start(actor) == []


@pytest.mark.parametrize("how", ["cancel", "cancel many", "lapse", "reschedule"])
async def test_a_job_that_is_taken_away_before_it_begins_is_no_start(connection: Connection, how: str) -> None:
    actor, first = await let_one_through(connection)
    await take_away(actor, first, how)
    assert len(await may_start(actor)) == 1


# Many at once.


@pytest.mark.parametrize("seed", range(4))
async def test_many_at_once_never_let_one_too_many_through(direct_dsn: str, connection: Connection, seed: int) -> None:
    """Eight workers that admit, run, fail, cancel and die, as fast as they can."""
    dice = random.Random(seed)
    per = timedelta(seconds=0.05)
    await connection.execute(INSTRUMENT)
    for limited, count in (
        (Limited("one", None, 1), 150),
        (Limited("three", None, 3), 150),
        (Limited(None, "quick", None, 4, per.total_seconds()), 50),
        (Limited("rated", "quick", 2, 4, per.total_seconds()), 50),
    ):
        await wait_at(connection, limited, count, max_retries=50)
    connections = [await asyncpg.connect(direct_dsn, server_settings=SETTINGS) for _ in range(8)]
    actors = [Actor(each, random.Random(dice.random())) for each in connections]
    await asyncio.gather(*(actor.live(150) for actor in actors))

    most = await most_at_once(connection)
    assert (most["one"], most["three"]) == (1, 3)
    assert most.get("rated", 0) <= 2
    begun = await starts(connection, "quick")
    assert len(begun) > 4
    assert too_close(begun, 4, per) == []
    store = Store(connection.fetch, SQL)
    assert await store.strays() == []
    await _run_all(actors[0])
    assert await connection.fetchval("SELECT count(*) FROM litestar_jobs.held") == 0, "and nobody is left behind"
    assert too_close(await starts(connection, "quick"), 4, per) == []
    for each in connections:
        await each.close()


async def _run_all(actor: Actor) -> None:
    await actor.begin()
    async with asyncio.timeout(60):
        while not await _all_over(actor):
            await actor.store.rescue(HOUR)
            await actor.store.release(["default"], HOUR)
            await actor.store.promote(1_000)
            await actor.gates.admit([], [], BEGINNING, 100, "{}")
            for job in await actor.store.claim({"default": 100}, {}, actor.worker, "{}"):
                assert await actor.store.complete([job])


async def _all_over(actor: Actor) -> bool:
    return not any(count.status in {"pending", "running"} for count in await actor.store.count())
