"""The worker of a process: it owns the parts, the connections and every loop, and stops them in order.

What it does not do: install signal handlers, open engines, or know who started it.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from litestar_jobs.agenda import Agenda
from litestar_jobs.config import WorkerConfig
from litestar_jobs.course import Course
from litestar_jobs.database import COMMAND_TIMEOUT, Database, Link, may_have_been_written
from litestar_jobs.define import Job
from litestar_jobs.durations import seconds
from litestar_jobs.enqueue import JobsClient
from litestar_jobs.gates import Gates
from litestar_jobs.inject import Plan, SessionFactory
from litestar_jobs.outcome import Interrupted, Lost, Outcome
from litestar_jobs.select import follow_ups
from litestar_jobs.store import Claimed, Statements, Store
from litestar_jobs.telemetry import (
    Hook,
    LeaseEnded,
    ListenerDeaf,
    QueueLimited,
    Tracing,
    WorkerStarted,
    WorkerStopped,
    emitter,
)
from litestar_jobs.worker.admit import Admitter
from litestar_jobs.worker.attend import Attendant
from litestar_jobs.worker.chore import Chore
from litestar_jobs.worker.claim import Claimer
from litestar_jobs.worker.execute import Executor
from litestar_jobs.worker.finish import Finisher
from litestar_jobs.worker.fire import Firing
from litestar_jobs.worker.follow import Follower
from litestar_jobs.worker.heartbeat import RENEWALS, Heartbeat
from litestar_jobs.worker.listen import Ear
from litestar_jobs.worker.promote import Promoter
from litestar_jobs.worker.prune import Pruner
from litestar_jobs.worker.report import Reporter
from litestar_jobs.worker.rescue import Rescuer
from litestar_jobs.worker.slots import TOO_LONG, Slots
from litestar_jobs.worker.ways import OwnSessions, check_way

__all__ = ("Worker",)

logger = logging.getLogger("litestar_jobs")

NEVER = float("inf")
WAY = 0.2
"""Seconds for which others go first, where one may know a job that this worker does not."""
MOST_UNWRITTEN = 5_000
"""Outcomes that may wait for the database before no more jobs are claimed."""


class Worker:
    """Takes jobs of some queues and runs them, from :meth:`start` to :meth:`stop`."""

    def __init__(  # noqa: PLR0913 - the parts of a worker
        self,
        config: WorkerConfig,
        database: Database,
        statements: Statements,
        *,
        listens_at: Database | None,
        largest: int,
        jobs: Mapping[str, Job[Any, Any]],
        plans: Mapping[str, Plan],
        constants: Mapping[str, Any],
        sessions: Mapping[str, SessionFactory],
        client: JobsClient,
        tracing: Tracing,
        hooks: Sequence[Hook],
        keep: Mapping[str, float],
    ) -> None:
        self.queues = list(config.queues or dict.fromkeys(job.queue for job in jobs.values()) or ["default"])
        self._config = config
        self._jobs = jobs
        self._database = database
        self._listens_at = listens_at
        self._largest = largest
        self._sql = statements
        self._sessions = {name: sessions[name] for plan in plans.values() for name in plan.sessions}
        self._client = client
        self._emit = emitter(hooks)
        self._keep = keep
        self._lease = seconds(config.lease, "lease")
        self._poll = seconds(config.poll_interval, "poll_interval")
        self._executor = Executor(jobs, plans, constants, tracing=tracing, emit=self._emit, statements=statements)
        self._follow_ups = follow_ups(jobs)
        self._timeouts = msgspec.json.encode(
            {name: job.timeout for name, job in jobs.items() if job.timeout is not None}
        ).decode()

    async def start(self) -> None:
        """Begin to work. If something fails, all that was begun is undone."""
        async with AsyncExitStack() as undo:
            self._make(undo)
            undo.push_async_callback(self._leave)
            await self._renew_identity()
            await self._own_sessions.find(self._known_as)
            if self._listens_at is not None:
                await check_way(self._chores.fetch, self._sql, self._known_as, self._listens_at)
            await self._promoter.step()  # opens the connection that listens
            undo.callback(self._client.listen(self._hear, self._hear_cancelled))
            for chore in (self._finisher, self._follower, self._reporter, *self._beside, self._watches, self._claims):
                chore.start()
            self._undo = undo.pop_all()
        self._emit(WorkerStarted(self._known_as, self.queues, self._config.concurrency))

    def _make(self, undo: AsyncExitStack) -> None:
        """The parts, and the connections that they will open."""
        emit, hear, lease = self._emit, self._hear, self._lease
        ear = Ear(
            self._sql.channel,
            hear,
            watched=self._hear_watched,
            gated=self._hear_gated,
            cancelled=self._hear_cancelled,
            opened=self._hear_nothing,
            broken=self._hear_elsewhere,
            deaf=lambda: emit(ListenerDeaf(self._poll)),
        )
        timeout = min(lease, COMMAND_TIMEOUT)
        claims = Link(self._database, timeout=timeout, planned_once=True)
        finishes, prunes = Link(self._database, timeout=timeout), Link(self._database)
        # The connection that listens is used by the chores too, so it cannot die without being noticed.
        chores = self._chores = Link(self._listens_at or self._database, timeout=timeout, on_open=ear.on_open)
        for link in (prunes, chores, finishes, claims):
            undo.push_async_callback(link.close)
        undo.callback(self._executor.close)
        store, writes = Store(chores.fetch, self._sql), Store(finishes.fetch, self._sql)
        self._claims_store = Store(claims.fetch, self._sql)
        self._claimer = Claimer(self._claims_store, self.queues, self._timeouts, largest=self._largest)
        self._reporter = Reporter(store, emit)
        changed, follow_ups = self._changed, self._follow_ups
        self._follower = Follower(Course(chores, self._sql), hear, emit, changed, lease)
        self._finisher = Finisher(writes, hear, emit, changed, follow_ups=follow_ups, ended=self._follower.finished)
        self._slots = Slots(self._config.concurrency, self._executor.run, self._ended, report=self._reporter.progress)
        self._attendant = Attendant(
            store,
            self._slots,
            self._executor,
            self._finisher,
            changed=changed,
            emit=emit,
            hears=lambda: ear.hears,
            pause=lease / RENEWALS,
        )
        self._admitter = Admitter(Gates(chores.fetch, self._sql), self._jobs, emit)
        self._promoter = Promoter(store, self._poll, self._limit, self._admitter.found)
        unpaused, ended = self._claimer.unpaused, self._follower.ended
        self._rescuer = Rescuer(store, unpaused, lease, emit, follow_ups=follow_ups, ended=ended)
        schedules = [schedule for job in self._jobs.values() for schedule in job.schedules]
        firing = Firing(Agenda(chores.fetch, self._sql), schedules, hear, emit)
        self._claims = Chore("claim", self._claim, emit)
        self._promotes = Chore("promote", self._promoter.step, emit)
        self._leases = Chore("lease", self._renew_identity, emit)
        self._watches = Chore("watch", self._attendant.step, emit)
        self._beside = (
            Chore("prune", Pruner(prunes, self._sql, self._keep, emit).step, emit),
            Chore("fire", firing.step, emit),
            self._promotes,
            self._admitter,
            Chore("rescue", self._rescue, emit),
            Chore("listen", lambda: ear.check(writes.echo), emit),
            self._leases,
        )
        self._heartbeat: Heartbeat | None = None
        self._hands_back_at = NEVER
        self._own_sessions = OwnSessions(self._sessions, self._sql, self._executor.own_sessions)
        self._stopping = False

    @property
    def worker_id(self) -> UUID | None:
        """Under which this process is registered; None while it has no lease."""
        return self._heartbeat.worker_id if self._heartbeat else None

    async def stop(self, timeout: float | None = None) -> None:
        """Stop in stages: claim nothing more; let running jobs end, for ``timeout`` seconds (``shutdown_timeout``);
        cancel the others and hand them back, uncounted; write all outcomes; leave."""
        self._stopping = True
        await self._claims.stop()
        interrupted = self._give_back(self._slots.take_back())
        if timeout is None:
            timeout = seconds(self._config.shutdown_timeout, "shutdown_timeout")
        ended = await self._slots.let_end(timeout)
        await self._watches.stop()
        if not ended:
            interrupted += await self._attendant.interrupt()
        self._attendant.free()
        for chore in self._beside:
            await chore.stop()
        await self._finisher.stop()
        await self._follower.stop()
        await self._reporter.stop()
        await self._undo.aclose()
        self._emit(WorkerStopped(self._known_as, interrupted))

    def hurry(self) -> None:
        """Stop without patience: running jobs are cancelled and handed back now."""
        self._slots.hurry()

    # The chores. Each answers when it wants to run next.

    async def _claim(self) -> float:
        if self._slots.waiting_too_long():
            self._give_back(self._slots.take_back())
        worker_id = self.worker_id
        if worker_id is None or self._finisher.backlog >= MOST_UNWRITTEN:
            return TOO_LONG
        if self._claimer.pause() is None:
            self._claimer.warm()  # nobody told of a job for as long as it takes to look without being told
        if time.monotonic() >= self._hands_back_at:
            await self._hand_back_unheard(worker_id)
        while self._claimer.pause() == 0 and not self._stopping and (room := self._slots.room()):
            limits = self._claimer.limits
            try:
                claimed = await self._claimer.claim(worker_id, room)
            except BaseException as error:
                if isinstance(error, asyncio.CancelledError) or may_have_been_written(error):
                    self._hands_back_at = time.monotonic()
                raise
            if worker_id != self.worker_id or limits is not self._claimer.limits:  # no longer as it was asked for
                self._give_back(claimed)
                return 0.0
            self._slots.add(claimed)
            self._reporter.changed(job.id for job in claimed)
        pause = self._claimer.pause()
        next_claim = self._poll if pause is None else min(self._poll, pause) or TOO_LONG
        return min(next_claim, max(0.001, self._hands_back_at - time.monotonic()))

    async def _hand_back_unheard(self, worker_id: UUID) -> None:
        """A claim went unanswered: whatever it took goes back. The server may still be at it, for as long as somebody
        holds a lock, so from then on this is asked again and again, until this worker id is given up."""
        moved = await self._claims_store.hand_back(worker_id, [*self._slots.tokens, *self._finisher.tokens])
        self._hands_back_at = time.monotonic() + self._lease / RENEWALS
        if moved:
            self._claimer.warm()
            ids = ", ".join(map(str, moved))
            logger.warning("a claim went unanswered; the jobs that it took go back, uncounted: %s", ids)

    async def _rescue(self) -> float:
        await self._own_sessions.find(self._known_as)
        return await self._rescuer.step()

    async def _renew_identity(self) -> float:
        """Have a lease: the first one, and a new one after it was lost."""
        if self._heartbeat is None:
            heartbeat = Heartbeat(self._database, self._sql, uuid7(), self._lease)
            await heartbeat.start(self.queues, self._lost)
            self._heartbeat = heartbeat
            self._known_as = heartbeat.worker_id
            self._hands_back_at = NEVER
            self._hear_nothing()
        return self._lease

    # What the parts tell.

    def _hear(self, ready: set[str], due_in: float | None) -> None:
        """Jobs were committed, here or elsewhere: some may run, the next one in so many seconds."""
        if ready and self._executor.gives_way():
            asyncio.get_running_loop().call_later(WAY, self._hear, ready, None)
        elif ready and self._claimer.warm(ready):
            self._claims.wake()
        if due_in is not None and self._promoter.hear(due_in):
            self._promotes.wake()

    def _hear_watched(self, ids: list[UUID]) -> None:
        self._reporter.watched(ids)

    def _hear_gated(self, kind: str, key: str) -> None:
        self._admitter.told(kind, key)

    def _changed(self, some: Iterable[UUID]) -> None:
        """The ends of these are written."""
        self._reporter.changed(ids := list(some))
        self._admitter.changed(ids)

    def _hear_cancelled(self, tokens: list[int] | None = None) -> None:
        """These jobs, or some, were cancelled."""
        if self._attendant.hint(tokens):
            self._watches.wake()

    def _limit(self, limits: Mapping[str, int]) -> None:
        """Queues may be paused, resumed or resized. What was claimed ahead under another limit goes back."""
        if changed := self._claimer.limit(limits, self._slots.by_queue):
            self._give_back(self._slots.take_back(changed))
            self._claims.wake()
        for queue in changed:
            self._emit(QueueLimited(queue, limits.get(queue)))

    def _hear_nothing(self) -> None:
        """Notifications may have been missed."""
        self._claimer.warm()
        self._claims.wake()
        self._hear(set(), 0.0)
        self._hear_cancelled()

    def _hear_elsewhere(self) -> None:
        """The connection that listened is dead: promoting opens another one."""
        self._chores.drop()
        self._promotes.wake()

    def _ended(self, job: Claimed, outcome: Outcome) -> None:
        self._admitter.ending(job, outcome)
        self._finisher.put(job, outcome)
        if self._slots.room() and self._claimer.pause() == 0:
            self._claims.wake()

    def _lost(self, reason: str) -> None:
        """The lease ended: stop everything before others may start it."""
        heartbeat, self._heartbeat = self._heartbeat, None
        if heartbeat is None:
            return
        self._give_back(self._slots.take_back())
        jobs = self._slots.cancel(Lost())
        self._emit(LeaseEnded(heartbeat.worker_id, jobs, reason))
        if not self._stopping:
            self._leases.wake()

    # The parts of starting and stopping.

    def _give_back(self, jobs: Sequence[Claimed]) -> int:
        """These have not begun: they go back as they came. Their tokens hold until somebody rescues them."""
        for job in jobs:
            self._finisher.put(job, Interrupted())
        return len(jobs)

    async def _leave(self) -> None:
        if self._heartbeat is not None:
            await self._heartbeat.stop()
