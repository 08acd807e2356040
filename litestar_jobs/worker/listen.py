"""Listening: other processes tell of jobs that may run, and of jobs that are due soon."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from litestar_jobs.enqueue import Listener

__all__ = ("listening",)


def listening(
    channel: str, listener: Listener, watched: Callable[[list[UUID]], None], opened: Callable[[], None]
) -> Callable[[Any], Awaitable[None]]:
    """What to do with a connection that has just been opened, so that ``listener`` hears of jobs, and ``watched`` of
    those that somebody watches.

    ``opened`` is called once it does: of what came before, nothing is known.
    """

    def hear(_connection: object, _pid: int, _channel: str, message: object) -> None:
        kind, _, detail = str(message).partition(":")
        if kind == "ready":
            listener({detail}, None)
        elif kind == "due":
            listener(set(), float(detail))
        elif kind == "watch":
            watched([UUID(job_id) for job_id in detail.split(",")])

    async def on_open(connection: Any) -> None:
        await connection.add_listener(channel, hear)
        opened()

    return on_open
