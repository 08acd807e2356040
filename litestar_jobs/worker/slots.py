"""The slots of a worker: so many jobs run at once, and a few more are at hand.

Short jobs end faster than a claim takes, so some must be waiting here; a slow job must never keep claimed jobs waiting
while another worker is idle. So as many are claimed ahead as ended in the last moment: some milliseconds' worth of
work, none when jobs are slow; and what waits too long goes back.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Container, Coroutine, Iterable, Mapping
from contextvars import copy_context
from typing import Any

from litestar_jobs.context import Report, current_report
from litestar_jobs.outcome import Outcome
from litestar_jobs.store import Claimed
from litestar_jobs.worker.attempt import Attempt

__all__ = ("TOO_LONG", "Prefetch", "Slots")

HORIZON = 0.02
"""Seconds of work to have at hand."""
WINDOW = 0.05
"""Seconds over which the rate is taken."""
PER_SLOT = 30
MOST = 1_000
"""Jobs at hand at the most, for each slot and in all."""
FEWEST_WORTHWHILE = 2
TOO_LONG = 0.1
"""Seconds without a free slot after which jobs at hand go back."""


class Prefetch:
    """How many jobs to have at hand, from the rate at which jobs end."""

    def __init__(self, concurrency: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = min(MOST, PER_SLOT * concurrency)
        self._clock = clock
        self._since = clock()
        self._ended = 0
        self.size = 0

    def ended(self) -> None:
        """A job ended."""
        self._ended += 1

    def adapt(self) -> int:
        """The size from now on, once a window is over."""
        now = self._clock()
        elapsed = now - self._since
        if elapsed >= WINDOW:
            size = int(self._ended / elapsed * HORIZON)
            self.size = min(size, self._most) if size >= FEWEST_WORTHWHILE else 0
            self._since, self._ended = now, 0
        return self.size


class Slots:
    """Runs each job in a task with a context of its own. Owns these tasks."""

    def __init__(
        self,
        concurrency: int,
        execute: Callable[[Attempt], Coroutine[Any, Any, Outcome]],
        ended: Callable[[Claimed, Outcome], None],
        *,
        report: Report | None = None,
    ) -> None:
        """``ended`` is told of each outcome, after its slot is free, and ``report`` of progress."""
        self._concurrency = concurrency
        self._execute = execute
        self._ended = ended
        self._prefetch = Prefetch(concurrency)
        self._running: set[Attempt] = set()
        self._hurried = False
        self._patience: asyncio.Timeout | None = None
        self._at_hand: deque[Claimed] = deque()
        self._last_start = time.monotonic()
        self._loop = asyncio.get_running_loop()
        # Jobs run in the context that the worker was started in, never in that of a request.
        self._context = copy_context()
        self._context.run(current_report.set, report)

    @property
    def running(self) -> int:
        """How many jobs run at this moment."""
        return len(self._running)

    @property
    def tokens(self) -> list[int]:
        """Those of the jobs that run or are at hand."""
        return [claimed.token for claimed in self._here()]

    def room(self) -> int:
        """How many jobs to claim now: 0 while enough are at hand."""
        ahead = self._prefetch.adapt()
        if len(self._at_hand) > ahead // 2:
            return 0
        return max(0, self._concurrency + ahead - len(self._running) - len(self._at_hand))

    def add(self, jobs: Iterable[Claimed]) -> None:
        """Run these, as slots are free."""
        self._at_hand.extend(jobs)
        self._fill()

    def by_queue(self) -> Counter[str]:
        """How many jobs of each queue run or are at hand."""
        return Counter(claimed.queue for claimed in self._here())

    def take_back(self, queues: Container[str] | None = None) -> list[Claimed]:
        """The jobs at hand (of these queues) that have not begun, and now will not."""
        jobs = [job for job in self._at_hand if queues is None or job.queue in queues]
        self._at_hand = deque(job for job in self._at_hand if queues is not None and job.queue not in queues)
        return jobs

    def waiting_too_long(self) -> bool:
        """Whether jobs at hand have seen no free slot for a while."""
        return bool(self._at_hand) and time.monotonic() - self._last_start > TOO_LONG

    @property
    def open(self) -> list[Claimed]:
        """The jobs whose end is not in sight: at hand, or running and neither stopped nor about to commit."""
        return [*(attempt.claimed for attempt in self._running if _is_open(attempt)), *self._at_hand]

    def cancel(self, outcome: Outcome) -> int:
        """Cancel what runs and can be cancelled; each job gets this outcome. Answers how many."""
        open_ones = [attempt for attempt in self._running if _is_open(attempt)]
        for attempt in open_ones:
            self._cancel(attempt, outcome)
        return len(open_ones)

    def stop(self, outcomes: Mapping[int, Outcome]) -> None:
        """Cancel those of the open attempts that have an outcome here, by token. Jobs at hand are forgotten."""
        self._at_hand = deque(claimed for claimed in self._at_hand if claimed.token not in outcomes)
        for attempt in self._running:
            if _is_open(attempt) and (outcome := outcomes.get(attempt.claimed.token)) is not None:
                self._cancel(attempt, outcome)

    def _cancel(self, attempt: Attempt, outcome: Outcome) -> None:
        attempt.stopped_with = outcome
        attempt.until = self._loop.time()
        if attempt.task is not None:
            attempt.task.cancel()

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs. False if something still does after the time."""
        if not self._running:
            return True
        tasks = [attempt.task for attempt in self._running if attempt.task is not None]
        _, pending = await asyncio.wait(tasks, timeout=timeout)
        return not pending

    async def let_end(self, timeout: float) -> bool:
        """Wait until nothing runs, for as long as there is time: until somebody is in a hurry. Whether it is so."""
        try:
            async with asyncio.timeout(0 if self._hurried else timeout) as self._patience:
                return await self.wait()
        except TimeoutError:
            return False
        finally:
            self._patience = None

    def hurry(self) -> None:
        """There is no more time for anything to end by itself."""
        self._hurried = True
        if self._patience is not None and not self._patience.expired():
            self._patience.reschedule(0)

    def silent(self) -> list[Attempt]:
        """Attempts whose tasks have ended and could not say so."""
        return [attempt for attempt in self._running if attempt.task is not None and attempt.task.done()]

    def overdue(self, grace: float) -> list[Attempt]:
        """Attempts that were seen, so many seconds ago or more, to run on after they were cancelled. To be asked often:
        the first look only notices them."""
        now = self._loop.time()
        late = [attempt for attempt in self._running if attempt.until is not None and attempt.until < now]
        for attempt in late:
            if attempt.overdue_since is None:
                attempt.overdue_since = now
        return [attempt for attempt in late if now - (attempt.overdue_since or now) >= grace]

    def end(self, attempt: Attempt, outcome: Outcome) -> None:
        """The attempt has this outcome and its slot is free; nothing if that is so already."""
        if attempt not in self._running:
            return
        self._running.remove(attempt)
        self._prefetch.ended()
        self._fill()
        self._ended(attempt.claimed, outcome)

    def abandon(self) -> list[Attempt]:
        """Give up on what cannot be cancelled. Answers these; their handlers may go on, but can write nothing."""
        attempts = list(self._running)
        self._running.clear()
        return attempts

    def _here(self) -> list[Claimed]:
        return [*(attempt.claimed for attempt in self._running), *self._at_hand]

    def _fill(self) -> None:
        while self._at_hand and len(self._running) < self._concurrency:
            attempt = Attempt(self._at_hand.popleft())
            self._running.add(attempt)
            attempt.task = self._loop.create_task(
                self._run(attempt), name=attempt.claimed.job_type, context=self._context.copy()
            )
            self._last_start = time.monotonic()

    async def _run(self, attempt: Attempt) -> None:
        self.end(attempt, await self._execute(attempt))
        # Its context knows the attempt: a circle, which only the garbage collector would find, for a third of all CPU time.
        attempt.task = None


def _is_open(attempt: Attempt) -> bool:
    return attempt.task is not None and not attempt.ending and attempt.stopped_with is None
