"""The application whose workers are killed while a schedule is due every second."""

from litestar import Litestar

from litestar_jobs import Every, JobsConfig, JobsPlugin, WorkerConfig, job


@job(schedules=[Every(1, missed="all")], max_retries=100)
async def tick() -> None:
    """Nothing: its row is the proof."""


def create_app() -> Litestar:
    return Litestar(plugins=[JobsPlugin(JobsConfig(jobs=[tick], worker=WorkerConfig(lease=2)))])
