"""Listening: other processes tell of jobs that may run, and of jobs that are due soon.

Nothing tells a listener that it is deaf: LISTEN succeeds through a pooler in transaction mode, and stays on a connection
whose other side is gone without a word. So it says something itself now and then, by another connection, and listens
for that.
"""

import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

from litestar_jobs.database import UNAVAILABLE
from litestar_jobs.news import Listener

__all__ = ("Ear",)

PATIENCE = 2.0
"""Seconds in which a notification comes back."""
CHECK = 30.0
"""Seconds between two checks."""


class Ear:
    """Hears what comes on the channel, and finds out whether it hears at all."""

    def __init__(  # noqa: PLR0913 - who hears of what
        self,
        channel: str,
        listener: Listener,
        *,
        watched: Callable[[list[UUID]], None],
        gated: Callable[[str, str], None],
        cancelled: Callable[[list[int]], None],
        opened: Callable[[], None],
        broken: Callable[[], None],
        deaf: Callable[[], None],
    ) -> None:
        """``watched`` hears of jobs that somebody watches, ``gated`` of gates at which jobs wait, ``cancelled`` of tokens that
        are void. ``opened`` is called when a connection listens: of what came before, nothing is known. ``broken`` is
        called when one that heard does not any more, and has to be replaced; ``deaf``, once, when a new one does not
        hear."""
        self._channel = channel
        self._listener = listener
        self._watched = watched
        self._gated = gated
        self._cancelled = cancelled
        self._opened = opened
        self._broken = broken
        self._deaf = deaf
        self._word = secrets.token_hex(8)
        self._asked = self._answered = self._hears = self._is_told = False

    @property
    def hears(self) -> bool:
        """Whether it heard the last time that it found out."""
        return self._hears

    async def on_open(self, connection: Any) -> None:
        """Listen on a connection that has just been opened."""
        await connection.add_listener(self._channel, self._hear)
        self._opened()

    async def check(self, say: Callable[[str], Awaitable[None]]) -> float:
        """Say something by another connection, or look whether it was heard; answers when to do the other."""
        if self._asked:
            self._asked = False
            self._judge()
            return CHECK
        self._answered = False
        try:
            await say(self._word)
        except UNAVAILABLE:
            return CHECK  # whoever has work for the database says so
        self._asked = True
        return PATIENCE

    def _judge(self) -> None:
        if self._answered:
            self._hears, self._is_told = True, False
        elif self._hears:
            self._hears = False
            self._broken()
        elif not self._is_told:
            self._is_told = True
            self._deaf()

    def _hear(self, _connection: object, _pid: int, _channel: str, message: object) -> None:
        kind, _, detail = str(message).partition(":")
        if kind == "ready":
            self._listener({detail}, None)
        elif kind == "due":
            with suppress(ValueError):  # whoever may connect to the database may notify, of anything
                self._listener(set(), float(detail))
        elif kind in {"limit", "rate"}:
            self._gated(kind, detail)
        elif kind == "echo" and detail == self._word:
            self._answered = True
        elif kind == "watch":
            with suppress(ValueError):
                self._watched([UUID(job_id) for job_id in detail.split(",")])
        elif kind == "cancel":
            with suppress(ValueError):
                self._cancelled([int(token) for token in detail.split(",")])
