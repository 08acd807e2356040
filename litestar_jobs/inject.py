"""Dependencies of jobs: the application's own, without a request.

A plan is made once per job, when ``Litestar(...)`` is constructed: what each parameter is filled from, in which order.
What only a request has is an error there. Running a plan opens a :class:`Scope`, whose end cleans up in reverse.
"""

import inspect
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec
from litestar.di import Provide
from litestar.exceptions import LitestarWarning
from litestar.params import BodyKwarg, DependencyKwarg, ParameterKwarg
from litestar.types import Empty
from litestar.utils.sync import AsyncCallable

from litestar_jobs.context import JobContext
from litestar_jobs.define import Job
from litestar_jobs.errors import ConfigurationError

__all__ = ("CONTEXT_KEY", "JobSession", "Plan", "Planner", "Scope", "SessionFactory", "as_provide")

CONTEXT_KEY = "job"
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
REQUEST_BOUND = frozenset({"request", "socket", "headers", "query", "cookies", "body", "data", "scope"})


class JobSession(Protocol):
    """The database session of one job."""

    session: Any

    def in_transaction(self) -> bool:
        """Whether it has begun to read or write."""
        ...

    async def execute(self, sql: str, arguments: Sequence[Any]) -> Sequence[Any]:
        """Run a statement of ours in its transaction; the rows that it answers."""
        ...

    async def commit(self) -> None:
        """Make the job's writes last."""

    async def rollback(self) -> None:
        """Undo them."""

    async def close(self) -> None:
        """Give the connection back."""


SessionFactory: TypeAlias = Callable[[], JobSession]
Step: TypeAlias = "SessionStep | ProvideStep"


class Arguments(msgspec.Struct, frozen=True):
    """What a function is called with: these values by name, and defaults that Litestar keeps in a marker."""

    names: tuple[str, ...]
    defaults: dict[str, Any]

    def of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: values[name] for name in self.names} | self.defaults


class SessionStep(msgspec.Struct, frozen=True):
    """A session of the job's own."""

    name: str
    open: SessionFactory


class ProvideStep(msgspec.Struct, frozen=True):
    """A provider of the application, called with values that are there already."""

    name: str
    provide: Provide
    needs: Arguments


class Plan(msgspec.Struct, frozen=True):
    """How the dependencies of one job are filled: in this order, then these go to the handler."""

    steps: tuple[Step, ...]
    wanted: Arguments

    @property
    def sessions(self) -> list[str]:
        return [step.name for step in self.steps if isinstance(step, SessionStep)]


def as_provide(dependency: Any) -> Provide:
    """What an application gives as a dependency: a ``Provide``, or a callable as it is."""
    if isinstance(dependency, Provide):
        return dependency
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LitestarWarning)  # Litestar gives the same callable the same warning
        return Provide(dependency)


class Planner:
    """Makes plans over the dependencies of one application. Nothing is called."""

    def __init__(
        self,
        provided: Mapping[str, Provide],
        sessions: Mapping[str, SessionFactory],
        constants: Sequence[str],
    ) -> None:
        """``constants`` are the names that every job has besides its context, such as ``state`` and ``jobs``."""
        self._provided = provided
        self._sessions = sessions
        self._constants = {CONTEXT_KEY, *constants}

    def plan(self, job: Job[Any, Any]) -> Plan:
        """The plan for a job; :exc:`ConfigurationError` for a dependency that a job cannot have."""
        steps: dict[str, Step] = {}
        parameters = [parameter for parameter in _parameters(job.fn) if parameter.name in job.dependencies]
        wanted = self._arguments(parameters, steps, (f"job {job.where}",))
        # Sessions depend on nothing. First to open, they are last to close: whatever shares them is done by then.
        ordered = sorted(steps.values(), key=lambda step: not isinstance(step, SessionStep))
        return Plan(tuple(ordered), wanted)

    def _arguments(
        self, parameters: Sequence[inspect.Parameter], steps: dict[str, Step], path: tuple[str, ...]
    ) -> Arguments:
        names: list[str] = []
        defaults: dict[str, Any] = {}
        for parameter in parameters:
            name = parameter.name
            if self._resolve(name, steps, path):
                names.append(name)
            elif isinstance(parameter.default, DependencyKwarg) and parameter.default.default is not Empty:
                defaults[name] = parameter.default.default
            elif not _has_default(parameter) or name in REQUEST_BOUND or _is_of_requests(parameter):
                raise self._unavailable(parameter, path)
        return Arguments(tuple(names), defaults)

    def _resolve(self, name: str, steps: dict[str, Step], path: tuple[str, ...]) -> bool:
        """Add what fills a parameter of this name; False if nothing does."""
        if name == CONTEXT_KEY and name in self._provided and len(path) > 1:
            raise ConfigurationError(
                f"{path[0]} needs the application's dependency {name!r} (through {' → '.join(path[1:])}), but in jobs "
                "that is the job's own context. Give the dependency another name, or the job another provider in "
                "JobsConfig(dependencies={...})."
            )
        if name in steps or name in self._constants:
            return True
        if name in self._sessions:
            steps[name] = SessionStep(name, self._sessions[name])
        elif name in self._provided:
            steps[name] = self._provider(name, steps, path)
        return name in steps

    def _provider(self, name: str, steps: dict[str, Step], path: tuple[str, ...]) -> ProvideStep:
        if name in path:
            cycle = " → ".join([*path[path.index(name) :], name])
            raise ConfigurationError(
                f"{path[0]}: its dependencies go in a circle: {cycle}. One of them must do without the next."
            )
        provide = self._provided[name]
        return ProvideStep(name, provide, self._arguments(_parameters(provide.dependency), steps, (*path, name)))

    def _unavailable(self, parameter: inspect.Parameter, path: tuple[str, ...]) -> ConfigurationError:
        job, *through = path
        name = parameter.name
        of = f"{job} needs {name!r}" + (f" (through {' → '.join(through)})" if through else "")
        if name in REQUEST_BOUND or _is_of_requests(parameter):
            return ConfigurationError(
                f"{of}, which only a request has. Put what the job needs of it into its payload, "
                f"or give jobs another provider in JobsConfig(dependencies={{{(through or [name])[-1]!r}: ...}})."
            )
        known = ", ".join(sorted({*self._constants, *self._sessions, *self._provided}))
        return ConfigurationError(
            f"{of}, but the application has no dependency of that name. Jobs have: {known}. "
            "Headers, cookies, path and query parameters exist only in requests; dependencies of routers, controllers "
            "and handlers are not visible here: put them on the application, or into JobsConfig(dependencies={...})."
        )


