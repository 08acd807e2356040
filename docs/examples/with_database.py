import os

from advanced_alchemy.extensions.litestar import (
    SQLAlchemyAsyncConfig,
    SQLAlchemyPlugin,
    base,
)
from litestar import Litestar, post
from litestar.di import NamedDependency
from litestar.exceptions import ClientException
from litestar.params import JSONBody
from msgspec import Struct
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from litestar_jobs import Jobs, JobsPlugin, job


class User(base.UUIDv7Base):
    __tablename__ = "app_user"

    email: Mapped[str] = mapped_column(unique=True)
    welcomed: Mapped[bool] = mapped_column(default=False)


class NewUser(Struct):
    email: str


class WelcomeEmail(Struct):
    email: str


@job(queue="emails")
async def send_welcome_email(
    payload: WelcomeEmail, db_session: NamedDependency[AsyncSession]
) -> None:
    # The session is the job's own. It is committed when this function returns,
    # and the job is finished in the same transaction: both or neither.
    await db_session.execute(
        update(User).where(User.email == payload.email).values(welcomed=True)
    )


@post("/users")
async def create_user(
    data: JSONBody[NewUser],
    db_session: NamedDependency[AsyncSession],
    jobs: Jobs,
) -> dict[str, str]:
    db_session.add(User(email=data.email))
    welcome = send_welcome_email(WelcomeEmail(email=data.email))
    await jobs.enqueue_with(db_session, welcome)
    if data.email.endswith("@example.invalid"):
        raise ClientException("nobody lives there")  # neither a user nor a mail
    await db_session.commit()
    return {"email": data.email}


alchemy = SQLAlchemyAsyncConfig(
    connection_string=os.environ["DATABASE_URL"], create_all=True
)
app = Litestar(
    [create_user], plugins=[SQLAlchemyPlugin(config=alchemy), JobsPlugin()]
)
