"""Dependencies of jobs: the application's own, and errors at construction for those that a job cannot have."""

import asyncio
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from inspect import Parameter as Named
from inspect import Signature
from typing import Annotated, Any

import pytest
from litestar import Litestar, Request, Router, get
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.exceptions import LitestarWarning
from litestar.params import Dependency, HeaderParameter, Parameter, QueryParameter
from msgspec import Struct

from litestar_jobs import Job, JobContext, JobRow, Jobs, JobsConfig, JobsPlugin, JobStatus, Never, job
from litestar_jobs.context import current_job
from litestar_jobs.errors import ConfigurationError
from litestar_jobs.telemetry import CleanupFailed, Event
from litestar_jobs.testing import ended, running

NOWHERE = "postgresql://nobody@localhost:1/nowhere"


async def outcome(
    dsn: str,
    asked: Job[None, Any],
    dependencies: dict[str, Any] | None = None,
    *,
    of_jobs: dict[str, Provide] | None = None,
    **config: Any,
) -> JobRow:
    """How the job ends in an application with these dependencies."""
    settings = JobsConfig(dsn=dsn, jobs=[asked], dependencies=of_jobs or {}, **config)
    plugin = JobsPlugin(settings)
    async with running(Litestar(dependencies=dependencies or {}, plugins=[plugin])):
        return await ended(plugin.client, await plugin.client.enqueue(asked()))


async def completes(dsn: str, asked: Job[None, Any], dependencies: dict[str, Any] | None = None, **more: Any) -> None:
    row = await outcome(dsn, asked, dependencies, **more)
    assert row.status is JobStatus.COMPLETED, row.last_error


def refusal(asked: Job[Any, Any], dependencies: dict[str, Any] | None = None, **config: Any) -> str:
    """What ``Litestar(...)`` says to a job with these dependencies."""
    with pytest.raises(ConfigurationError) as caught:
        Litestar(
            dependencies=dependencies or {},
            plugins=[JobsPlugin(JobsConfig(dsn=NOWHERE, jobs=[asked], **config))],
        )
    return str(caught.value)


def given(seen: list[Any]) -> Job[None, None]:
    """A job that notes what it was given as ``thing``."""

    @job(name="given")
    async def note(*, thing: Any) -> None:
        seen.append(thing)

    return note


# What fills a parameter.


class Settings:
    """A dependency that is a class."""

    def __init__(self, base: NamedDependency[int]) -> None:
        self.number = base + 1


class FromInstance:
    """A dependency that is an object to call."""

    async def __call__(self, base: NamedDependency[int]) -> int:
        return base + 2


class Record(Struct):
    base: int


async def provide_base() -> int:
    return 40


def add(base: NamedDependency[int], more: int) -> int:
    return base + more


async def add_async(base: NamedDependency[int]) -> int:
    return base + 2


def add_generator(base: NamedDependency[int]) -> Iterator[int]:
    yield base + 2


async def add_async_generator(base: NamedDependency[int]) -> AsyncIterator[int]:
    yield base + 2


def hand_signed(*_arguments: Any, **values: Any) -> int:
    return int(values["base"]) + 2


hand_signed.__annotations__ = {"base": int}
hand_signed.__signature__ = Signature([Named("base", Named.POSITIONAL_OR_KEYWORD, annotation=int)])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "provider",
    [
        pytest.param(Provide(partial(add, more=2), sync_to_thread=False), id="partial"),
        pytest.param(Provide(partial(add, more=2), sync_to_thread=True), id="partial in a thread"),
        pytest.param(Provide(add_async), id="async"),
        pytest.param(Provide(add_async, use_cache=True), id="cached"),
        pytest.param(Provide(add_generator), id="generator"),
        pytest.param(Provide(add_async_generator), id="async generator"),
        pytest.param(Provide(hand_signed, sync_to_thread=False), id="signed by hand"),
        pytest.param(Provide(FromInstance()), id="instance"),
        pytest.param(Provide(lambda base: base + 2, sync_to_thread=False), id="lambda"),
    ],
)
async def test_a_provider_of_any_kind_fills_a_parameter(dsn: str, provider: Provide) -> None:
    seen: list[int] = []
    await completes(dsn, given(seen), {"base": Provide(provide_base)}, of_jobs={"thing": provider})

    assert seen == [42]


