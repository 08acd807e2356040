"""Definitions: what becomes a job, what a call of it gives, and what is refused in which words."""

import importlib
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, TypedDict

import attrs
import msgspec
import pytest
from litestar import Litestar
from litestar.di import NamedDependency
from msgspec import Meta, Struct
from sqlalchemy.ext.asyncio import AsyncSession

from litestar_jobs import Fixed, Job, JobContext, JobRequest, Jobs, JobsConfig, JobsPlugin, Never, job
from litestar_jobs.define import registered_jobs
from litestar_jobs.errors import ConfigurationError, DefinitionError, PayloadRefused
from litestar_jobs.select import select_jobs

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


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


async def send(payload: Mail) -> None:
    """Send a mail."""


# What becomes a job.


def test_a_job_has_the_defaults_that_the_documentation_names() -> None:
    made = job(send)
    assert (made.name, made.queue, made.max_retries, made.timeout, made.priority) == ("send", "default", 3, None, 0)
    assert made.payload_type is Mail


def test_options_are_the_jobs_own() -> None:
    made = job(name="mail", queue="mails", max_retries=5, retry=Fixed(1), timeout=timedelta(minutes=1), priority=-3)(
        send
    )
    assert (made.name, made.queue, made.max_retries, made.timeout, made.priority) == ("mail", "mails", 5, 60.0, -3)
    assert made.retry == Fixed(1)


def test_options_may_be_given_with_the_function_or_in_several_steps() -> None:
    mails = job(queue="mails")
    assert mails(max_retries=0)(send).queue == "mails"
    assert mails(send).max_retries == 3


def test_a_job_keeps_the_name_and_the_words_of_its_function() -> None:
    made = job(send)
    assert (made.__name__, made.__qualname__, made.__doc__) == ("send", "send", "Send a mail.")
    assert made.__module__ == __name__
    assert repr(made).startswith(f"<Job 'send' from {__name__}.send ({__file__}:")


def test_the_function_itself_is_there_for_unit_tests() -> None:
    assert job(send).fn is send


@pytest.mark.parametrize(
    ("payload", "encoded"),
    [
        (Mail("you"), b'{"to":"you"}'),
        (Order(5), b'{"number":5}'),
        (Address(street="here"), b'{"street":"here"}'),
        (Pixel(1), b'{"x":1}'),
        (5, b"5"),
        ("text", b'"text"'),
        ([Mail("you")], b'[{"to":"you"}]'),
        (None, b"null"),
    ],
)
def test_a_payload_is_whatever_msgspec_can_decode(payload: Any, encoded: bytes) -> None:
    @job
    async def take(payload: Mail | int | str | list[Mail] | None) -> None: ...

    @job
    async def take_order(payload: Order) -> None: ...

    @job
    async def take_address(payload: Address) -> None: ...

    @job
    async def take_pixel(payload: Pixel) -> None: ...

    takers: dict[type, Job[Any, Any]] = {Order: take_order, dict: take_address, Pixel: take_pixel}
    taker = takers.get(type(payload), take)
    request = taker(payload)
    assert request.payload == encoded
    assert taker.codec is not None
    assert taker.codec.decode(encoded.decode()) == payload


def test_constraints_on_a_payload_hold_at_the_call() -> None:
    @job
    async def count(payload: Annotated[int, Meta(ge=1)]) -> None: ...

    assert count(1).payload == b"1"
    with pytest.raises(PayloadRefused, match="Expected `int` >= 1"):
        count(0)


def test_a_payload_type_may_be_local_and_its_annotation_a_string() -> None:
    class Local(Struct):
        x: int

    @job
    async def take(payload: "Local") -> None: ...

    @job(queue="others")
    async def take_many(payload: "list[Local] | None") -> None: ...

    assert take.payload_type is Local
    assert take_many([Local(1)]).payload == b'[{"x":1}]'


POSTPONED = """
from __future__ import annotations
from typing import TYPE_CHECKING, Annotated
from msgspec import Meta, Struct
from litestar_jobs import job
if TYPE_CHECKING:
    from nowhere import Mailer, Clock

class Mail(Struct):
    to: str

@job
async def send(payload: Mail, mailer: Mailer, *, clock: Clock | None = None) -> None: ...

@job
def count(payload: Annotated[int, Meta(ge=1)]) -> None: ...

def around():
    class Local(Struct):
        x: int

    @job
    async def inner(payload: Local) -> None: ...
    return inner
"""


@pytest.fixture
def in_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Write a module of this source, and import it; again if it was before."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def load(source: str) -> Any:
        (tmp_path / "module_of_jobs.py").write_text(source)
        importlib.invalidate_caches()
        if before := sys.modules.get("module_of_jobs"):
            return importlib.reload(before)
        return importlib.import_module("module_of_jobs")

    yield load
    sys.modules.pop("module_of_jobs", None)


