from datetime import timedelta

from litestar import Litestar

from litestar_jobs import JobsConfig, JobsPlugin, Retention, job


@job
async def greet(payload: str) -> None: ...


retention = Retention(
    completed=timedelta(hours=6),
    failed=timedelta(days=90),
    cancelled=None,  # for ever
)
app = Litestar(plugins=[JobsPlugin(JobsConfig(retention=retention))])
