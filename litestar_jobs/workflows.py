"""``jobs.workflows``: what the client does with many jobs as one."""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from litestar_jobs.context import JobContext
from litestar_jobs.course import Course, WorkflowRow
from litestar_jobs.errors import EnqueueError
from litestar_jobs.gather import translated
from litestar_jobs.news import Bell, News, due_of
from litestar_jobs.request import NOT_LIMITED, JobRequest
from litestar_jobs.store import Statements
from litestar_jobs.telemetry import Tracing
from litestar_jobs.trace import current_trace_id, new_carrier, new_trace_id
from litestar_jobs.transaction import start_in_transaction
from litestar_jobs.workflow import WORKFLOW, Finished, Step, Workflow

__all__ = ("StartedWorkflow", "Workflows")

MOST_BYTES = 64_000_000
"""Of all payloads together."""


class StartedWorkflow(msgspec.Struct, frozen=True):
    """The ids of a workflow and of its jobs."""

    id: UUID
    steps: Mapping[str, UUID]
    """The job of each step, by name."""

    @property
    def last(self) -> UUID:
        """The job of the step that was added last: of a chain the one at its end, of a group the one that comes then."""
        return list(self.steps.values())[-1]


class Workflows:
    """Starts workflows and looks after them."""

    def __init__(
        self, course: Course, statements: Statements, tracing: Tracing, bell: Bell, check: Callable[[JobRequest], None]
    ) -> None:
        """``check`` raises for a request that must not be written."""
        self._course = course
        self._sql = statements
        self._tracing = tracing
        self._bell = bell
        self._check = check

    async def start(self, workflow: Workflow) -> StartedWorkflow:
        """Write a workflow and all its jobs in a transaction of their own; when this returns, it is committed.

        All its jobs have the trace id of this call. Raises as ``jobs.enqueue`` does; an :exc:`EnqueueUncertain` names the
        first job.
        """
        started = self._new(workflow)
        requests, ids = [step.request for step in workflow.steps], list(started.steps.values())
        with self._tracing.enqueue(requests, ids) as carrier, translated(ids[0]):
            await self._course.start(self._arguments(workflow, started, carrier))
        self._bell.tell(News(map(due_of, _first(workflow))))
        return started

    async def start_with(self, connection: Any, workflow: Workflow) -> StartedWorkflow:
        """Write a workflow with the caller's own transaction: it starts when that commits, and never if it does not.

        ``connection`` is as for ``jobs.enqueue_with``.
        """
        started = self._new(workflow)
        requests, ids = [step.request for step in workflow.steps], list(started.steps.values())
        told = partial(self._bell.committed, [due_of(request) for request in _first(workflow)])
        with self._tracing.enqueue(requests, ids) as carrier:
            await start_in_transaction(connection, self._sql, self._arguments(workflow, started, carrier), told)
        return started

    async def get(self, workflow_id: UUID) -> WorkflowRow | None:
        """The workflow as it is now, with its steps and their jobs; None if there is none, or none any more: it goes with
        the last of its jobs."""
        return await self._course.get(workflow_id)

    async def cancel(self, workflow_id: UUID) -> int:
        """Cancel all of its jobs that can be cancelled, as ``jobs.cancel`` does one. Answers how many."""
        cancelled = await self._course.cancel(workflow_id)
        self._bell.ring_off()
        return cancelled

    async def results_of(self, job: JobContext) -> dict[str, Finished]:
        """How the steps ended that the one of this job comes after, by name. Empty for a job that is no step."""
        return {} if job.workflow is None else await self._course.before(job.id)

    @property
    def course(self) -> Course:
        """The statements, for commands and tests."""
        return self._course

    async def lead_on(self, ids: Collection[UUID]) -> None:
        """These jobs have ended, here: steps that wait for them go on."""
        free = (await self._course.follow(list(ids))).free.values()
        later = [delay for _, delay in free if delay > 0]
        self._bell.ring({queue for queue, delay in free if delay <= 0}, min(later, default=None))

    def _new(self, workflow: object) -> StartedWorkflow:
        if not isinstance(workflow, Workflow):
            raise EnqueueError(
                f"{workflow!r} is not a workflow: make one with chain(...), group(...) or Workflow(name)"
            )
        for step in workflow.steps:
            self._check(step.request)
        size = sum(len(step.request.payload) for step in workflow.steps)
        if size > MOST_BYTES:
            raise EnqueueError(
                f"workflow {workflow.name!r} was not started: its payloads have {size} bytes together, and at most "
                f"{MOST_BYTES} are allowed. Store large data elsewhere and enqueue references to it."
            )
        return StartedWorkflow(uuid7(), {step.name: uuid7() for step in workflow.steps})

    def _arguments(
        self, workflow: Workflow, started: StartedWorkflow, carrier: Mapping[str, str] | None
    ) -> tuple[str | None, ...]:
        """Those of ``start_workflow.sql`` but the last. Without a trace one begins here, so that all steps share it."""
        trace_id = current_trace_id.get() or self._tracing.trace_id()
        if trace_id is None:
            trace_id = new_trace_id()
            carrier = {**(carrier or {}), **new_carrier(trace_id)}
        headers = {**(carrier or {}), WORKFLOW: str(started.id)}
        steps = [_object(step, position, started.steps) for position, step in enumerate(workflow.steps)]
        return str(started.id), workflow.name, trace_id, _text(headers), _text(steps)


def _first(workflow: Workflow) -> Iterable[JobRequest]:
    """What there is to tell workers of: of those that wait for nothing one of each kind."""
    first = (step.request for step in workflow.steps if not step.after)
    kinds = {
        (request.queue, request.run_at, request.delay_seconds, request.limited and request.limited.gate): request
        for request in first
    }
    return kinds.values()


def _object(step: Step, position: int, ids: Mapping[str, UUID]) -> dict[str, Any]:
    """A step as an object for ``start_workflow.sql``."""
    asked = step.request
    expires_in, deadline = asked.limits
    return {
        "id": ids[step.name],
        "name": step.name,
        "position": position,
        "queue": asked.queue,
        "job_type": asked.job_type,
        "payload": msgspec.Raw(asked.payload),
        "priority": asked.priority,
        "max_retries": asked.max_retries,
        "run_at": asked.run_at,
        "delay": asked.delay_seconds,
        "expires_in": expires_in,
        "deadline": deadline,
        "run_when": step.run_when,
        "takes": step.takes,
        "after": [ids[name] for name in step.after],
        **msgspec.structs.asdict(asked.limited or NOT_LIMITED),
    }


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
