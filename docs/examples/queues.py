from litestar import Litestar, post

from litestar_jobs import Jobs, JobsPlugin, job


@job(queue="payments")
async def charge(payload: str) -> None: ...


@post("/payments/down")
async def payments_are_down(jobs: Jobs) -> None:
    await jobs.queues.pause("payments")


@post("/payments/up")
async def payments_are_up(jobs: Jobs) -> None:
    # Not everything at once: two in each worker.
    await jobs.queues.resize("payments", 2)
    await jobs.queues.resume("payments")


app = Litestar([payments_are_down, payments_are_up], plugins=[JobsPlugin()])
