"""A small but real application: users, welcome mails and reports.

Serve it with ``litestar --app examples.app:create_app run``, on the PostgreSQL that ``DATABASE_URL`` names or, without
that, on the embedded one. ``examples/demo.py`` serves it and makes a round of requests.
"""

import logging
import os
from datetime import datetime

from advanced_alchemy.base import UUIDBase
from advanced_alchemy.extensions.litestar import SQLAlchemyAsyncConfig, SQLAlchemyPlugin
from litestar import Litestar, get, post
from litestar.di import NamedDependency, Provide
from litestar.exceptions import ClientException
from litestar.logging import LoggingConfig
from litestar.params import JSONBody
from msgspec import Struct
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from litestar_jobs import Fixed, JobContext, Jobs, JobsConfig, JobsPlugin, WorkerConfig, job
from litestar_jobs.embedded import embedded_dsn

logger = logging.getLogger("examples")


class User(UUIDBase):
    __tablename__ = "user_account"
    email: Mapped[str] = mapped_column(unique=True)


class Report(UUIDBase):
    __tablename__ = "report"
    users: Mapped[int]
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class Mailer:
    """Stands where a client of a mail service would."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def send(self, to: str, subject: str) -> None:
        self.sent.append(f"{to}: {subject}")
        logger.info("mail to %s: %s", to, subject)


class WelcomeEmail(Struct):
    email: str


@job(queue="emails", max_retries=5, retry=Fixed(1), timeout=30)
async def send_welcome_email(payload: WelcomeEmail, mailer: NamedDependency[Mailer], job: JobContext) -> None:
    """The first attempt for addresses that begin with "flaky" fails, to show a retry."""
    if payload.email.startswith("flaky") and job.attempt == 1:
        raise ConnectionError("the mail server hung up")
    await mailer.send(payload.email, "welcome")


@job(queue="reports")
async def write_report(*, db_session: NamedDependency[AsyncSession]) -> None:
    """The report and the end of this job are committed together: neither exists without the other."""
    users = await db_session.scalar(select(func.count()).select_from(User))
    db_session.add(Report(users=users or 0))
    logger.info("report: %d users", users)


class NewUser(Struct):
    email: str


class Enqueued(Struct):
    job_id: str


@post("/users")
async def create_user(data: JSONBody[NewUser], db_session: NamedDependency[AsyncSession], jobs: Jobs) -> Enqueued:
    """The user and the job commit together."""
    db_session.add(User(email=data.email))
    job_id = await jobs.enqueue_with(db_session, send_welcome_email(WelcomeEmail(email=data.email)))
    await db_session.commit()
    logger.info("user %s created", data.email)
    return Enqueued(str(job_id))


@post("/users/rejected")
async def reject_user(data: JSONBody[NewUser], db_session: NamedDependency[AsyncSession], jobs: Jobs) -> None:
    """Everything is written, then the transaction rolls back: no user, and no mail either."""
    db_session.add(User(email=data.email))
    await jobs.enqueue_with(db_session, send_welcome_email(WelcomeEmail(email=data.email)))
    await db_session.rollback()
    raise ClientException("we changed our mind")


@post("/reports")
async def order_report(jobs: Jobs) -> Enqueued:
    """A job of its own: committed when ``enqueue`` returns."""
    return Enqueued(str(await jobs.enqueue(write_report())))


class State(Struct):
    users: list[str]
    reports: list[int]
    mails: list[str]


@get("/")
async def show(db_session: NamedDependency[AsyncSession], mailer: NamedDependency[Mailer]) -> State:
    """What there is by now."""
    users = await db_session.scalars(select(User.email).order_by(User.email))
    reports = await db_session.scalars(select(Report.users).order_by(Report.at))
    return State(list(users), list(reports), mailer.sent)


def create_app(dsn: str | None = None) -> Litestar:
    """The application, on this database, the one that the environment names, or the embedded one."""
    dsn = dsn or os.environ.get("DATABASE_URL") or embedded_dsn()
    alchemy = SQLAlchemyAsyncConfig(
        connection_string="postgresql+asyncpg" + dsn[dsn.index("://") :],
        metadata=User.metadata,
        create_all=True,
    )
    mailer = Mailer()
    return Litestar(
        [create_user, reject_user, order_report, show],
        dependencies={"mailer": Provide(lambda: mailer, sync_to_thread=False)},
        plugins=[
            SQLAlchemyPlugin(config=alchemy),
            JobsPlugin(JobsConfig(jobs=[send_welcome_email, write_report], worker=WorkerConfig(concurrency=5))),
        ],
        logging_config=LoggingConfig(
            formatters={"standard": {"format": "%(levelname)-7s [%(trace_id)s] %(job_type)s: %(message)s"}},
            loggers={"httpx": {"level": "WARNING"}},
        ),
    )
