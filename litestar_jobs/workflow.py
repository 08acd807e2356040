"""Workflows: many jobs as one. What a user writes becomes, step by step, what is stored; nothing here touches a database.

A step comes after steps that are there already, so a workflow has no circles.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias
from uuid import UUID

import msgspec

from litestar_jobs.define import Job, registered_jobs
from litestar_jobs.errors import DefinitionError
from litestar_jobs.fit import misfit
from litestar_jobs.request import JobRequest, Limited, check_name
from litestar_jobs.row import JobStatus

__all__ = ("WORKFLOW", "Finished", "RunWhen", "Step", "Workflow", "chain", "group")

RunWhen: TypeAlias = Literal["completed", "ended"]
Takes: TypeAlias = Literal["result", "all"]

WORKFLOW = "workflow"
"""Under which name a job's headers tell of which workflow it is a step."""

MAX_NAME = 250
MAX_STEPS = 10_000
MAX_EDGES = 100_000


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """How a step ended, for those that come after it."""

    id: UUID
    name: str
    """Of the step."""
    job_type: str
    status: JobStatus
    """Completed, failed or cancelled."""
    result: Any = None
    """What its handler returned, as JSON has it; ``msgspec.convert(step.result, Receipt)`` gives it its type."""
    error: str | None = None
    """Type and message of its last failed attempt, or why it was cancelled."""


class Step(msgspec.Struct, frozen=True):
    """One job of a workflow."""

    name: str
    request: JobRequest
    after: tuple[str, ...] = ()
    run_when: RunWhen = "completed"
    takes: Takes | None = None
    """What becomes its payload: the result of the one step before it, or how all before it ended."""


class Workflow:
    """Named jobs, some of which come after others. It may be started any number of times, with ``jobs.workflows.start``.

    A step runs when all that it comes after have completed; if one of them ends otherwise it is cancelled. With
    ``run_when="ended"`` it runs when they have ended, however that was.
    """

    def __init__(self, name: str) -> None:
        self.name = check_name(name, "a workflow's name", MAX_NAME)
        self._steps: dict[str, Step] = {}
        self._edges = 0

    def add(
        self,
        name: str,
        what: JobRequest | Job[Any, Any],
        *,
        after: str | Sequence[str] = (),
        run_when: RunWhen = "completed",
    ) -> str:
        """Add a step, after steps that are there already. Answers its name.

        ``what`` is a request, or a job whose payload comes from the steps before it: it is the result of the one step
        that it comes after, or, for a job whose payload is a ``list[Finished]``, how all of them ended.

        Raises :exc:`DefinitionError` for names that are taken or unknown, and for types that do not fit.
        """
        self._check_name(name)
        names = tuple(dict.fromkeys([after] if isinstance(after, str) else after))
        if unknown := [each for each in names if each not in self._steps]:
            raise DefinitionError(
                f"step {name!r} comes after {unknown[0]!r}, which workflow {self.name!r} does not have yet: add steps in an "
                "order in which they can run"
            )
        if run_when not in ("completed", "ended"):
            raise DefinitionError(f"run_when must be 'completed' or 'ended', not {run_when!r}")
        request, takes = self._asked(name, what, [self._steps[each] for each in names], run_when)
        self._edges += len(names)
        if len(self._steps) == MAX_STEPS or self._edges > MAX_EDGES:
            raise DefinitionError(
                f"workflow {self.name!r} is too large: it may have {MAX_STEPS} steps, and {MAX_EDGES} times one that comes "
                "after another. Steps that many come after can be joined by one between them."
            )
        self._steps[name] = Step(name, request, names, run_when, takes)
        return name

    @property
    def steps(self) -> Sequence[Step]:
        """In an order in which they can run. :exc:`DefinitionError` if there are none."""
        if not self._steps:
            raise DefinitionError(f"workflow {self.name!r} has no steps, so nothing would ever end it")
        return list(self._steps.values())

    def _check_name(self, name: str) -> None:
        check_name(name, "a step's name", MAX_NAME)
        if name in self._steps:
            raise DefinitionError(f"workflow {self.name!r} has two steps named {name!r}: give one of them another name")

    def _asked(
        self, name: str, what: JobRequest | Job[Any, Any], before: Sequence[Step], run_when: RunWhen
    ) -> tuple[JobRequest, Takes | None]:
        if isinstance(what, JobRequest):
            if what.unique is not None:
                raise _cannot_be_unique(name)
            return what, None
        _check_job(name, what)
        if what.is_unique:
            raise _cannot_be_unique(name)
        if what.codec is None:
            return what(), None
        request = JobRequest(
            job_type=what.name,
            queue=what.queue,
            max_retries=what.max_retries,
            priority=what.priority,
            expires_in=what.limits[0],
            deadline=what.limits[1],
            limited=_limited(name, what),
        )
        if before and what.payload_type == list[Finished]:
            return request, "all"
        if len(before) == 1 and run_when == "completed":
            _check_fit(name, before[0], what)
            return request, "result"
        raise DefinitionError(
            f"step {name!r} is a job that takes a {what.codec.type_name}, but nothing before it gives one: that would be the "
            "result of the one step that it comes after, when that has completed. Give it a payload of its own, "
            f"{what.name}(...), or let the job take a list[Finished], which says how all steps before it ended."
        )


