from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from litestar import Litestar
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from msgspec import Struct

from litestar_jobs import JobContext, Jobs, JobsConfig, JobsPlugin, job


@dataclass
class Mailer:
    sender: str
    sent: list[str] = field(default_factory=list)

    async def send(self, text: str) -> None:
        self.sent.append(f"{self.sender}: {text}")


async def provide_mailer(state: State) -> AsyncIterator[Mailer]:
    mailer = Mailer(sender="shop@example.com", sent=state.outbox)
    try:
        yield mailer
    finally:
        mailer.sent.append("connection closed")


async def provide_footer() -> str:
    return "sent by a job"


class Newsletter(Struct):
    text: str
    readers: list[str]


class Letter(Struct):
    text: str
    reader: str


@job
async def send_letter(
    payload: Letter,
    mailer: NamedDependency[Mailer],
    footer: NamedDependency[str],
    job: JobContext,
) -> None:
    text = f"{payload.text} for {payload.reader}, {footer}, {job.attempt}"
    await mailer.send(text)


@job
async def send_newsletter(payload: Newsletter, jobs: Jobs) -> None:
    letters = [Letter(payload.text, reader) for reader in payload.readers]
    await jobs.enqueue_many(send_letter(letter) for letter in letters)


app = Litestar(
    state=State({"outbox": []}),
    dependencies={"mailer": Provide(provide_mailer)},
    plugins=[
        JobsPlugin(JobsConfig(dependencies={"footer": Provide(provide_footer)}))
    ],
)