@pytest.mark.parametrize("provider", [add_async, add_generator, add_async_generator, hand_signed])
@pytest.mark.filterwarnings("ignore:Use of a synchronous callable")
async def test_an_application_may_give_callables_as_they_are(dsn: str, provider: Callable[..., Any]) -> None:
    seen: list[int] = []
    await completes(dsn, given(seen), {"thing": provider, "base": provide_base})

    assert seen == [42]


async def test_litestar_alone_warns_of_a_synchronous_callable() -> None:
    with pytest.warns(LitestarWarning, match="synchronous callable") as warned:
        Litestar(
            dependencies={"thing": hand_signed, "base": provide_base},
            plugins=[JobsPlugin(JobsConfig(dsn=NOWHERE, jobs=[given([])]))],
        )
    alone = len(warned)
    with pytest.warns(LitestarWarning) as warned:
        Litestar(dependencies={"thing": hand_signed, "base": provide_base})
    assert len(warned) == alone


async def test_classes_are_providers_too(dsn: str) -> None:
    seen: list[Any] = []

    @job
    async def classes(*, settings: Settings, record: Record) -> None:
        seen.extend([settings.number, record.base])

    await completes(
        dsn,
        classes,
        {
            "settings": Provide(Settings, sync_to_thread=False),
            "record": Provide(Record, sync_to_thread=False),
            "base": provide_base,
        },
    )
    assert seen == [41, 40]


async def test_a_shared_dependency_is_made_once_an_attempt(dsn: str) -> None:
    made: list[int] = []

    async def base() -> int:
        made.append(1)
        return 1

    async def left(base: int) -> int:
        return base

    async def right(base: int) -> int:
        return base

    @job
    async def diamond(*, left: int, right: int, base: int) -> None:
        assert left == right == base

    await completes(dsn, diamond, {"left": left, "right": right, "base": base})
    assert made == [1]


async def test_a_cached_dependency_is_made_once_for_requests_and_jobs(dsn: str) -> None:
    made: list[int] = []

    async def costly() -> int:
        made.append(1)
        return 7

    @get("/")
    async def show(costly: NamedDependency[int]) -> int:
        return costly

    @job
    async def use(*, costly: int) -> None:
        assert costly == 7

    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[use]))
    app = Litestar([show], dependencies={"costly": Provide(costly, use_cache=True)}, plugins=[plugin])
    async with running(app) as http:
        assert (await http.get("/")).json() == 7
        for _ in range(2):
            row = await ended(plugin.client, await plugin.client.enqueue(use()))
            assert row.status is JobStatus.COMPLETED
    assert made == [1]


async def test_a_provider_that_asks_for_a_thread_gets_one_with_the_jobs_context(dsn: str) -> None:
    def blocking() -> tuple[str, Any]:
        return threading.current_thread().name, current_job.get()

    seen: list[Any] = []
    await completes(dsn, given(seen), {"thing": Provide(blocking, sync_to_thread=True)})

    ((thread, context),) = seen
    assert thread != threading.current_thread().name
    assert context.job_type == "given"


async def test_dependencies_of_jobs_go_before_the_applications(dsn: str) -> None:
    seen: list[str] = []
    await completes(
        dsn, given(seen), {"thing": provide_base}, of_jobs={"thing": Provide(lambda: "of jobs", sync_to_thread=False)}
    )
    assert seen == ["of jobs"]


async def test_what_only_a_request_has_can_be_provided_for_jobs(dsn: str) -> None:
    async def user(request: Any) -> str:
        return str(request)

    seen: list[str] = []
    await completes(
        dsn, given(seen), {"thing": user}, of_jobs={"request": Provide(lambda: "none", sync_to_thread=False)}
    )
    assert seen == ["none"]


