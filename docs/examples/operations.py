from datetime import timedelta

from litestar import Litestar, post

from litestar_jobs import JobFilter, Jobs, JobsPlugin, job

MOST_AT_ONCE = 10_000


@job(max_retries=0)
async def charge(payload: int) -> None:
    raise ConnectionError(f"no route to the bank for order {payload}")


@post("/charges/retry")
async def retry_charges(jobs: Jobs) -> dict[str, int]:
    lost = JobFilter(status="failed", job_type="charge", error="no route")
    if await jobs.retry_all(lost, dry_run=True) > MOST_AT_ONCE:
        return {"retried": 0}  # somebody should look first
    return {"retried": await jobs.retry_all(lost)}


@post("/charges/tidy")
async def tidy(jobs: Jobs) -> dict[str, int]:
    stale = JobFilter(queue="default", older_than=timedelta(days=2))
    later = JobFilter(queue="default", job_type="charge")
    return {
        "cancelled": await jobs.cancel_all(stale),
        "moved": await jobs.move_all(later, queue="slow"),
        "reprioritised": await jobs.reprioritise_all(
            JobFilter(queue="slow"), priority=10
        ),
        "deleted": await jobs.delete_all(JobFilter(status="completed")),
    }


app = Litestar([retry_charges, tidy], plugins=[JobsPlugin()])
