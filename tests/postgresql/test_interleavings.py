"""Two moves of one job at the same time, and three: all of them, each at the moment that matters.

The first statement has been executed in a transaction that is still open; the second one starts then, and either answers
at once or is seen to wait for the first; then the first commits or rolls back. Whatever happens, each move that says it
moved the job has, each that says it did not has changed nothing, and the job is where these moves bring it in one order
or another.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from itertools import permutations
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import pytest
from litestar import Litestar
from uuid_utils.compat import uuid7

from conftest import database
from litestar_jobs import JobRequest, JobsConfig, JobsPlugin
from litestar_jobs.outcome import Failure, Settlement
from litestar_jobs.records import Walk
from litestar_jobs.request import NewJob
from litestar_jobs.store import Claimed, Statements, Store
from litestar_jobs.testing import running, until

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

QUEUE, HOUR = "default", 3600.0
SQL = Statements("litestar_jobs")
EMPTY = ", ".join(
    f"litestar_jobs.{table}"
    for table in ("job", "scheduled", "ready", "held", "running", "finished", "failure", "worker", "suspect")
)


class State(NamedTuple):
    """Where the job is, as far as the moves care."""

    place: str
    attempts: int
    failures: int = 0
    token: int = 0
    """0 is that of the first worker's claim, which all writes of it have; 1 that of a claim since."""


class Arena:
    """One job, the claim that somebody has on it or had, and connections for who moves it."""

    def __init__(self, dsn: str, admin: Connection, connections: list[Connection]) -> None:
        self.dsn = dsn
        self.admin = admin
        self.connections = connections
        self.stores = [Store(connection.fetch, SQL) for connection in connections]
        self.first, self.second = uuid7(), uuid7()
        """Workers; the second one lives."""

    async def begin(self, start: str) -> None:
        """The job, alone in the world, in its first state."""
        await self.admin.execute(f"DELETE FROM {EMPTY.replace(', ', '; DELETE FROM ')}")
        store = self.stores[0]
        self.job_id = uuid7()
        for worker in (self.first, self.second):
            await store.register(worker, "host", 1, [QUEUE], HOUR)
        request = JobRequest(job_type="note", queue=QUEUE, max_retries=0 if start == "lost at last" else 9)
        await store.enqueue([NewJob(self.job_id, request)])
        (self.claimed,) = await store.claim({QUEUE: 1}, {}, self.first, "{}")
        self.successor: Claimed | None = None
        match start:
            case "scheduled":
                await store.settle([(self.claimed, Settlement("retry", delay=1))])
                await self.admin.execute("UPDATE litestar_jobs.scheduled SET run_at = now() - interval '1 s'")
            case "ready":
                await store.settle([(self.claimed, Settlement("retry"))])
            case "failed":
                await store.settle([(self.claimed, Settlement("failed"))])
            case "lost" | "lost at last":
                await store.renew(self.first, 0)
            case "taken over":
                await store.renew(self.first, 0)
                await store.rescue(HOUR)
                (self.successor,) = await store.claim({QUEUE: 1}, {}, self.second, "{}")
            case "lost again" | "held":
                await store.renew(self.first, 0)
                await store.rescue(HOUR)
                await store.register(self.first, "host", 1, [QUEUE], HOUR)
                (self.claimed,) = await store.claim({QUEUE: 1}, {}, self.first, "{}")
                await store.renew(self.first, 0)
                if start == "held":
                    await store.rescue(HOUR)
        await self.admin.execute("UPDATE litestar_jobs.job SET deadline_at = now() - interval '1 s'")

    async def state(self) -> State:
        assert await self.stores[0].strays() == []
        rows = await self.admin.fetch(
            "SELECT 'scheduled' AS place, attempts, NULL::bigint AS token FROM litestar_jobs.scheduled "
            "UNION ALL SELECT 'ready', attempts, NULL FROM litestar_jobs.ready "
            "UNION ALL SELECT 'held', attempts, NULL FROM litestar_jobs.held "
            "UNION ALL SELECT 'running', attempt, token FROM litestar_jobs.running "
            "UNION ALL SELECT status, attempts, NULL FROM litestar_jobs.finished"
        )
        (row,) = rows
        failures = await self.admin.fetchval("SELECT count(*) FROM litestar_jobs.failure")
        fresh = row["token"] not in {None, self.claimed.token}
        return State(row["place"], row["attempts"], failures, int(fresh))

    async def waits(self, pid: int, awaited: asyncio.Future[Any]) -> bool:
        """Whether a statement waits for another one's transaction, as soon as that or its answer is there."""

        async def look() -> bool:
            return awaited.done() or bool(await self.admin.fetchval("SELECT pg_blocking_pids($1) <> '{}'", pid))

        await until(look)
        return not awaited.done()