async def test_state_is_the_applications_and_reaches_providers(dsn: str) -> None:
    async def thing(state: State) -> Any:
        return state

    seen: list[Any] = []
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[asked := given(seen)]))
    app = Litestar(dependencies={"thing": thing}, state=State({"answer": 42}), plugins=[plugin])
    async with running(app):
        await ended(plugin.client, await plugin.client.enqueue(asked()))

    assert seen == [app.state]
    assert seen[0].answer == 42


async def test_a_job_and_its_providers_may_know_about_the_job(dsn: str) -> None:
    async def thing(job: JobContext) -> JobContext:
        return job

    seen: list[Any] = []

    @job(max_retries=2)
    async def introspect(*, job: JobContext, thing: JobContext) -> None:
        seen.extend([job, thing])

    row = await outcome(dsn, introspect, {"thing": thing})
    assert row.status is JobStatus.COMPLETED
    context, same = seen
    assert context is same
    assert (context.id, context.job_type, context.attempt, context.max_retries) == (row.id, "introspect", 1, 2)
    assert not context.is_last_attempt


@pytest.mark.parametrize("in_thread", [True, False])
async def test_a_synchronous_job_runs_in_a_thread_with_its_context_unless_told_otherwise(
    dsn: str,
    in_thread: bool,  # noqa: FBT001 - a parameter of pytest's
) -> None:
    seen: list[Any] = []

    @job(sync_to_thread=in_thread)
    def blocking(*, job: JobContext) -> None:
        seen.extend([job, current_job.get(), threading.current_thread() is threading.main_thread()])

    await completes(dsn, blocking)
    asked, current, in_main = seen
    assert asked is current
    assert in_main is not in_thread


@pytest.mark.parametrize("key", ["jobs", "job_queue"])
async def test_a_job_may_enqueue_through_the_client_under_its_key(dsn: str, key: str) -> None:
    followed = asyncio.Event()

    @job
    async def second() -> None:
        followed.set()

    async def enqueue_second(client: Any) -> None:
        await client.enqueue(second())

    @job(name="first")
    async def with_jobs(*, jobs: Jobs) -> None:
        await enqueue_second(jobs)

    @job(name="first")
    async def with_job_queue(*, job_queue: Jobs) -> None:
        await enqueue_second(job_queue)

    first = {"jobs": with_jobs, "job_queue": with_job_queue}[key]
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[first, second], dependency_key=key))
    async with running(Litestar(plugins=[plugin])):
        await plugin.client.enqueue(first())
        await asyncio.wait_for(followed.wait(), 5)


async def test_a_parameter_with_a_default_that_nobody_provides_keeps_it(dsn: str) -> None:
    with pytest.warns(DeprecationWarning, match="NamedDependency"):
        marked = Dependency(default="marked")

    async def thing(absent: int = 3, other: Any = marked) -> tuple[int, Any]:
        return absent, other

    seen: list[Any] = []

    @job
    async def optional(*, thing: Any, absent: str = "none", other: Any = marked) -> None:
        seen.extend([*thing, absent, other])

    await completes(dsn, optional, {"thing": thing})
    assert seen == [3, "marked", "none", "marked"]


async def test_a_type_that_only_type_checkers_know_is_no_obstacle(dsn: str) -> None:
    async def thing(base: "OnlyForTypeCheckers") -> Any:  # type: ignore[name-defined]  # noqa: F821 - the point
        return base

    seen: list[int] = []
    await completes(dsn, given(seen), {"base": provide_base}, of_jobs={"thing": Provide(thing)})
    assert seen == [40]


# Cleaning up.


