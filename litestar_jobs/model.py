"""The view ``jobs`` as a mapped class, for advanced-alchemy's repositories, services, filters and pagination::

    class JobRepository(SQLAlchemyAsyncRepository[JobModel]):
        model_type = JobModel

    rows, total = await JobRepository(session=db_session).get_many_and_count(
        ComparisonFilter("status", "eq", JobStatus.FAILED), OrderBy("finished_at", "desc"), LimitOffset(20, 0)
    )

It has a registry and metadata of its own, so that neither Alembic nor ``create_all`` of the application meets it.
For jobs in another schema give the engine, or one session's connection, the execution option
``schema_translate_map={"litestar_jobs": "other_schema"}``.
"""

from datetime import datetime
from typing import Any, NoReturn
from uuid import UUID

from advanced_alchemy.base import BasicAttributes
from sqlalchemy import DateTime, Enum, SmallInteger, Table, Text, event
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from litestar_jobs.errors import JobsError
from litestar_jobs.row import JobStatus

__all__ = ("JobModel",)

STATUS = Enum(JobStatus, native_enum=False, values_callable=list[str])


class _JobsBase(BasicAttributes, DeclarativeBase):
    """Keeps the view apart from the application's tables."""

    type_annotation_map = {datetime: DateTime(timezone=True), str: Text, int: SmallInteger, JobStatus: STATUS}  # noqa: RUF012 - as SQLAlchemy wants it


class JobModel(_JobsBase):
    """A job with its state, for reading; the columns are :class:`JobRow`'s."""

    __tablename__ = "jobs"
    __table_args__ = {"schema": "litestar_jobs"}  # noqa: RUF012 - as SQLAlchemy wants it

    id: Mapped[UUID] = mapped_column(primary_key=True)
    queue: Mapped[str]
    job_type: Mapped[str]
    payload: Mapped[Any] = mapped_column(JSONB)
    status: Mapped[JobStatus]
    attempts: Mapped[int]
    max_retries: Mapped[int]
    priority: Mapped[int]
    run_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    locked_until: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    last_error: Mapped[str | None]
    trace_id: Mapped[str | None]
    created_at: Mapped[datetime]
    result: Mapped[Any | None] = mapped_column(JSONB)
    progress: Mapped[float | None]
    progress_message: Mapped[str | None]
    expires_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]
    snoozes: Mapped[int]


@event.listens_for(JobModel, "before_insert")
@event.listens_for(JobModel, "before_update")
@event.listens_for(JobModel, "before_delete")
def _refuse(*_: Any) -> NoReturn:
    raise JobsError(
        "a JobModel is for reading. Enqueue with jobs.enqueue(...) or jobs.enqueue_with(session, ...), "
        "and change a job with jobs.cancel(id) or jobs.retry(id)."
    )


@event.listens_for(JobModel.__table__, "before_create")
def _refuse_to_create(target: Table, *_: Any, **__: Any) -> NoReturn:
    raise JobsError(
        f"{target} is a view, which comes with the tables of litestar-jobs: `litestar jobs upgrade`, "
        "JobsConfig(migrate='auto'), or an Alembic migration that `litestar database make-migrations` writes."
    )
