"""Tables in partitions, for those who want to drop what is old and not delete it. What the partitions are, and how they
are made, is SQL: ``sql/schema/011_partitions.sql``."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import msgspec

from litestar_jobs.database import DEADLOCK, HINDERED, WAITED, Fetch
from litestar_jobs.durations import Duration, seconds
from litestar_jobs.errors import JobsError
from litestar_jobs.row import JobStatus
from litestar_jobs.statements import Statements

__all__ = ("Dropped", "Partition", "Partitions")

NARROWEST = 3_600.0
WIDEST = 366 * 86_400.0


class Partition(msgspec.Struct, frozen=True):
    """A range of ids, which are times, in each of the tables. Only the first one has no beginning, and only the rest no
    end: it has the ids that no other one takes. ``jobs`` is an estimate, ``bytes`` what the tables of it take up."""

    label: str
    begins: datetime | None
    ends: datetime | None
    low: UUID
    is_over: bool
    is_allowed: bool
    jobs: int
    bytes: int


class Dropped(msgspec.Struct, frozen=True):
    """Whether a partition is gone, and how many jobs of it were kept long enough. If it is not gone, too many others
    would have had to move."""

    dropped: bool
    completed: int
    failed: int
    cancelled: int


class Partitions:
    """The statements about partitions, over one connection."""

    def __init__(self, fetch: Fetch, statements: Statements) -> None:
        self.schema = statements.schema
        self._fetch = fetch
        self._sql = statements

    async def listed(self, keep: Mapping[str, float]) -> list[Partition]:
        """The oldest first, the rest last; none of plain tables. ``keep`` are the seconds for which jobs are kept."""
        rows = await self._fetch(self._sql["partitions"], keep.get(JobStatus.COMPLETED))
        return [Partition(**{name: row[name] for name in Partition.__struct_fields__}) for row in rows]

    async def make(self) -> datetime | None:
        """The end of the one that was due; None if none was."""
        (row,) = await self._fetch(self._sql["make_partition"])
        reaches: datetime | None = row["reaches"]
        return reaches

    async def drop(self, label: str, keep: Mapping[str, float]) -> Dropped | None:
        """None if another process is at it, or was."""
        times = [keep.get(status) for status in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)]
        (row,) = await self._fetch(self._sql["drop_partition"], label, *times)
        found = {name: row[name] for name in Dropped.__struct_fields__}
        return None if row["completed"] is None else Dropped(**found)

    async def begin(self, width: Duration) -> None:
        """Partition the tables, or give later partitions another width. Everybody waits meanwhile: for as long as it takes
        to read the tables once. :exc:`JobsError` if something of others hangs on the tables that would be lost."""
        every = seconds(width, "the width of partitions", least=NARROWEST, most=WIDEST)
        await self._change(self._sql["partition_tables"], every)

    async def end(self) -> None:
        """Make the tables plain again. Everybody waits meanwhile: for as long as it takes to copy them."""
        await self._change(self._sql["unpartition_tables"])

    async def _change(self, sql: str, *arguments: float) -> None:
        try:
            await self._fetch(sql, *arguments)
        except (*WAITED, *DEADLOCK) as error:
            raise JobsError(
                "the tables were in use all the time, by transactions that stay open: look for them in pg_stat_activity, and "
                "try again."
            ) from error
        except HINDERED as error:
            raise JobsError(f"{error}. Remove them first, or leave the tables as they are.") from error
