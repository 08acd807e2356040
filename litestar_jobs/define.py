"""Step 1, define: a function becomes a job.

Nothing here touches a database, and calling a job does not either: it gives a :class:`JobRequest`.
"""

import inspect
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

import msgspec

from litestar_jobs.durations import Duration, seconds
from litestar_jobs.errors import DefinitionError
from litestar_jobs.limits import Limit, Rate, gating
from litestar_jobs.options import JobOptions
from litestar_jobs.payload import NO_PAYLOAD, PayloadCodec, ResultCodec
from litestar_jobs.request import (
    MAX_JOB_TYPE,
    JobRequest,
    check_name,
)
from litestar_jobs.retry import ErrorTypes, RetryOn, RetryPolicy, with_rules
from litestar_jobs.row import FailedJob
from litestar_jobs.schedule import Cron, Every, Schedule, bound, given
from litestar_jobs.signature import payload_type, result_type, split, where
from litestar_jobs.unique import KeyMaker, Unique

__all__ = ("Job", "JobDecorator", "job", "registered_jobs")

PayloadT = TypeVar("PayloadT")
ResultT = TypeVar("ResultT")
P = ParamSpec("P")
UNSET: Any = msgspec.UNSET


class Job(Generic[PayloadT, ResultT]):
    """A function that runs in the background. Calling it makes a request; ``.fn`` is the function itself, for tests."""

    def __init__(self, fn: Callable[..., Any], options: JobOptions, namespace: dict[str, Any]) -> None:
        """``namespace`` holds the names that are local where the function is defined."""
        self.fn = fn
        self.where = where(fn)
        self.name = fn.__name__ if options.name is None else options.name
        self.queue = options.queue
        self.max_retries = options.max_retries
        self.retry = with_rules(options.retry, options.retry_on, options.fail_on)
        self.max_snoozes = options.max_snoozes
        self.on_failure = options.on_failure
        self.timeout = None if options.timeout is None else seconds(options.timeout, "timeout")
        self.limits = (options.expires_in, options.deadline)
        self.priority = options.priority
        self.is_async = inspect.iscoroutinefunction(inspect.unwrap(fn))
        self.in_thread = not self.is_async and options.sync_to_thread is not False
        self.__doc__ = fn.__doc__
        self.__module__ = fn.__module__
        self.__name__ = fn.__name__
        self.__qualname__ = fn.__qualname__
        self.__wrapped__ = fn
        self._check(options)
        payload, self.dependencies = split(fn)
        self.codec: PayloadCodec[PayloadT] | None = (
            None if payload is None else PayloadCodec(self.where, self.name, payload_type(fn, payload, namespace))
        )
        returned = result_type(fn, namespace) if options.result else None
        self.result_codec: ResultCodec[ResultT] | None = (
            None if returned is None else ResultCodec(self.where, self.name, returned)
        )
        self._keys = self._key_maker(options)
        self.gating = gating(options.limit, options.rate, name=self.name, where=self.where, codec=self.codec)
        self.schedules: Sequence[Schedule] = bound(
            given(options.cron, options.timezone, options.every, options.schedules), self.name, self.where, self
        )

    def _check(self, options: JobOptions) -> None:
        if self.name == "<lambda>":
            raise DefinitionError(
                f'job {self.where} is a lambda: write a function, or give a name with @job(name="...")'
            )
        check_name(self.name, "a job's name", MAX_JOB_TYPE)
        if inspect.isgeneratorfunction(self.fn) or inspect.isasyncgenfunction(self.fn):
            raise DefinitionError(f"job {self.where} is a generator; a job is a function that returns when it is done")
        if self.is_async and options.sync_to_thread is not None:
            raise DefinitionError(f"job {self.where} is async; sync_to_thread is for functions that are not")
        _check_follow_up(self.name, options.on_failure)

    def _key_maker(self, options: JobOptions) -> KeyMaker | None:
        if options.unique is None:
            return None
        if given(options.cron, options.timezone, options.every, options.schedules):
            raise DefinitionError(
                f"job {self.where} is periodic, and its slots are unique as they are. So that one is left out while another "
                'has not finished, take overlap="skip" in schedules=[Cron(...)]; for calls of the same, a job of its own.'
            )
        try:
            return KeyMaker(options.unique, self.name, self.payload_type)
        except DefinitionError as error:
            raise DefinitionError(f"unique job {self.where}: {error}") from error

    @property
    def payload_type(self) -> Any:
        """The type of the payload; None for a job without one."""
        return None if self.codec is None else self.codec.type

    @property
    def is_plain(self) -> bool:
        """Whether its requests ask for nothing special by themselves."""
        return self.gating is None and not self.is_unique and self.limits == (None, None)

    @property
    def is_unique(self) -> bool:
        """Whether its requests may find that there is one already."""
        return self._keys is not None

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
        expires_in: Duration | None = ...,
        deadline: Duration | None = ...,
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
        expires_in: Duration | None = ...,
        deadline: Duration | None = ...,
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
        expires_in: Duration | None = None,
        deadline: Duration | None = None,
    ) -> JobRequest:
        """Ask for an execution with this payload. Options left out are the job's own.

        Raises :exc:`PayloadRefused` for a payload that would not come back as it went in, and
        :exc:`DefinitionError` for options that make no sense.
        """
        encoded = self._encoded(payload)
        return JobRequest(
            job_type=self.name,
            payload=encoded,
            queue=self.queue if queue is None else queue,
            max_retries=self.max_retries if max_retries is None else max_retries,
            priority=self.priority if priority is None else priority,
            run_at=run_at,
            delay=delay,
            expires_in=self.limits[0] if expires_in is None else expires_in,
            deadline=self.limits[1] if deadline is None else deadline,
            unique=None if self._keys is None else self._keys.key(payload, encoded),
            limited=None if self.gating is None else self.gating.of(encoded),
        )

    def _encoded(self, payload: Any) -> bytes:
        if self.codec is not None:
            if payload is UNSET:
                raise DefinitionError(
                    f"job {self.name!r} needs its payload: {self.__name__}({self.codec.type_name}(...))"
                )
            return self.codec.encode(payload)
        if payload is not UNSET and payload is not None:
            raise DefinitionError(f"job {self.name!r} takes no payload: call {self.__name__}()")
        return NO_PAYLOAD