Move: TypeAlias = Callable[[Store, Arena], Awaitable[object]]
Rule: TypeAlias = Callable[[State, str], State | None]


async def claim(store: Store, arena: Arena) -> list[Claimed]:
    return await store.claim({QUEUE: 1}, {}, arena.second, "{}")


async def promote(store: Store, arena: Arena) -> int:
    return (await store.promote(10))[0]


async def finish(store: Store, arena: Arena) -> set[UUID]:
    return await store.complete([arena.claimed])


async def finish_after_all(store: Store, arena: Arena) -> set[UUID]:
    """By the worker that took the job over."""
    return await store.complete([arena.successor]) if arena.successor else set()


async def fail_once(store: Store, arena: Arena) -> set[UUID]:
    return await store.settle([(arena.claimed, Settlement("retry", 0, Failure("ValueError", "no")))])


async def hand_back(store: Store, arena: Arena) -> set[UUID]:
    return await store.settle([(arena.claimed, Settlement("release"))])


async def rescue(store: Store, arena: Arena) -> object:
    return await store.rescue(HOUR)


async def cancel(store: Store, arena: Arena) -> bool:
    return await store.cancel(arena.job_id)


async def cancel_many(store: Store, arena: Arena) -> object:
    return await store.cancel_many([arena.job_id])


async def retry(store: Store, arena: Arena) -> str | None:
    return await store.retry(arena.job_id)


async def lapse(store: Store, arena: Arena) -> object:
    return (await store.lapse(Walk(), 10))[0]


async def release(store: Store, arena: Arena) -> object:
    return (await store.release([QUEUE], HOUR))[1]


def _rescued(state: State, start: str) -> State | None:
    if state.place != "running" or state.token or not start.startswith("lost"):
        return None
    place = {"lost": "ready", "lost again": "held", "lost at last": "failed"}[start]
    return state._replace(place=place, failures=state.failures + 1)


def _cancelled(state: State, _: str) -> State | None:
    is_over = state.place in {"completed", "failed", "cancelled"}
    return None if is_over else state._replace(place="cancelled", token=0)


def _holds(state: State) -> bool:
    return state.place == "running" and state.token == 0


MOVES: dict[Move, Rule] = {
    promote: lambda at, _: at._replace(place="ready") if at.place == "scheduled" else None,
    claim: lambda at, _: (
        at._replace(place="running", attempts=at.attempts + 1, token=1) if at.place == "ready" else None
    ),
    finish: lambda at, _: at._replace(place="completed") if _holds(at) else None,
    finish_after_all: lambda at, start: (
        at._replace(place="completed", token=0) if start == "taken over" and at.place == "running" else None
    ),
    fail_once: lambda at, _: at._replace(place="ready", failures=at.failures + 1) if _holds(at) else None,
    hand_back: lambda at, _: at._replace(place="ready", attempts=at.attempts - 1) if _holds(at) else None,
    rescue: _rescued,
    cancel: _cancelled,
    cancel_many: _cancelled,
    retry: lambda at, _: at._replace(place="ready", attempts=0) if at.place in {"failed", "cancelled"} else None,
    lapse: lambda at, _: (
        at._replace(place="failed", failures=at.failures + 1) if at.place in {"scheduled", "ready", "held"} else None
    ),
    release: lambda at, _: at._replace(place="ready") if at.place == "held" else None,
}
"""Each move, and what it makes of a state; None where it does not apply."""

STARTS = {
    "scheduled": State("scheduled", 1),
    "ready": State("ready", 1),
    "running": State("running", 1),
    "lost": State("running", 1),
    "taken over": State("running", 2, 1, token=1),
    "lost again": State("running", 2, 1),
    "lost at last": State("running", 1),
    "held": State("held", 2, 2),
    "failed": State("failed", 1),
}

FIRST = [(start, first) for start in STARTS for first, rule in MOVES.items() if rule(STARTS[start], start) is not None]

