"""Step 1, define: a function becomes a job.

Nothing here touches a database, and calling a job does not either: it gives a :class:`JobRequest`.
"""

import inspect
import sys
from collections.abc import Callable, Coroutine, Iterable
from datetime import datetime
from typing import Annotated, Any, Concatenate, Generic, TypeVar, get_args, get_origin, overload

import msgspec

from litestar_jobs.context import JobContext
from litestar_jobs.durations import Duration, seconds
from litestar_jobs.errors import ConfigurationError, DefinitionError
from litestar_jobs.payload import NO_PAYLOAD, PayloadCodec
from litestar_jobs.request import (
    MAX_JOB_TYPE,
    MAX_PRIORITY,
    MAX_RETRIES,
    JobRequest,
    check_name,
    check_queue,
    whole_number,
)
from litestar_jobs.retry import Exponential, RetryPolicy

__all__ = ("Job", "JobDecorator", "job", "registered_jobs", "select_jobs")

PayloadT = TypeVar("PayloadT")
ResultT = TypeVar("ResultT")
UNSET: Any = msgspec.UNSET

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class JobOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What ``@job(...)`` takes."""

    name: str | None = None
    queue: str = "default"
    max_retries: int = 3
    retry: RetryPolicy = Exponential()
    timeout: Duration | None = None
    priority: int = 0
    sync_to_thread: bool | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            check_name(self.name, "a job's name", MAX_JOB_TYPE)
        check_queue(self.queue)
        whole_number(self.max_retries, "max_retries", 0, MAX_RETRIES)
        whole_number(self.priority, "priority", -MAX_PRIORITY, MAX_PRIORITY)
        if not callable(self.retry):
            raise DefinitionError(
                f"retry must be a policy such as Exponential(), Fixed(10) or Never(), or a function "
                f"(attempt, exception) -> timedelta | None, not {self.retry!r}"
            )
        if self.timeout is not None:
            seconds(self.timeout, "timeout", least=0.001)


class Job(Generic[PayloadT, ResultT]):
    """A function that runs in the background. Calling it makes a request; ``.fn`` is the function itself, for tests."""

    def __init__(self, fn: Callable[..., Any], options: JobOptions, namespace: dict[str, Any]) -> None:
        self.fn = fn
        self.name = options.name or fn.__name__
        self.queue = options.queue
        self.max_retries = options.max_retries
        self.retry = options.retry
        self.timeout = None if options.timeout is None else seconds(options.timeout, "timeout")
        self.priority = options.priority
        self.where = f"{fn.__module__}.{fn.__qualname__} ({fn.__code__.co_filename}:{fn.__code__.co_firstlineno})"
        self.is_async = inspect.iscoroutinefunction(fn)
        self.in_thread = not self.is_async and options.sync_to_thread is not False
        self.__doc__ = fn.__doc__
        self.__name__ = fn.__name__
        self.__module__ = fn.__module__
        self.__wrapped__ = fn
        check_name(self.name, "a job's name", MAX_JOB_TYPE)
        if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise DefinitionError(f"job {self.where} is a generator; a job is a function that returns when it is done")
        if self.is_async and options.sync_to_thread is not None:
            raise DefinitionError(f"job {self.where} is async; sync_to_thread is for functions that are not")
        payload, self.dependencies = _split(self)
        self.codec: PayloadCodec[PayloadT] | None = (
            None if payload is None else PayloadCodec(self.name, _payload_type(self, payload, namespace))
        )

    @property
    def payload_type(self) -> Any:
        """The type of the payload; None for a job without one."""
        return None if self.codec is None else self.codec.type

    def __repr__(self) -> str:
        return f"<Job {self.name!r} from {self.where}>"

    @overload
    def __call__(
        self: "Job[None, ResultT]",
        /,
        *,
        queue: str = ...,
        priority: int = ...,
        delay: Duration | None = ...,
        run_at: datetime | None = ...,
        max_retries: int = ...,
    ) -> JobRequest: ...

    @overload
    def __call__(
        self,
        payload: PayloadT,
        /,
        *,
        queue: str = ...,
        priority: int = ...,
        delay: Duration | None = ...,
        run_at: datetime | None = ...,
        max_retries: int = ...,
    ) -> JobRequest: ...

    def __call__(  # noqa: PLR0913 - these are the options of one call
        self,
        payload: Any = UNSET,
        /,
        *,
        queue: str | None = None,
        priority: int | None = None,
        delay: Duration | None = None,
        run_at: datetime | None = None,
        max_retries: int | None = None,
    ) -> JobRequest:
        """Ask for an execution with this payload. Options left out are the job's own.

        Raises :exc:`PayloadRefused` for a payload that would not come back as it went in, and
        :exc:`DefinitionError` for options that make no sense.
        """
        if (payload is UNSET) != (self.codec is None):
            raise DefinitionError(
                f"job {self.name!r} takes no payload: call {self.__name__}()"
                if self.codec is None
                else f"job {self.name!r} needs its payload: call {self.__name__}({self.payload_type!r} instance)"
            )
        return JobRequest(
            job_type=self.name,
            payload=NO_PAYLOAD if self.codec is None else self.codec.encode(payload),
            queue=self.queue if queue is None else queue,
            max_retries=self.max_retries if max_retries is None else max_retries,
            priority=self.priority if priority is None else priority,
            run_at=run_at,
            delay=delay,
        )


class JobDecorator:
    """``@job``, or with options ``@job(queue="emails", max_retries=5)``.

    The first parameter of the function is the payload; the parameters after it are dependencies, filled by name.
    A job without a payload has only keyword parameters: ``async def report(*, db_session: ...)``.

    Options: ``name`` (the function's), ``queue``, ``max_retries`` (after the first attempt), ``retry`` (the policy),
    ``timeout`` of an attempt in seconds (none), ``priority`` (lower runs first), and for synchronous functions
    ``sync_to_thread`` (yes: with False they run in the event loop and must not block).
    """

    def __init__(self, options: JobOptions) -> None:
        self._options = options

    @overload
    def __call__(self, fn: Callable[[], Coroutine[Any, Any, ResultT]], /) -> Job[None, ResultT]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[PayloadT, ...], Coroutine[Any, Any, ResultT]], /
    ) -> Job[PayloadT, ResultT]: ...
    @overload
    def __call__(self, fn: Callable[..., Coroutine[Any, Any, ResultT]], /) -> Job[None, ResultT]: ...
    @overload
    def __call__(self, fn: Callable[[], ResultT], /) -> Job[None, ResultT]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[PayloadT, ...], ResultT], /) -> Job[PayloadT, ResultT]: ...
    @overload
    def __call__(self, fn: Callable[..., ResultT], /) -> Job[None, ResultT]: ...
    @overload
    def __call__(
        self,
        /,
        *,
        name: str | None = ...,
        queue: str = ...,
        max_retries: int = ...,
        retry: RetryPolicy = ...,
        timeout: Duration | None = ...,
        priority: int = ...,
        sync_to_thread: bool | None = ...,
    ) -> "JobDecorator": ...

    def __call__(self, fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        if fn is None:
            return JobDecorator(msgspec.structs.replace(self._options, **options))
        if not inspect.isfunction(fn):
            raise DefinitionError(f"@job decorates functions, not {fn!r}")
        made: Job[Any, Any] = Job(fn, self._options, sys._getframe(1).f_locals)  # noqa: SLF001 - local payload types
        _registry[fn.__module__, fn.__qualname__, made.name] = made
        return made


job = JobDecorator(JobOptions())

_registry: dict[tuple[str, str, str], Job[Any, Any]] = {}
"""Every job by where it is defined, so that a module that is loaded again replaces its own."""


def registered_jobs() -> list[Job[Any, Any]]:
    """Every job of every module that was imported."""
    return list(_registry.values())


def select_jobs(jobs: Iterable[Job[Any, Any]] | None) -> dict[str, Job[Any, Any]]:
    """The jobs of an application by name: these, or all that are registered.

    Raises :exc:`ConfigurationError` if two have one name.
    """
    chosen: dict[str, Job[Any, Any]] = {}
    for each in registered_jobs() if jobs is None else jobs:
        if not isinstance(each, Job):
            raise ConfigurationError(f"JobsConfig(jobs=[...]) takes functions decorated with @job, not {each!r}")
        other = chosen.setdefault(each.name, each)
        if other is not each:
            raise ConfigurationError(
                f"two jobs are named {each.name!r}: {other.where} and {each.where}. "
                'Give one of them a name of its own with @job(name="..."), or choose with JobsConfig(jobs=[...]).'
            )
    return chosen


def _split(job: Job[Any, Any]) -> tuple[inspect.Parameter | None, dict[str, inspect.Parameter]]:
    """The payload parameter, and the dependencies after it."""
    parameters = list(inspect.signature(job.fn).parameters.values())
    for parameter in parameters:
        if parameter.kind in VARIADIC:
            raise DefinitionError(
                f"job {job.where} has the parameter {parameter}, but dependencies are filled by name: name each one"
            )
    first = parameters[0] if parameters and parameters[0].kind in POSITIONAL else None
    rest = parameters if first is None else parameters[1:]
    for parameter in rest:
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise DefinitionError(f"job {job.where}: dependency {parameter.name!r} must not be positional-only")
    return first, {parameter.name: parameter for parameter in rest}


def _payload_type(job: Job[Any, Any], parameter: inspect.Parameter, namespace: dict[str, Any]) -> Any:
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        raise DefinitionError(
            f"job {job.where}: its first parameter {parameter.name!r} is the payload and needs a type annotation"
        )
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, job.fn.__globals__, namespace)  # noqa: S307 - the author's own annotation
        except NameError as error:
            raise DefinitionError(
                f"job {job.where}: the type of its payload cannot be resolved ({error}). "
                "It is needed at run time: define it before the job, and import it outside TYPE_CHECKING."
            ) from error
    if annotation is JobContext or _is_dependency(annotation):
        raise DefinitionError(
            f"job {job.where}: its first parameter {parameter.name!r} would be the payload, but is a dependency. "
            f"A job without a payload takes keywords only: def {job.__name__}(*, {parameter.name}: ...)."
        )
    return annotation


def _is_dependency(annotation: Any) -> bool:
    """Whether it carries Litestar's mark of a dependency, ``NamedDependency[...]``."""
    return get_origin(annotation) is Annotated and any(
        type(mark).__module__ == "litestar.di" for mark in get_args(annotation)[1:]
    )