class JobDecorator:
    """``@job``, or with options ``@job(queue="emails", max_retries=5)``.

    The first parameter of the function is the payload; the parameters after it are dependencies, filled by name.
    A job without a payload has only keyword parameters: ``async def report(*, db_session: ...)``.

    Options: ``name`` (the function's), ``queue``, ``max_retries`` (after the first attempt), ``retry`` (the policy) and
    for which exceptions it holds (``retry_on``, ``fail_on``), ``max_snoozes``, ``on_failure`` (a job that follows when this
    one has failed for good), ``timeout`` of an attempt in seconds (none), ``expires_in`` and ``deadline`` of the whole
    job, ``priority`` (lower runs first), and for synchronous functions ``sync_to_thread`` (yes: with False they run in the
    event loop and must not block). What a function returns is kept if its annotation says that it returns something,
    unless ``result`` is False.

    With ``unique``, a :class:`Unique`, of jobs with one key there is one at a time. With
    a ``limit``, a :class:`Limit`, only so many run at once, and with a ``rate``, a :class:`Rate`, start in a time.

    A periodic job has ``cron`` with a ``timezone`` (UTC), or ``every`` so many seconds, or several ``schedules``, each a
    :class:`Cron` or :class:`Every`.
    """

    def __init__(self, options: JobOptions) -> None:
        self._options = options

    # An async function fits the fourth signature too, but the first that fits decides.
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[Concatenate[PayloadT, ...], Coroutine[Any, Any, ResultT]], /
    ) -> Job[PayloadT, ResultT]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[PayloadT, ...], ResultT], /) -> Job[PayloadT, ResultT]: ...
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, ResultT]], /) -> Job[None, ResultT]: ...
    @overload
    def __call__(self, fn: Callable[P, ResultT], /) -> Job[None, ResultT]: ...
    @overload
    def __call__(
        self,
        /,
        *,
        name: str | None = ...,
        queue: str = ...,
        max_retries: int = ...,
        retry: RetryPolicy = ...,
        retry_on: RetryOn | None = ...,
        fail_on: ErrorTypes | None = ...,
        max_snoozes: int = ...,
        on_failure: Job[FailedJob, Any] | None = ...,
        timeout: Duration | None = ...,
        expires_in: Duration | None = ...,
        deadline: Duration | None = ...,
        priority: int = ...,
        sync_to_thread: bool | None = ...,
        cron: str | None = ...,
        timezone: str | None = ...,
        every: Duration | None = ...,
        schedules: Sequence[Cron | Every] | None = ...,
        result: bool = ...,
        unique: Unique | None = ...,
        limit: Limit | None = ...,
        rate: Rate | None = ...,
    ) -> "JobDecorator": ...

    def __call__(self, fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        if fn is None:
            return JobDecorator(self._options.but(options))
        if not inspect.isfunction(fn):
            raise DefinitionError(f"@job decorates functions, not {fn!r}")
        made: Job[Any, Any] = Job(fn, self._options.but(options), _names_around())
        _registry[fn.__module__, fn.__qualname__, made.name] = made
        return made


job = JobDecorator(JobOptions())

_registry: dict[tuple[str, str, str], Job[Any, Any]] = {}
"""Every job by where it is defined, so that a module that is loaded again replaces its own."""


def registered_jobs() -> list[Job[Any, Any]]:
    """Every job of every module that was imported."""
    return list(_registry.values())


def _check_follow_up(name: str, follow_up: object) -> None:
    if follow_up is not None and (not isinstance(follow_up, Job) or follow_up.payload_type is not FailedJob):
        raise DefinitionError(
            "on_failure must be a job, decorated with @job before this one, whose payload is a FailedJob: "
            f"async def tell(payload: FailedJob) -> None. It is {follow_up!r}"
        )
    while isinstance(follow_up, Job):
        if not follow_up.is_plain:
            raise DefinitionError(
                f"on_failure cannot be {follow_up!r}, which has unique, limit, rate, expires_in or deadline: each failure is "
                "followed by a job of its own, at once. Let that enqueue the other."
            )
        if follow_up.name == name:
            raise DefinitionError(f"job {name!r} would follow its own failure, for ever: on_failure goes in a circle")
        follow_up = follow_up.on_failure


def _names_around() -> dict[str, Any]:
    """The local names where ``@job`` stands: a payload's type may be one of them."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals is globals():
        frame = frame.f_back
    return {} if frame is None else frame.f_locals