def _check_job(name: str, what: object) -> None:
    if not isinstance(what, Job):
        raise DefinitionError(
            f"step {name!r} must be a job, whose payload is the result of the step before it, or a request: "
            f"my_job(payload). It is {what!r}."
        )


def _cannot_be_unique(name: str) -> DefinitionError:
    return DefinitionError(
        f"step {name!r} is a unique job, which steps cannot be: where its key is taken there is no new job, and those after it "
        "wait for one. Make it a job without unique, or let a step enqueue it."
    )


def _limited(name: str, job: Job[Any, Any]) -> Limited | None:
    """The limit and rate of a job whose payload is not known yet."""
    if job.gating is None:
        return None
    limited = job.gating.without_payload
    if limited is None:
        raise DefinitionError(
            f"step {name!r} takes its payload from the steps before it, but the limit or rate of job {job.where} has "
            "by=..., and needs it now. Give the step a payload of its own, or the limit a key without by."
        )
    return limited


def _check_fit(name: str, before: Step, job: Job[Any, Any]) -> None:
    """Only as far as is known: another program may have defined the job before."""
    known = [each for each in registered_jobs() if each.name == before.request.job_type]
    if len(known) != 1:
        return
    (first,) = known
    if first.result_codec is None:
        reason: str | None = "it returns nothing, or keeps nothing of it"
    else:
        reason = misfit(first.result_codec.type, job.payload_type)
    if reason is not None:
        raise DefinitionError(
            f"the result of step {before.name!r} cannot be the payload of step {name!r}: {reason}. They are the result of "
            f"job {first.where} and the payload of job {job.where}."
        )


def chain(first: JobRequest, /, *others: JobRequest | Job[Any, Any], name: str = "chain") -> Workflow:
    """Jobs one after the other. Of those that are not called yet, the payload is the result of the one before."""
    workflow = Workflow(name)
    last: list[str] = []
    for step, what in zip(_names((first, *others)), (first, *others), strict=True):
        last = [workflow.add(step, what, after=last)]
    return workflow


def group(
    requests: Iterable[JobRequest], /, *, then: JobRequest | Job[Any, Any] | None = None, name: str = "group"
) -> Workflow:
    """Jobs beside each other, and one that runs when all of them have ended, however that was. If it takes a
    ``list[Finished]``, it gets their ends in the order of the requests."""
    workflow = Workflow(name)
    listed = list(requests)
    if not listed:
        raise DefinitionError("a group needs at least one job: nothing would ever end it, or begin what comes then")
    names = _names([*listed, then])
    for step, request in zip(names, listed, strict=False):
        workflow.add(step, request)
    if then is not None:
        workflow.add(names[-1], then, after=names[:-1], run_when="ended")
    return workflow


def _names(steps: Iterable[object]) -> list[str]:
    """The names of the jobs, with a number behind those that are there before."""
    taken: dict[str, int] = {}
    names: list[str] = []
    for step in steps:
        job = step.job_type if isinstance(step, JobRequest) else step.name if isinstance(step, Job) else "step"
        taken[job] = taken.get(job, 0) + 1
        names.append(job if taken[job] == 1 else f"{job} {taken[job]}")
    return names
