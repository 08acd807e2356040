"""Between steps 2 and 3, admit: jobs that wait for their limit or their rate may be claimed when it is their turn.

Every worker does this, for all queues, and none leads. A gate is visited when somebody tells of a job that waits at it, when
a job ends here that had one of its slots, and when its next start is due. What nobody tells of (a job was cancelled, a
process is gone) is found by walking from gate to gate, about once a second while jobs wait. Walks go on where the last one
stopped, so that each gate has its turn. While there are no such jobs there is no statement.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from litestar_jobs.define import Job
from litestar_jobs.gates import BEGINNING, Gate, Gates, Visited
from litestar_jobs.outcome import Lost, Outcome
from litestar_jobs.store import Claimed
from litestar_jobs.telemetry import Event
from litestar_jobs.worker.chore import Chore

__all__ = ("Admitter",)

AT_ONCE = 200
"""Gates of one statement that it is given, and that it walks to; and ..."""
ENDED_AT_ONCE = 1_000
"""... jobs that ended."""
BREATHER = 3.0
"""The pause after a statement, in times of what it took; and ..."""
WALK_BREATHER = 19.0
"""... after one that walked."""
WALK_PAUSE, CALM_PAUSE = 1.0, 10.0
"""Seconds between two walks at the least, while jobs wait at gates, and while there are only gates."""
SKIPPED_PAUSE = 0.005
"""Seconds until a gate is visited again that somebody else was at."""
MOST_DUE = 10_000
"""Gates whose next start is kept in mind; to others somebody walks."""
NEVER = float("inf")
NOT_BEFORE_WOKEN = 3600.0


class Admitter:
    """Knows which gates to visit, and when."""

    def __init__(
        self,
        gates: Gates,
        jobs: Mapping[str, Job[Any, Any]],
        emit: Callable[[Event], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gates = gates
        self._clock = clock
        self._chore = Chore("admit", self.step, emit)
        self.start, self.stop = self._chore.start, self._chore.stop
        numbers = {name: job.gating.numbers for name, job in jobs.items() if job.gating is not None}
        self._rules = msgspec.json.encode(numbers).decode()
        self._limited = frozenset(name for name, (concurrency, *_) in numbers.items() if concurrency is not None)
        """Jobs whose ends make room for others."""
        self._ending: set[UUID] = set()
        """Those that have run here and whose ends are being written, and ..."""
        self._ended: set[UUID] = set()
        """... those whose ends are written."""
        self._due: dict[Gate, float] = {}
        """Gates to visit, and when."""
        self._rests_until = 0.0
        self._walk_at = 0.0 if numbers else NEVER
        self._place = BEGINNING
        self._pause = NEVER
        """Until the next walk, as far as this one has seen."""

    def ending(self, job: Claimed, outcome: Outcome) -> None:
        """A job has run here. Nothing is written of one that was lost."""
        if job.job_type in self._limited and not isinstance(outcome, Lost):
            self._ending.add(job.id)

    def changed(self, ids: Iterable[UUID]) -> None:
        """The ends of these are written."""
        if self._ending and (ended := self._ending.intersection(ids)):
            self._ending -= ended
            self._ended |= ended
            self._chore.wake()

    def told(self, kind: str, key: str) -> None:
        """Jobs wait there."""
        self._due[kind, key] = 0.0
        self._chore.wake()

    def found(self) -> None:
        """Jobs wait, somewhere."""
        if self._walk_at > self._clock() + WALK_PAUSE:
            self._walk_at = 0.0
            self._chore.wake()

    async def step(self) -> float:
        """Visit what is due. Answers in how many seconds something is next, as far as is known."""
        now = self._clock()
        due = dict.fromkeys([gate for gate, when in self._due.items() if when <= now][:AT_ONCE])
        ended = list(self._ended)[:ENDED_AT_ONCE]
        walks = self._walk_at <= now
        if now >= self._rests_until and (due or ended or walks):
            # What is told of meanwhile may have been committed too late for the statement to see it.
            self._due = {gate: when for gate, when in self._due.items() if gate not in due}
            self._ended.difference_update(ended)
            try:
                visited = await self._gates.admit(due, ended, self._place if walks else None, AT_ONCE, self._rules)
            except BaseException:
                self._due |= dict.fromkeys(due, now)
                self._ended.update(ended)
                raise
            self._note(visited, walks=walks, begun=now)
        return self._next() - self._clock()

    def _note(self, visited: Sequence[Visited], *, walks: bool, begun: float) -> None:
        now = self._clock()
        for each in visited:
            if each.again_in is not None and len(self._due) < MOST_DUE:
                self._due.setdefault(each.gate, now + max(each.again_in, SKIPPED_PAUSE))
        self._rests_until = now + (now - begun) * BREATHER
        if visited:
            self._pause = min(self._pause, WALK_PAUSE if any(each.waits for each in visited) else CALM_PAUSE)
        if not walks:
            self._walk_at = min(self._walk_at, now + self._pause)
            return
        behind = [each for each in visited if each.is_behind]
        breather = (now - begun) * WALK_BREATHER
        if len(behind) >= AT_ONCE:
            self._place, self._walk_at = behind[-1].gate, now + breather
        else:
            self._place, self._walk_at, self._pause = BEGINNING, now + max(self._pause, breather), NEVER

    def _next(self) -> float:
        pending = 0.0 if self._ended else min(self._due.values(), default=NEVER)
        return max(self._rests_until, min(pending, self._walk_at, self._clock() + NOT_BEFORE_WOKEN))
