from datetime import timedelta

from msgspec import Struct

from litestar_jobs import Exponential, Fixed, Never, job


class Order(Struct):
    number: int


class TryLater(Exception):
    def __init__(self, seconds: float) -> None:
        super().__init__(f"try again in {seconds:g} s")
        self.seconds = seconds


class CardDeclined(Exception):
    """Trying again would not help."""


@job(
    max_retries=10, retry=Exponential(base=2, factor=3, cap=timedelta(hours=1))
)
async def notify_warehouse(payload: Order) -> None: ...


@job(retry=Fixed(10))
async def refresh_stock(payload: Order) -> None: ...


@job(retry=Never())
async def print_label(payload: Order) -> None: ...


def as_the_bank_says(attempt: int, error: BaseException) -> timedelta | None:
    match error:
        case CardDeclined():
            return None  # failed for good
        case TryLater():
            return timedelta(seconds=error.seconds)
        case _:
            return timedelta(seconds=2**attempt)


@job(queue="payments", retry=as_the_bank_says)
async def charge_card(payload: Order) -> None:
    if payload.number < 0:
        raise CardDeclined


@job(retry_on={TryLater: as_the_bank_says, ConnectionError: Exponential()})
async def refund(payload: Order) -> None: ...  # all else fails for good


@job(max_retries=10, fail_on=(CardDeclined, LookupError))
async def remind(payload: Order) -> None: ...  # all else is tried again


# End of the rules
