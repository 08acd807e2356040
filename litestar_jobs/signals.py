"""How a handler says by itself how its attempt ends: it raises one of these, or returns one, which is the same."""

from litestar_jobs.durations import Duration, seconds

__all__ = ("Cancel", "Fail", "RetryAfter", "Signal", "Snooze")


class Signal(Exception):
    """What they have in common. The session's transaction is rolled back, whether it is raised or returned."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Cancel(Signal):
    """The job is not needed any more: it ends as cancelled, and the reason is kept."""


class Fail(Signal):
    """The job fails for good, whatever ``max_retries`` says."""


class RetryAfter(Signal):
    """The attempt failed; the next one is after this delay instead of the policy's. ``max_retries`` bounds it."""

    def __init__(self, delay: Duration, reason: str) -> None:
        super().__init__(reason)
        self.delay = seconds(delay, "RetryAfter(delay)")


class Snooze(Signal):
    """Not now: the job waits for this delay, and the attempt does not count. Bounded by ``max_snoozes`` of the job, since
    one that waits for what never comes would wait for ever. The reason is logged."""

    def __init__(self, delay: Duration, reason: str = "") -> None:
        super().__init__(reason)
        self.delay = seconds(delay, "Snooze(delay)")
