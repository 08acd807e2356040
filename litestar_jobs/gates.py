"""The statements about limits and rates, as ``store.py`` has those about jobs."""

from collections.abc import Collection, Sequence
from typing import Literal, TypeAlias
from uuid import UUID

import msgspec

from litestar_jobs.database import Fetch
from litestar_jobs.store import Statements

__all__ = ("BEGINNING", "Gate", "GateLine", "Gates", "Kind", "Visited")

Kind: TypeAlias = Literal["limit", "rate"]
Gate: TypeAlias = tuple[str, str]
"""What a job waits for: a kind and a key."""

BEGINNING: Gate = ("", "")
"""Before all gates."""


class Visited(msgspec.Struct, frozen=True):
    """A gate at which somebody looked."""

    gate: Gate
    is_behind: bool
    """Whether it was found by walking from gate to gate."""
    waits: bool
    """Whether jobs waited there."""
    again_in: float | None
    """Seconds until the next one may go, if that is known."""


class GateLine(msgspec.Struct, frozen=True):
    """A limit or a rate, for those who look: ``taken`` of its ``most`` count now, and so many jobs wait."""

    kind: Kind
    key: str
    most: int
    per: float | None
    taken: int
    waiting: int


class Gates:
    """The gates in the database, over one connection."""

    def __init__(self, fetch: Fetch, statements: Statements) -> None:
        self._fetch = fetch
        self._sql = statements
        self._channel = statements.channel

    async def admit(
        self, gates: Collection[Gate], ended: Sequence[UUID], behind: Gate | None, at_most: int, rules: str
    ) -> list[Visited]:
        """In the order of the gates. ``behind`` is the gate to walk on from."""
        rows = await self._fetch(
            self._sql["admit"],
            [kind for kind, _ in gates],
            [key for _, key in gates],
            ended,
            *(behind or BEGINNING),
            0 if behind is None else at_most,
            rules,
            self._channel,
        )
        return [Visited((row["reason"], row["key"]), row["is_behind"], row["waits"], row["again_in"]) for row in rows]

    async def listed(self) -> list[GateLine]:
        """All that have jobs."""
        return [
            GateLine(row["reason"], row["key"], row["most"], row["per"], row["taken"], row["waiting"])
            for row in await self._fetch(self._sql["limits"])
        ]