def _parameters(dependency: Any) -> list[inspect.Parameter]:
    """The parameters of a function, a partial, a class or whatever else can be called, by name."""
    if isinstance(dependency, AsyncCallable):
        dependency = dependency.func
    try:
        signature = inspect.signature(dependency, eval_str=True)
    except (NameError, AttributeError):
        # A type that is only there for type checkers. The names are what counts.
        signature = inspect.signature(dependency)
    except ValueError:
        return []  # some built-in types say nothing about themselves
    return [parameter for parameter in signature.parameters.values() if parameter.kind not in VARIADIC]


def _has_default(parameter: inspect.Parameter) -> bool:
    return not (parameter.default is inspect.Parameter.empty or isinstance(parameter.default, DependencyKwarg))


def _is_of_requests(parameter: inspect.Parameter) -> bool:
    """Whether it is marked as a header, a cookie, a query or path parameter, or a body. A request without one would
    have its default; for a job that would be a silent one."""
    marks = (parameter.default, *getattr(parameter.annotation, "__metadata__", ()))
    return any(isinstance(mark, ParameterKwarg | BodyKwarg) for mark in marks)


class Scope:
    """The dependencies of one attempt, from the first to be made to the last to be cleaned up."""

    __slots__ = ("_closers", "_plan", "_sessions", "_values")

    def __init__(self, plan: Plan, constants: Mapping[str, Any], context: JobContext) -> None:
        self._plan = plan
        self._values: dict[str, Any] = {**constants, CONTEXT_KEY: context}
        self._sessions: dict[str, JobSession] = {}
        self._closers: list[Callable[[BaseException | None], Awaitable[None]]] = []

    @property
    def sessions(self) -> Mapping[str, JobSession]:
        """The open sessions by name."""
        return self._sessions

    async def fill(self) -> dict[str, Any]:
        """Make everything in order; what the handler asks for, by name."""
        for step in self._plan.steps:
            if isinstance(step, SessionStep):
                opened = self._sessions[step.name] = step.open()
                self._values[step.name] = opened.session
            else:
                self._values[step.name] = await self._provide(step)
        return self._plan.wanted.of(self._values)

    async def _provide(self, step: ProvideStep) -> Any:
        value = await step.provide(**step.needs.of(self._values))
        if step.provide.has_async_generator_dependency:
            made = await anext(value)
            self._closers.append(lambda error: _close_async(value, error))
            return made
        if step.provide.has_sync_generator_dependency:
            made = next(value)
            self._closers.append(lambda error: _close_sync(value, error))
            return made
        return value

    async def clean_up(self, error: BaseException | None) -> None:
        """End the generators, last made first; they see ``error``, and cannot swallow it.

        Raises the first error of a clean-up, after all have run.
        """
        first: BaseException | None = None
        while self._closers:
            try:
                await self._closers.pop()(error)
            except BaseException as raised:  # noqa: BLE001 - each generator has a right to its end
                if raised is not error and first is None:
                    first = raised
        if first is not None:
            raise first


async def _close_async(generator: AsyncGenerator[Any, None], error: BaseException | None) -> None:
    if error is None:
        await anext(generator, None)
        await generator.aclose()
        return
    try:
        await generator.athrow(error)
    except StopAsyncIteration:
        return
    await generator.aclose()


async def _close_sync(generator: Generator[Any, None, None], error: BaseException | None) -> None:
    if error is None:
        next(generator, None)
        generator.close()
        return
    try:
        generator.throw(error)
    except StopIteration:
        return
    generator.close()
