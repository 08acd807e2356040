import asyncio

from litestar import Litestar
from msgspec import Struct

from litestar_jobs import JobsConfig, JobsPlugin, job


class Reminder(Struct):
    customer: int


@job(queue="reminders")
async def remind(payload: Reminder) -> None: ...


# worker=None: this process enqueues, others work.
plugin = JobsPlugin(JobsConfig(worker=None))
app = Litestar(plugins=[plugin])


async def remind_all(customers: range) -> int:
    async with app.lifespan():
        ids = await plugin.client.enqueue_many(
            remind(Reminder(customer)) for customer in customers
        )
    return len(ids)


if __name__ == "__main__":
    asyncio.run(remind_all(range(1000)))