def test_annotations_may_be_postponed_and_those_of_dependencies_for_type_checkers_alone(in_a_module: Any) -> None:
    module = in_a_module(POSTPONED)
    assert module.send.payload_type is module.Mail
    assert list(module.send.dependencies) == ["mailer", "clock"]
    with pytest.raises(PayloadRefused):
        module.count(0)
    assert module.around().payload_type.__name__ == "Local"


def test_a_module_that_is_loaded_again_replaces_its_jobs(in_a_module: Any) -> None:
    first = in_a_module(POSTPONED).send
    second = in_a_module(POSTPONED).send
    assert first is not second
    assert [each for each in registered_jobs() if each.__module__ == "module_of_jobs" and each.name == "send"] == [
        second
    ]


def test_jobs_register_themselves() -> None:
    @job(name="a name that no other test has")
    async def here() -> None: ...

    assert here in registered_jobs()


def test_a_function_may_be_two_jobs() -> None:
    assert set(select_jobs([job(name="one")(send), job(name="two")(send)])) == {"one", "two"}


def test_dependencies_are_the_parameters_after_the_payload() -> None:
    @job
    async def many(payload: Mail, db_session: AsyncSession, *, job: JobContext, jobs: Jobs) -> None: ...

    @job
    async def none() -> None: ...

    @job
    async def keywords(*, jobs: Jobs) -> None: ...

    assert list(many.dependencies) == ["db_session", "job", "jobs"]
    assert (list(none.dependencies), none.payload_type) == ([], None)
    assert (list(keywords.dependencies), keywords.payload_type) == (["jobs"], None)


def test_a_synchronous_function_runs_in_a_thread_unless_it_is_said_not_to() -> None:
    def work() -> None: ...

    assert job(work).in_thread
    assert job(sync_to_thread=True)(work).in_thread
    assert not job(sync_to_thread=False)(work).in_thread
    assert not job(send).in_thread


def test_a_wrapped_function_is_what_it_wraps() -> None:
    @wraps(send)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return send(*args, **kwargs)

    made = job(wrapper)
    assert made.is_async
    assert made.payload_type is Mail


# What a call gives.


def test_a_call_takes_the_jobs_options_where_it_gives_none() -> None:
    made = job(queue="mails", max_retries=5, priority=2)(send)
    assert made(Mail("you")) == JobRequest(
        job_type="send", payload=b'{"to":"you"}', queue="mails", max_retries=5, priority=2
    )


def test_a_call_may_have_options_of_its_own() -> None:
    soon = datetime.now(UTC)
    request = job(send)(Mail("you"), queue="others", priority=-1, max_retries=0, run_at=soon)
    assert (request.queue, request.priority, request.max_retries, request.run_at) == ("others", -1, 0, soon)
    assert job(send)(Mail("you"), delay=timedelta(minutes=1)).delay_seconds == 60


def test_a_job_without_a_payload_is_called_without_one() -> None:
    @job
    async def report(*, jobs: Jobs) -> None: ...

    assert report().payload == b"null"
    with pytest.raises(DefinitionError, match=r"job 'report' takes no payload: call report\(\)"):
        report(5)  # type: ignore[call-overload]


