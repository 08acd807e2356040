"""Step 3, claim: rows become work. Decides which queues to ask for how many, and from where in their order.

A queue is *hot* while it may have jobs: after a wake-up, a poll, or a claim that got all it asked for. Only hot queues
are asked, each for an equal share, so that none starves another. Of a *limited* queue no more are asked for than it may
still have here; of a paused one, none.

Entries of claimed jobs stay in the index until vacuum may remove them, and a scan from the beginning walks over all of
them. So a claim begins at the last claimed key of its queue (the *bound*). That is only a hint, since a smaller key may
be committed later (a higher priority, a long transaction): a bound lives for a second, and a queue has cooled only when
a scan from the beginning found it empty. Such scans take at most a small part of the time, however long they are.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from litestar_jobs.store import LARGEST, Claimed, Lowest, Store

__all__ = ("Claimer",)

BOUND_LIFE = 1.0
"""Seconds after which a queue is scanned from its beginning in any case."""
SCAN_PAUSE = 0.05
"""Seconds between such scans at the least, and ..."""
SCAN_SHARE = 0.05
"""... the part of the time that they may take."""
NONE: frozenset[str] = frozenset()


class Claimer:
    """Claims jobs of some queues, in turn and in order."""

    def __init__(
        self,
        store: Store,
        queues: Sequence[str],
        timeouts: str,
        *,
        largest: int = LARGEST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``largest`` is that of a payload, in bytes."""
        self._store = store
        self._largest = largest
        self._queues = {queue: _Queue() for queue in queues}
        self._timeouts = timeouts
        self._here: Callable[[], Mapping[str, int]] = dict[str, int]
        self._clock = clock
        self.limits: Mapping[str, int] = {}
        self._hot: dict[str, None] = dict.fromkeys(queues)

    def warm(self, queues: set[str] | None = None) -> bool:
        """These queues (or all) may have jobs. False if none of them is ours."""
        ours = [queue for queue in self._queues if queues is None or queue in queues]
        self._hot.update(dict.fromkeys(ours))
        return bool(ours)

    def limit(self, limits: Mapping[str, int], here: Callable[[], Mapping[str, int]]) -> set[str]:
        """Have at most so many jobs of these queues at once; ``here`` says how many there are. Answers the queues for
        which that is news."""
        changed = {queue for queue in self._queues if limits.get(queue) != self.limits.get(queue)}
        if changed:
            self.limits, self._here = limits, here
            self.warm(changed)
        return changed

    def unpaused(self) -> list[str]:
        """The queues that are not paused."""
        return [queue for queue in self._queues if self.limits.get(queue) != 0]

    def pause(self) -> float | None:
        """Seconds until a claim may find something, as far as is known: 0 now, None not before a wake-up."""
        full = self._full() if self.limits else NONE
        if self._hot and (not full or self._hot.keys() - full):
            return 0.0
        doubts = [
            queue.scan_at for name, queue in self._queues.items() if queue.scan_at is not None and name not in full
        ]
        return max(0.0, min(doubts) - self._clock()) if doubts else None

    async def claim(self, worker_id: UUID, at_most: int) -> list[Claimed]:
        """Up to so many jobs of the queues that may have some."""
        now = self._clock()
        for name, queue in self._queues.items():
            if queue.scan_at is not None and queue.scan_at <= now:
                self._hot[name] = None
        slots = self._share(at_most)
        if not slots:
            return []
        bounds: dict[str, Lowest] = {}
        for name in slots:
            del self._hot[name]  # a wake-up while the statement is under way makes it hot again
            if (bound := self._queues[name].begin(now)) is not None:
                bounds[name] = bound
        claimed = await self._store.claim(slots, bounds, worker_id, self._timeouts, self._largest)
        self._learn(slots, bounds, claimed, self._clock() - now)
        return claimed

    def _share(self, at_most: int) -> dict[str, int]:
        room = self._room()
        queues = [queue for queue in self._hot if room.get(queue, at_most) > 0][:at_most]
        if not queues:
            return {}
        share, left = divmod(at_most, len(queues))
        return {queue: min(share + (place < left), room.get(queue, at_most)) for place, queue in enumerate(queues)}

    def _room(self) -> dict[str, int]:
        """How many more jobs of the limited queues may be here."""
        here: Mapping[str, int] = self._here() if any(self.limits.values()) else {}
        return {queue: limit - here.get(queue, 0) for queue, limit in self.limits.items()}

    def _full(self) -> set[str]:
        return {queue for queue, room in self._room().items() if room <= 0}

    def _learn(self, slots: dict[str, int], bounds: dict[str, Lowest], claimed: list[Claimed], took: float) -> None:
        got = dict.fromkeys(slots, 0)
        for job in claimed:
            got[job.queue] += 1
            # In the order of the claim, so the last one of a queue is its highest.
            self._queues[job.queue].bound = Lowest(job.priority, job.run_at, job.id)
        for name, asked in slots.items():
            if got[name] == asked:
                self._hot[name] = None  # behind the others
            elif name in bounds:
                self._queues[name].doubt()
            else:
                self._queues[name].cost = took


class _Queue:
    """Where the claims of one queue are."""

    def __init__(self) -> None:
        self.bound: Lowest | None = None
        self.scanned = float("-inf")
        """When the last scan from the beginning began, and ..."""
        self.cost = 0.0
        """... how long it took."""
        self.scan_at: float | None = None
        """When to scan from the beginning next, because something may lie before the bound."""

    def begin(self, now: float) -> Lowest | None:
        """Where the claim that begins now starts; None: at the beginning."""
        doubted = self.scan_at is not None and self.scan_at <= now
        if doubted or self.bound is None or now - self.scanned >= BOUND_LIFE:
            self.bound = self.scan_at = None
            self.scanned = now
        return self.bound

    def doubt(self) -> None:
        """There was less behind the bound than was asked for: look before it, soon."""
        if self.scan_at is None:
            self.scan_at = self.scanned + min(BOUND_LIFE, max(SCAN_PAUSE, self.cost / SCAN_SHARE))
