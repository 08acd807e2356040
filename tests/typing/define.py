"""What type checkers make of ``@job``. Never run: each line that must not pass says with which error it fails."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypedDict, assert_type

import attrs
from litestar.datastructures import State
from litestar.di import NamedDependency
from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncSession

from litestar_jobs import (
    Cron,
    Every,
    Exponential,
    FailedJob,
    Fixed,
    Job,
    JobContext,
    JobRequest,
    Jobs,
    Limit,
    Never,
    Rate,
    Snooze,
    Unique,
    job,
)


class Mail(Struct):
    to: str


@dataclass
class Order:
    number: int


class Address(TypedDict):
    street: str


@attrs.define
class Pixel:
    x: int


# The payload is the first parameter, whatever dependencies follow.


@job
async def alone(payload: Mail) -> None: ...


@job
async def with_positional(payload: Mail, db_session: NamedDependency[AsyncSession], jobs: Jobs) -> int:
    return 1


@job
async def with_keywords(payload: Mail, *, state: State, job: JobContext) -> str:
    return ""


@job(queue="mails", max_retries=5, timeout=timedelta(minutes=1), retry=Fixed(10))
async def with_options(payload: Mail, jobs: Jobs, *, job: JobContext | None = None) -> None: ...


@job(retry_on=(ConnectionError, TimeoutError), fail_on=KeyError, max_snoozes=5)
async def with_rules(payload: Mail) -> None: ...


@job(retry_on={ConnectionError: Fixed(60), TimeoutError: Never()})
async def with_a_policy_each(payload: Mail) -> Snooze | None: ...


@job(expires_in=60, deadline=timedelta(hours=1))
async def in_time(payload: Mail) -> None: ...


assert_type(in_time(Mail("you"), expires_in=timedelta(minutes=1), deadline=5), JobRequest)
in_time(Mail("you"), deadline="soon")  # type: ignore[arg-type]


@job
async def tell(payload: FailedJob) -> None: ...


@job(on_failure=tell)
async def followed(payload: Mail) -> None: ...


job(on_failure=with_options)  # type: ignore[arg-type]
job(retry_on=[KeyError("x")])  # type: ignore[list-item]


@job
def threaded(payload: Mail, db_session: AsyncSession) -> int:
    return 1


@job(sync_to_thread=False, retry=Never(), priority=-1)
def in_the_loop(payload: Mail, /, *, jobs: Jobs) -> None: ...


@job(retry=lambda attempt, error: timedelta(seconds=attempt) if isinstance(error, OSError) else None)
async def with_a_policy_of_its_own(payload: Mail) -> None: ...


assert_type(alone, Job[Mail, None])
assert_type(with_positional, Job[Mail, int])
assert_type(with_keywords, Job[Mail, str])
assert_type(with_options, Job[Mail, None])
assert_type(threaded, Job[Mail, int])
assert_type(in_the_loop, Job[Mail, None])
assert_type(with_a_policy_of_its_own, Job[Mail, None])
assert_type(alone(Mail("you")), JobRequest)
with_positional(Mail("you"), queue="others", priority=1, delay=5, max_retries=0)
with_keywords(Mail("you"), run_at=datetime(2030, 1, 1, tzinfo=UTC))
threaded(Mail("you"), delay=timedelta(days=1))

alone()  # type: ignore[call-arg]
alone(5)  # type: ignore[arg-type]
alone("you")  # type: ignore[arg-type]
alone(None)  # type: ignore[arg-type]
alone(Order(1))  # type: ignore[arg-type]
alone(Mail)  # type: ignore[arg-type]
with_positional(Mail("you"), None)  # type: ignore[call-arg, arg-type]
with_keywords(5)  # type: ignore[arg-type]
with_keywords(Mail("you"), state=None)  # type: ignore[call-arg]
with_options(payload=Mail("you"))  # type: ignore[call-arg]
threaded()  # type: ignore[call-arg]
in_the_loop(Order(1))  # type: ignore[arg-type]
alone(Mail("you"), quue="mails")  # type: ignore[call-arg]
alone(Mail("you"), delay="5")  # type: ignore[arg-type]
alone(Mail("you"), run_at=5)  # type: ignore[arg-type]


# Payloads are whatever msgspec can decode.


@job
async def of_a_dataclass(payload: Order, jobs: Jobs) -> None: ...


@job
async def of_a_typed_dict(payload: Address, jobs: Jobs) -> None: ...


@job
def of_attrs(payload: Pixel, jobs: Jobs) -> None: ...


@job
async def of_a_number(payload: int, jobs: Jobs) -> None: ...


@job
def of_a_list(payload: list[Mail], *, jobs: Jobs) -> None: ...


@job
async def of_either(payload: Mail | Order | None) -> None: ...


assert_type(of_a_dataclass, Job[Order, None])
assert_type(of_a_typed_dict, Job[Address, None])
assert_type(of_attrs, Job[Pixel, None])
assert_type(of_a_number, Job[int, None])
assert_type(of_a_list, Job[list[Mail], None])
assert_type(of_either, Job[Mail | Order | None, None])
of_a_dataclass(Order(1))
of_a_typed_dict({"street": "here"})
of_attrs(Pixel(1))
of_a_number(5)
of_a_list([Mail("you")])
of_either(None)
of_either(Order(1))

of_a_dataclass(Mail("you"))  # type: ignore[arg-type]
of_a_typed_dict({"street": 5})  # type: ignore[typeddict-item]
of_attrs(5)  # type: ignore[arg-type]
of_a_number("5")  # type: ignore[arg-type]
of_a_list([5])  # type: ignore[list-item]
of_either(5)  # type: ignore[arg-type]


# Jobs without a payload have only keyword parameters, or none.


@job
async def bare() -> int:
    return 1


@job(max_retries=0)
async def bare_with_dependencies(*, jobs: Jobs, db_session: AsyncSession) -> None: ...


@job
def bare_and_threaded() -> str:
    return ""


@job(sync_to_thread=True)
def bare_and_threaded_with_dependencies(*, job: JobContext) -> int:
    return job.attempt


assert_type(bare, Job[None, int])
assert_type(bare_with_dependencies, Job[None, None])
assert_type(bare_and_threaded, Job[None, str])
assert_type(bare_and_threaded_with_dependencies, Job[None, int])
assert_type(bare(), JobRequest)
bare_with_dependencies(queue="others")
bare_and_threaded(delay=5)
bare_and_threaded_with_dependencies()

bare(5)  # type: ignore[call-overload]
bare_with_dependencies(Mail("you"))  # type: ignore[call-overload]
bare_and_threaded("you")  # type: ignore[call-overload]
bare_and_threaded_with_dependencies(job=None)  # type: ignore[call-overload]


# Schedules.


@job(cron="0 3 * * *", timezone="Europe/Berlin")
async def nightly() -> None: ...


@job(every=timedelta(minutes=5))
async def often(*, job: JobContext) -> None:
    assert_type(job.schedule, str | None)
    assert_type(job.scheduled_for, datetime | None)


@job(schedules=[Cron("0 3 * * *", timezone="UTC", payload=Mail("you"), name="mail"), Every(30, missed="all")])
async def several(payload: Mail) -> None: ...


assert_type(nightly, Job[None, None])
assert_type(several, Job[Mail, None])
Cron("0 3 * * *", "UTC", overlap="skip")
Every(timedelta(hours=1), overlap="allow")

Cron()  # type: ignore[call-arg]
Every(30, missed="sometimes")  # type: ignore[arg-type]
Every("30")  # type: ignore[arg-type]
job(every="5 minutes")  # type: ignore[call-overload]


# Unique jobs.


@job(unique=Unique())
async def once(payload: Mail) -> None: ...


@job(unique=Unique(by=("to",), within=timedelta(hours=1), until="started", on_conflict="replace"))
async def once_by_field(payload: Mail) -> None: ...


@job(unique=Unique(by=lambda payload: payload.to.lower()))
async def once_by_function(payload: Mail) -> int:
    return 1


assert_type(once, Job[Mail, None])
assert_type(once_by_function, Job[Mail, int])
assert_type(once(Mail("you")), JobRequest)

Unique(by=5)  # type: ignore[arg-type]
Unique(by="to")  # type: ignore[arg-type]
Unique(until="done")  # type: ignore[arg-type]
Unique(on_conflict="wait")  # type: ignore[arg-type]
Unique("job")  # type: ignore[call-arg]
job(unique=True)  # type: ignore[call-overload]


# Options have types too.


@job(quue="mails")  # type: ignore[call-overload, untyped-decorator]
async def misspelled(payload: Mail) -> None: ...


@job(max_retries="5")  # type: ignore[call-overload, untyped-decorator]
async def of_another_kind(payload: Mail) -> None: ...


@job(retry=Exponential)  # type: ignore[arg-type]
async def with_a_class_for_a_policy(payload: Mail) -> None: ...


job("mails")  # type: ignore[call-overload]


# Limits and rates.


@job(limit=Limit(2, by="to"), rate=Rate(60, per=timedelta(minutes=1), key="smtp"))
async def limited(payload: Mail) -> None: ...


assert_type(limited, Job[Mail, None])
Limit(concurrency=1, key="smtp", by=lambda mail: mail.to)
Rate(1, per=0.5)
Limit()  # type: ignore[call-arg]
Limit(1, "smtp")  # type: ignore[call-arg]
Limit("1")  # type: ignore[arg-type]
Limit(1, by=5)  # type: ignore[arg-type]
Rate(1)  # type: ignore[call-arg]