ENDS: set[Move] = {finish, fail_once, hand_back, cancel}
CANCELS: tuple[Move, ...] = (cancel, cancel_many)
WAITS: dict[tuple[str, Move], set[Move]] = {
    ("scheduled", promote): {cancel},
    ("ready", claim): {cancel},
    **{(start, first): {cancel} for start in ("scheduled", "ready", "held") for first in (lapse, *CANCELS)},
    **{
        (start, first): ENDS
        for start in ("running", "lost", "lost again", "lost at last")
        for first in (finish, fail_once, hand_back, *CANCELS)
    },
    **{(start, rescue): ENDS for start in ("lost", "lost again", "lost at last")},
    **{("taken over", first): {finish_after_all, cancel} for first in (finish_after_all, *CANCELS)},
    ("held", release): {cancel},
    ("failed", retry): {retry},
}
"""Which moves wait for which. All others answer at once: claims, promotions, rescues and releases skip what is locked, and
so does what is done to many jobs."""


def reachable(start: str, moved: Iterable[Move]) -> set[State]:
    """Where these moves bring the job, in whatever order they all apply."""
    ends = set()
    for order in permutations(moved):
        state: State | None = STARTS[start]
        for move in order:
            state = None if state is None else MOVES[move](state, start)
        if state is not None:
            ends.add(state)
    return ends


@pytest.fixture(scope="module")
async def arena(server_dsn: str, template: str) -> AsyncIterator[Arena]:
    name = f"arena_{uuid4().hex}"
    root = await asyncpg.connect(server_dsn)
    await root.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    admin, *connections = [await asyncpg.connect(database(server_dsn, name)) for _ in range(4)]
    yield Arena(database(server_dsn, name), admin, connections)
    for connection in (admin, *connections):
        await connection.close()
    await root.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await root.close()


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("second", MOVES)
@pytest.mark.parametrize(("start", "first"), FIRST)
async def test_two_moves_at_once(arena: Arena, start: str, first: Move, second: Move, end: str) -> None:
    await arena.begin(start)
    assert await arena.state() == STARTS[start]
    one, two, _ = arena.connections
    transaction = one.transaction()
    await transaction.start()
    assert await first(arena.stores[0], arena)
    answer = asyncio.ensure_future(second(arena.stores[1], arena))
    waited = await arena.waits(two.get_server_pid(), answer)
    await (transaction.commit() if end == "commit" else transaction.rollback())
    moved = [first] if end == "commit" else []
    if await answer:
        moved.append(second)
    assert await arena.state() in reachable(start, moved)
    assert waited == (second in WAITS[start, first])


WAITING = [(start, first, second) for (start, first), waiting in WAITS.items() for second in MOVES if second in waiting]


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("third", MOVES)
@pytest.mark.parametrize(("start", "first", "second"), WAITING)
async def test_a_third_move_while_one_waits_for_another(  # noqa: PLR0913, PLR0917 - three moves and how they end
    arena: Arena, start: str, first: Move, second: Move, third: Move, end: str
) -> None:
    await arena.begin(start)
    one, two, three = arena.connections
    transaction = one.transaction()
    await transaction.start()
    assert await first(arena.stores[0], arena)
    answers = [asyncio.ensure_future(second(arena.stores[1], arena))]
    assert await arena.waits(two.get_server_pid(), answers[0])
    answers.append(asyncio.ensure_future(third(arena.stores[2], arena)))
    await arena.waits(three.get_server_pid(), answers[1])
    await (transaction.commit() if end == "commit" else transaction.rollback())
    moved = [first] if end == "commit" else []
    moved += [move for move, answer in zip((second, third), answers, strict=True) if await answer]
    assert await arena.state() in reachable(start, moved)


BETWEEN: dict[Move, str] = {promote: "scheduled", release: "held", claim: "ready", fail_once: "running", rescue: "lost"}


@pytest.mark.parametrize("between", BETWEEN)
async def test_a_cancel_that_meets_a_job_on_its_way_finds_it_where_it_went(arena: Arena, between: Move) -> None:
    """It has not ended before nor after, so the answer cannot be that it has."""
    await arena.begin(BETWEEN[between])
    plugin = JobsPlugin(JobsConfig(dsn=arena.dsn, jobs=[], worker=None))
    async with running(Litestar(plugins=[plugin], logging_config=None)):
        (row,) = await plugin.client._control.fetch("SELECT pg_backend_pid() AS pid")
        async with arena.connections[0].transaction():
            assert await between(arena.stores[0], arena)
            cancelled = asyncio.ensure_future(plugin.client.cancel(arena.job_id))
            assert await arena.waits(row["pid"], cancelled)
        assert await cancelled
        assert not await plugin.client.cancel(arena.job_id), "it has ended"
    assert (await arena.state()).place == "cancelled"
