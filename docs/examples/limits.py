from datetime import timedelta

from litestar import Litestar
from msgspec import Struct

from litestar_jobs import JobsPlugin, Limit, Rate, job


class Invoice(Struct):
    customer: int
    number: str


# At most two of these run at once, however many workers there are.
@job(limit=Limit(2))
async def render(payload: Invoice) -> None: ...


# One after the other for each customer, customers beside each other.
@job(limit=Limit(1, by="customer"))
async def bill(payload: Invoice) -> None: ...


# At most 60 calls in any minute, and five at once. The other job shares the five.
@job(rate=Rate(60, per=timedelta(minutes=1)), limit=Limit(5, key="bank"))
async def collect(payload: Invoice) -> None: ...


@job(limit=Limit(5, key="bank"))
async def refund(payload: Invoice) -> None: ...


app = Litestar(plugins=[JobsPlugin()])