def witness(log: list[str], name: str, *, swallow: bool = False, fail: bool = False) -> Callable[..., Any]:
    """A generator that notes its beginning and its end, and what it saw of the handler's error."""

    def generator() -> Iterator[str]:
        log.append(f"open {name}")
        try:
            yield name
        except Exception as error:
            log.append(f"{name} saw {error!r}")
            if not swallow:
                raise
        finally:
            log.append(f"close {name}")
        if fail:
            raise RuntimeError(f"{name} cannot end")

    return generator


def async_witness(log: list[str], name: str, *, swallow: bool = False, fail: bool = False) -> Callable[..., Any]:
    async def generator() -> AsyncIterator[str]:
        await asyncio.sleep(0)
        for step in (inner := witness(log, name, swallow=swallow, fail=fail)()):
            try:
                yield step
            except Exception as error:  # noqa: BLE001 - passed on
                try:
                    inner.throw(error)
                except StopIteration:
                    return

    return generator


@job(retry=Never())
async def succeed(*, one: str, two: str) -> None: ...


@job(retry=Never())
async def fail(*, one: str, two: str) -> None:
    raise LookupError("of the handler")


async def test_generators_are_cleaned_up_in_reverse_order(dsn: str) -> None:
    log: list[str] = []
    await completes(dsn, succeed, {"one": witness(log, "1"), "two": async_witness(log, "2")})

    assert log == ["open 1", "open 2", "close 2", "close 1"]


@pytest.mark.parametrize("swallow", [False, True])
async def test_generators_see_the_handlers_error_and_none_can_swallow_it(dsn: str, swallow: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    log: list[str] = []
    row = await outcome(
        dsn, fail, {"one": witness(log, "1", swallow=swallow), "two": async_witness(log, "2", swallow=swallow)}
    )

    assert row.status is JobStatus.FAILED
    assert row.last_error == "LookupError: of the handler"
    error = "LookupError('of the handler')"
    assert log == ["open 1", "open 2", f"2 saw {error}", "close 2", f"1 saw {error}", "close 1"]


async def test_an_error_in_a_clean_up_fails_the_job_and_the_others_still_end(dsn: str) -> None:
    log: list[str] = []
    row = await outcome(dsn, succeed, {"one": witness(log, "1"), "two": async_witness(log, "2", fail=True)})

    assert row.status is JobStatus.FAILED
    assert row.last_error == "RuntimeError: 2 cannot end"
    assert log[-2:] == ["close 2", "close 1"]


async def test_an_error_in_a_clean_up_after_the_handlers_is_reported_and_the_handlers_is_kept(dsn: str) -> None:
    log: list[str] = []
    events: list[Event] = []

    def other_error() -> Iterator[str]:
        try:
            yield "2"
        finally:
            raise RuntimeError("of the clean-up")

    row = await outcome(dsn, fail, {"one": witness(log, "1"), "two": other_error}, hooks=[events.append])

    assert row.last_error == "LookupError: of the handler"
    assert log[-1] == "close 1"
    (failed,) = [event for event in events if isinstance(event, CleanupFailed)]
    assert str(failed.error) == "of the clean-up"


async def test_an_error_in_a_provider_fails_the_job_and_ends_what_was_made_before(dsn: str) -> None:
    log: list[str] = []

    async def broken(one: str) -> str:
        raise LookupError("no second one")

    row = await outcome(dsn, succeed, {"one": witness(log, "1"), "two": broken})
    assert row.last_error == "LookupError: no second one"
    assert log == ["open 1", "1 saw LookupError('no second one')", "close 1"]


# Errors at construction: the job, the parameter, the path, the remedy.


@job(name="mistaken")
async def wants_thing(*, thing: int) -> None: ...


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    message = refusal(wants_thing, {"think": provide_base})

    assert "test_inject.wants_thing (" in message
    assert "needs 'thing', but the application has no dependency of that name" in message
    assert "Jobs have: job, jobs, state, think." in message


@pytest.mark.parametrize("name", ["request", "socket", "headers", "query", "cookies", "body", "data", "scope"])
def test_what_only_a_request_has_is_refused_with_the_remedy(name: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"async def handler(*, {name}: object = None) -> None: ...", namespace)
    message = refusal(job(namespace["handler"]))

    assert f"needs '{name}', which only a request has" in message
    assert f"into its payload, or give jobs another provider in JobsConfig(dependencies={{'{name}': ...}})" in message


def test_the_path_to_what_only_a_request_has_is_named() -> None:
    async def user(request: "Request[Any, Any, Any]") -> str: ...  # type: ignore[empty-body]

    async def thing(user: str) -> str: ...  # type: ignore[empty-body]

    message = refusal(wants_thing, {"thing": thing, "user": user})
    assert "needs 'request' (through thing → user), which only a request has" in message
    assert "JobsConfig(dependencies={'user': ...})" in message


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    OLD_HEADER = Parameter(header="x-token")
    OLD_OPTIONAL_HEADER = Parameter(header="x-token", default=None)


async def with_header(token: Annotated[str, HeaderParameter(name="x-token")]) -> str: ...  # type: ignore[empty-body]


async def with_optional_header(token: Annotated[str | None, HeaderParameter(name="x-token")] = None) -> str: ...  # type: ignore[empty-body]


async def with_old_header(token: str = OLD_HEADER) -> str: ...  # type: ignore[empty-body]


async def with_old_optional_header(token: str | None = OLD_OPTIONAL_HEADER) -> str: ...  # type: ignore[empty-body]


async def with_query(token: Annotated[int, QueryParameter(ge=1)] = 1) -> str: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    "provider", [with_header, with_optional_header, with_old_header, with_old_optional_header, with_query]
)
def test_headers_and_query_parameters_are_refused_even_with_a_default(provider: Callable[..., Any]) -> None:
    message = refusal(wants_thing, {"thing": provider})

    assert "needs 'token' (through thing), which only a request has" in message
    assert "JobsConfig(dependencies={'thing': ...})" in message