def test_a_job_with_a_payload_says_that_it_is_missing() -> None:
    with pytest.raises(DefinitionError, match=r"job 'send' needs its payload: send\(Mail\(...\)\)"):
        job(send)()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"queue": ""}, "a queue's name must be text of 1 to 100 characters, not ''"),
        ({"queue": 5}, "a queue's name must be text of 1 to 100 characters, not 5"),
        ({"queue": "q" * 300}, r"a queue's name must be text of 1 to 100 characters, not 'q{40}'… \(300 characters\)"),
        ({"queue": "a\x00b"}, r"a queue's name must not contain control characters: 'a\\x00b'"),
        ({"queue": "a\nb"}, "a queue's name must not contain control characters"),
        ({"queue": "a\x85b"}, "a queue's name must not contain control characters"),
        ({"queue": "a\ud800b"}, "a queue's name must not contain control characters"),
        ({"max_retries": -1}, "max_retries must be a whole number from 0 to 10000, not -1"),
        ({"max_retries": 10_001}, "max_retries must be a whole number"),
        ({"max_retries": 2.0}, "max_retries must be a whole number"),
        ({"max_retries": "3"}, "max_retries must be a whole number from 0 to 10000, not '3'"),
        ({"max_retries": True}, "max_retries must be a whole number"),
        ({"priority": 30_001}, "priority must be a whole number from -30000 to 30000, not 30001"),
        ({"priority": -(10**30)}, "priority must be a whole number"),
        ({"priority": float("nan")}, "priority must be a whole number"),
        ({"priority": False}, "priority must be a whole number"),
    ],
)
def test_a_bad_option_is_refused_at_the_definition_and_at_the_call(options: dict[str, Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        job(**options)
    with pytest.raises(DefinitionError, match=says):
        job(send)(Mail("you"), **options)
    with pytest.raises(DefinitionError, match=says):
        JobRequest(job_type="send", **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"delay": -1}, "delay must lie between 0 and 316224000 seconds, not -1"),
        ({"delay": float("nan")}, "delay must lie between"),
        ({"delay": float("inf")}, "delay must lie between"),
        ({"delay": 10**400}, "delay must lie between"),
        ({"delay": timedelta.max}, "delay must lie between"),
        ({"delay": timedelta(seconds=-1)}, "delay must lie between"),
        ({"delay": "5"}, "delay must be a number of seconds or a timedelta, not '5'"),
        ({"delay": True}, "delay must be a number of seconds or a timedelta, not True"),
        ({"run_at": datetime(2030, 1, 1)}, r"run_at must be an aware datetime, such as datetime.now\(UTC\)"),  # noqa: DTZ001
        ({"run_at": "2030-01-01T00:00:00Z"}, "run_at must be an aware datetime"),
        ({"run_at": 1.0}, "run_at must be an aware datetime"),
        ({"run_at": datetime.now(UTC), "delay": 5}, "give run_at or delay, not both"),
    ],
)
def test_a_bad_time_is_refused_at_the_call(options: dict[str, Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        job(send)(Mail("you"), **options)


@pytest.mark.parametrize("name", ["it's", 'a "quoted" one', "two words", "ünïcode ✓", "a;b--", "$1", "100%", "q" * 100])
def test_a_queue_may_have_any_name_that_can_be_read(name: str) -> None:
    assert job(queue=name)(send)(Mail("you")).queue == name


@pytest.mark.parametrize("payload", ["{}", {}, None, b"", b"{", b"nope", b'"\xff"', b"{}{}"])
def test_a_request_built_by_hand_has_json_for_a_payload(payload: Any) -> None:
    with pytest.raises(DefinitionError, match="a payload must be JSON as bytes"):
        JobRequest(job_type="elsewhere", payload=payload)


# What is refused.


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"quue": "x"},
            "@job has no option 'quue'; it has name, queue, max_retries, retry, retry_on, fail_on, max_snoozes",
        ),
        ({"name": ""}, "a job's name must be text of 1 to 200 characters"),
        ({"name": "n" * 201}, "a job's name must be text of 1 to 200 characters"),
        ({"name": "a\tb"}, "a job's name must not contain control characters"),
        ({"name": 5}, "a job's name must be text"),
        ({"timeout": 0}, "timeout must lie between 0.001 and"),
        ({"timeout": -1}, "timeout must lie between"),
        ({"timeout": float("nan")}, "timeout must lie between"),
        ({"timeout": float("inf")}, "timeout must lie between"),
        ({"timeout": timedelta(0)}, "timeout must lie between"),
        ({"timeout": "30"}, "timeout must be a number of seconds or a timedelta, not '30'"),
        ({"timeout": True}, "timeout must be a number of seconds"),
        ({"retry": Never}, r"retry must be a policy such as Exponential\(\), Fixed\(10\) or Never\(\)"),
        ({"retry": 5}, "retry must be a policy"),
        ({"retry": None}, "retry must be a policy"),
        ({"sync_to_thread": 1}, "sync_to_thread must be True or False, not 1"),
        ({"sync_to_thread": "no"}, "sync_to_thread must be True or False"),
    ],
)
def test_a_bad_option_is_refused_before_there_is_a_function(options: dict[str, Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        job(**options)


class Callable:
    async def method(self, payload: Mail) -> None: ...

    def __call__(self, payload: Mail) -> None: ...


@pytest.mark.parametrize("thing", ["mails", 5, Mail, Callable(), Callable().method, partial(send), print, job(send)])
def test_only_functions_become_jobs(thing: Any) -> None:
    with pytest.raises(DefinitionError, match="@job decorates functions, not "):
        job(thing)


def test_a_lambda_has_no_name_to_be_a_job_by() -> None:
    with pytest.raises(DefinitionError, match=r'is a lambda: write a function, or give a name with @job\(name="..."\)'):
        job(lambda: None)
    assert job(name="named")(lambda: None).name == "named"


def test_a_method_cannot_be_a_job() -> None:
    with pytest.raises(DefinitionError, match=r"'self' is the payload and needs a type annotation \(methods cannot"):

        class Service:
            @job
            async def run(self, payload: Mail) -> None: ...


def generator() -> Iterator[int]:
    yield 1


async def asynchronous_generator() -> AsyncIterator[int]:
    yield 1


async def positional(payload: Mail, *rest: Any) -> None: ...


async def keywords(payload: Mail, **rest: Any) -> None: ...


async def positional_only(payload: Mail, mailer: Any, /) -> None: ...


async def not_annotated(payload) -> None: ...  # type: ignore[no-untyped-def]


async def unknown_type(payload: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821


async def broken_annotation(payload: "Mail[") -> None: ...  # type: ignore[valid-type]  # noqa: F722


async def with_a_default(payload: Mail = Mail("you")) -> None: ...  # noqa: B008


async def context_first(job: JobContext) -> None: ...


async def client_first(jobs: Jobs) -> None: ...


async def dependency_first(mailer: NamedDependency[Callable]) -> None: ...


async def session_first(db_session: AsyncSession) -> None: ...


async def strangers_inside(payload: dict[str, list[Callable]]) -> None: ...


class Loose(Struct):
    x: "Nowhere"  # type: ignore[name-defined]  # noqa: F821


async def struct_that_does_not_resolve(payload: Loose) -> None: ...


KEYWORDS_ONLY = r"A job without a payload takes keywords only: def {}\(\*, {}: ...\)"


@pytest.mark.parametrize(
    ("fn", "says"),
    [
        (generator, "is a generator; a job is a function that returns when it is done"),
        (asynchronous_generator, "is a generator"),
        (positional, r"has the parameter \*rest: Any, but dependencies are filled by name: name each one"),
        (keywords, r"has the parameter \*\*rest: Any, but dependencies are filled by name"),
        (positional_only, "dependency 'mailer' must not be positional-only"),
        (not_annotated, "its first parameter 'payload' is the payload and needs a type annotation"),
        (unknown_type, "the type of its payload cannot be resolved .*'Nowhere'.* import it outside TYPE_CHECKING"),
        (broken_annotation, "the type of its payload cannot be resolved"),
        (with_a_default, "its payload 'payload' has a default, but a call of the job always gives it"),
        (context_first, KEYWORDS_ONLY.format("context_first", "job")),
        (client_first, KEYWORDS_ONLY.format("client_first", "jobs")),
        (dependency_first, KEYWORDS_ONLY.format("dependency_first", "mailer")),
        (session_first, r"but AsyncSession cannot be one: .* If the parameter is a dependency, let the job take keywo"),
        (strangers_inside, "msgspec knows no Callable"),
        (struct_that_does_not_resolve, "Loose cannot be one: name 'Nowhere' is not defined"),
    ],
)
def test_a_function_that_cannot_be_a_job_is_refused_with_its_place(fn: Any, says: str) -> None:
    with pytest.raises(DefinitionError, match=says) as refused:
        job(fn)
    assert f"{__name__}.{fn.__name__} ({__file__}:" in str(refused.value)


def test_sync_to_thread_is_for_functions_that_are_not_async() -> None:
    with pytest.raises(DefinitionError, match="is async; sync_to_thread is for functions that are not"):
        job(sync_to_thread=True)(send)


def test_what_is_refused_is_not_registered() -> None:
    before = registered_jobs()
    with pytest.raises(DefinitionError):
        job(context_first)
    assert registered_jobs() == before


# Names in an application.


def test_two_jobs_of_one_name_are_refused_with_both_places() -> None:
    @job(name="same")
    async def one() -> None: ...

    @job(name="same")
    async def two() -> None: ...

    both = rf"two jobs are named 'same': .*\.one \({__file__}:\d+\) and .*\.two \({__file__}:\d+\)\. Give one of them"
    with pytest.raises(ConfigurationError, match=both):
        select_jobs([one, two])
    with pytest.raises(ConfigurationError, match=both):
        Litestar(plugins=[JobsPlugin(JobsConfig(dsn=NOWHERE, jobs=[one, two]))])


def test_a_job_may_be_listed_twice() -> None:
    made = job(send)
    assert select_jobs([made, made]) == {"send": made}


@pytest.mark.parametrize("thing", [send, "send", None, Mail])
def test_only_jobs_are_jobs_of_an_application(thing: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"JobsConfig\(jobs=\[...\]\) takes functions decorated with @job, not"
    ):
        Litestar(plugins=[JobsPlugin(JobsConfig(dsn=NOWHERE, jobs=[thing]))])


def test_no_list_means_every_job_that_was_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    made = job(name="only")(send)
    monkeypatch.setattr("litestar_jobs.define._registry", {("here", "there", "only"): made})
    assert select_jobs(None) == {"only": made}


def test_options_are_values_that_nobody_changes() -> None:
    request = job(send)(Mail("you"))
    with pytest.raises(AttributeError):
        request.queue = "others"  # type: ignore[misc]
    assert msgspec.structs.replace(request, queue="others").queue == "others"
    with pytest.raises(DefinitionError):
        msgspec.structs.replace(request, queue="")
