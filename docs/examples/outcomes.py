from litestar import Litestar
from msgspec import Struct

from litestar_jobs import Cancel, Fail, JobsPlugin, RetryAfter, Snooze, job

ORDERS = {
    "paid": "paid",
    "withdrawn": "withdrawn",
    "pending": "pending",
    "unpacked": "unpacked",
}


class Shipment(Struct):
    order: str


@job(max_retries=5)
async def ship(payload: Shipment) -> None:
    match ORDERS.get(payload.order):
        case None:
            raise Fail(f"there is no order {payload.order}")
        case "withdrawn":
            raise Cancel("the customer has withdrawn the order")
        case "pending":
            raise RetryAfter(60, "the payment is not there yet")
        case "unpacked":
            raise Snooze(600, "the warehouse is closed")


app = Litestar(plugins=[JobsPlugin()])