def test_a_query_parameter_without_a_mark_is_an_unknown_name() -> None:
    async def thing(page: int) -> int: ...  # type: ignore[empty-body]

    message = refusal(wants_thing, {"thing": thing})
    assert "needs 'page' (through thing), but the application has no dependency of that name" in message
    assert "query parameters exist only in requests" in message


def test_a_dependency_of_a_router_is_not_visible_and_the_error_says_so() -> None:
    plugin = JobsPlugin(JobsConfig(dsn=NOWHERE, jobs=[wants_thing]))
    router = Router("/", route_handlers=[], dependencies={"thing": Provide(provide_base)})
    with pytest.raises(ConfigurationError, match=r"dependencies of routers, .*: put them on the application"):
        Litestar([router], plugins=[plugin])


def test_dependencies_in_a_circle_are_refused_with_the_circle() -> None:
    async def thing(left: int) -> int: ...  # type: ignore[empty-body]

    async def left(right: int) -> int: ...  # type: ignore[empty-body]

    async def right(left: int) -> int: ...  # type: ignore[empty-body]

    message = refusal(wants_thing, {"thing": thing, "left": left, "right": right})
    assert "wants_thing (" in message
    assert "go in a circle: left → right → left" in message


def test_an_applications_own_dependency_named_job_is_not_mixed_up_with_the_context() -> None:
    async def thing(job: str) -> int: ...  # type: ignore[empty-body]

    message = refusal(wants_thing, {"thing": thing, "job": provide_base})
    assert "needs the application's dependency 'job' (through thing)" in message
    assert "another name" in message


@pytest.mark.parametrize("name", ["job", "state", "queue_client"])
def test_a_dependency_of_jobs_that_would_never_be_used_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"every job has its own '{name}'"):
        JobsConfig(dependencies={name: Provide(provide_base)}, dependency_key="queue_client")


def test_an_application_without_a_worker_plans_nothing() -> None:
    Litestar(plugins=[JobsPlugin(JobsConfig(dsn=NOWHERE, jobs=[wants_thing], worker=None))])
