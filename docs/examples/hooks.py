from collections import Counter

from litestar import Litestar

from litestar_jobs import JobsConfig, JobsPlugin, job
from litestar_jobs.telemetry import AttemptEnded, Event, JobRescued

ended: Counter[tuple[str, str]] = Counter()
rescued: Counter[str] = Counter()


def count(event: Event) -> None:
    match event:
        case AttemptEnded(job, outcome):
            ended[job.job_type, type(outcome).__name__] += 1
        case JobRescued(queue=queue):
            rescued[queue] += 1


@job(max_retries=1)
async def fail() -> None:
    raise ConnectionError("the printer is on fire")


app = Litestar(plugins=[JobsPlugin(JobsConfig(hooks=[count]))])
