"""Dependencies of jobs: the application's own, without a request.

A plan is made once per job, when ``Litestar(...)`` is constructed: what each parameter is filled from, in which order.
What only a request has is an error there. Running a plan opens a :class:`Scope`, whose end cleans up in reverse.
"""

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec
from litestar.di import Provide
from litestar.utils.sync import AsyncCallable

from litestar_jobs.context import JobContext
from litestar_jobs.define import Job
from litestar_jobs.errors import ConfigurationError

__all__ = ("JobSession", "Plan", "Planner", "Scope", "SessionFactory")

CONTEXT_KEY = "job"
REQUEST_BOUND = frozenset({"request", "socket", "headers", "query", "cookies", "body", "data", "scope"})


class JobSession(Protocol):
    """The database session of one job."""

    session: Any

    def in_transaction(self) -> bool:
        """Whether it has begun to read or write."""

    async def execute(self, sql: str, arguments: Sequence[Any]) -> Sequence[Any]:
        """Run a statement of ours in its transaction; the rows that it answers."""

    async def commit(self) -> None:
        """Make the job's writes last."""

    async def rollback(self) -> None:
        """Undo them."""

    async def close(self) -> None:
        """Give the connection back."""


SessionFactory: TypeAlias = Callable[[], JobSession]
Step: TypeAlias = "SessionStep | ProvideStep"


class SessionStep(msgspec.Struct, frozen=True):
    """A session of the job's own."""

    name: str
    open: SessionFactory


class ProvideStep(msgspec.Struct, frozen=True):
    """A provider of the application, called with values that are there already."""

    name: str
    provide: Provide
    needs: tuple[str, ...]


class Plan(msgspec.Struct, frozen=True):
    """How the dependencies of one job are filled: in this order, then these go to the handler."""

    steps: tuple[Step, ...]
    wanted: tuple[str, ...]

    @property
    def sessions(self) -> list[str]:
        return [step.name for step in self.steps if isinstance(step, SessionStep)]


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
        wanted = [
            name
            for name, parameter in job.dependencies.items()
            if self._resolve(parameter, steps, (f"job {job.where}",))
        ]
        # Sessions depend on nothing. First to open, they are last to close: whatever shares them is done by then.
        ordered = sorted(steps.values(), key=lambda step: not isinstance(step, SessionStep))
        return Plan(tuple(ordered), tuple(wanted))

    def _resolve(self, parameter: inspect.Parameter, steps: dict[str, Step], path: tuple[str, ...]) -> bool:
        """Add what fills the parameter; False if it keeps its default."""
        name = parameter.name
        if name in steps or name in self._constants:
            return True
        if name in self._sessions:
            steps[name] = SessionStep(name, self._sessions[name])
            return True
        if name in self._provided:
            self._resolve_provider(name, steps, path)
            return True
        if parameter.default is not inspect.Parameter.empty and name not in REQUEST_BOUND:
            return False
        raise self._unavailable(name, path)

    def _resolve_provider(self, name: str, steps: dict[str, Step], path: tuple[str, ...]) -> None:
        if name in path:
            cycle = " → ".join([*path[path.index(name) :], name])
            raise ConfigurationError(f"{path[0]}: its dependencies go in a circle: {cycle}")
        provide = self._provided[name]
        needs = tuple(
            parameter.name
            for parameter in _parameters(provide)
            if self._resolve(parameter, steps, (*path, name))
        )
        steps[name] = ProvideStep(name, provide, needs)

    def _unavailable(self, name: str, path: tuple[str, ...]) -> ConfigurationError:
        job, *through = path
        of = f"{job} needs {name!r}" + (f" (through {' → '.join(through)})" if through else "")
        if name in REQUEST_BOUND:
            return ConfigurationError(
                f"{of}, which only a request has. Put what the job needs of it into its payload, "
                "or give jobs another provider in JobsConfig(dependencies={...})."
            )
        known = ", ".join(sorted({*self._constants, *self._sessions, *self._provided}))
        return ConfigurationError(
            f"{of}, but the application has no dependency of that name. Jobs have: {known}. "
            "Headers, cookies, path and query parameters exist only in requests; dependencies of routers, controllers "
            "and handlers are not visible here: put them on the application, or into JobsConfig(dependencies={...})."
        )


def _parameters(provide: Provide) -> list[inspect.Parameter]:
    dependency: Any = provide.dependency
    if isinstance(dependency, AsyncCallable):
        dependency = dependency.func
    return [
        parameter
        for parameter in inspect.signature(dependency).parameters.values()
        if parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    ]


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
        return {name: self._values[name] for name in self._plan.wanted}

    async def _provide(self, step: ProvideStep) -> Any:
        value = await step.provide(**{name: self._values[name] for name in step.needs})
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

    async def close_sessions(self) -> None:
        """Give the connections of all sessions back."""
        for session in self._sessions.values():
            await session.close()


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
