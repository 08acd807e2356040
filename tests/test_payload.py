"""Payloads: what goes in comes back, through PostgreSQL too, and what would not is refused at the call."""

import enum
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, TypedDict
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import attrs
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Meta, Raw, Struct

from litestar_jobs.errors import PayloadError, PayloadRefused
from litestar_jobs.payload import PayloadCodec

REFUSED = "payload of job 'take' refused, nothing was enqueued: "


class Color(enum.Enum):
    RED = "red"


class Inner(Struct):
    number: float | None = None
    text: str = ""


class Mail(Struct):
    to: str
    inner: Inner | None = None
    numbers: list[float | None] = msgspec.field(default_factory=list)
    table: dict[str, float | None] = msgspec.field(default_factory=dict)


class LongMail(Mail):
    signature: str = ""


@dataclass
class Order:
    price: float | None


@dataclass(slots=True)
class SlottedOrder(Order):
    number: int = 0


@attrs.define
class Pixel:
    x: float | None


@attrs.define
class DeepPixel(Pixel):
    z: int = 0


class Address(TypedDict, total=False):
    height: float | None


def codec(type_: Any) -> PayloadCodec[Any]:
    return PayloadCodec("tests.take (here:1)", "take", type_)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


NAN, INFINITY = float("nan"), float("inf")
NOT_JSON = "NaN and infinity are not JSON - at `{}`"


@pytest.mark.parametrize(
    ("type_", "payload", "reason"),
    [
        (Mail, Mail(to=5), "Expected `str`, got `int` - at `$.to`"),  # type: ignore[arg-type]
        (Mail, Mail("you", inner=5), "Expected `object | null`, got `int` - at `$.inner`"),  # type: ignore[arg-type]
        (Mail, 5, "Expected `object`, got `int`"),
        (Mail, {"inner": None}, "Object missing required field `to`"),
        (int, "5", "Expected `int`, got `str`"),
        (int, 5.5, "Expected `int`, got `float`"),
        (bool, 1, "Expected `bool`, got `int`"),
        (list[int], [1, None], "Expected `int`, got `null` - at `$[1]`"),
        (Annotated[int, Meta(ge=1)], 0, "Expected `int` >= 1"),
        (Order, Order("much"), "Expected `float | null`, got `str` - at `$.price`"),  # type: ignore[arg-type]
        (UUID, "not one", "Invalid UUID"),
        (datetime, "yesterday", "Invalid RFC3339"),
        (Annotated[datetime, Meta(tz=True)], datetime(2030, 1, 1), "timezone component"),  # noqa: DTZ001
        (Color, "blue", "Invalid enum value 'blue'"),
        (Any, object(), "Encoding objects of type object is unsupported"),
        (Any, {(1, 2): 3}, "Only dicts with str-like or number-like keys are supported"),
        # What msgspec would write as null.
        (float, NAN, NOT_JSON.format("$")),
        (float | None, -INFINITY, NOT_JSON.format("$")),
        (Any, {"a": [1, {"b": INFINITY}]}, NOT_JSON.format("$.a[1].b")),
        (Any, (1.0, NAN), NOT_JSON.format("$[1]")),
        (Any, {NAN}, NOT_JSON.format("$[0]")),
        (Mail, Mail("you", inner=Inner(number=NAN)), NOT_JSON.format("$.inner.number")),
        (Mail, Mail("you", numbers=[None, INFINITY]), NOT_JSON.format("$.numbers[1]")),
        (Mail, Mail("you", table={"x": NAN}), NOT_JSON.format("$.table.x")),
        (Order, Order(NAN), NOT_JSON.format("$.price")),
        (SlottedOrder, SlottedOrder(NAN), NOT_JSON.format("$.price")),
        (Pixel, Pixel(NAN), NOT_JSON.format("$.x")),
        (DeepPixel, DeepPixel(NAN), NOT_JSON.format("$.x")),
        (Address, Address(height=NAN), NOT_JSON.format("$.height")),
        # What PostgreSQL cannot store.
        (str, "a\x00b", "PostgreSQL cannot store the NUL character"),
        (str, "\x00", "PostgreSQL cannot store the NUL character"),
        (str, "\\\x00", "PostgreSQL cannot store the NUL character"),
        (Mail, Mail("you", table={"\x00": 1}), "PostgreSQL cannot store the NUL character"),
        (str, "\ud800", "text with a lone surrogate cannot be stored"),
        (Any, {"\udfff": 1}, "text with a lone surrogate cannot be stored"),
        # What has no end, or would not come back.
        (Any, nested(100_000), "maximum recursion depth exceeded"),
        (Any, circle(), "maximum recursion depth exceeded"),
        (Mail, LongMail("you", signature="me"), "a Mail has no place for signature"),
        (list[Order], [SlottedOrder(1)], r"a list\[.*Order\] has no place for number"),
        (Address, {"height": 1.0, "width": 2.0}, "a Address has no place for width"),
    ],
)
def test_a_payload_that_would_not_come_back_is_refused(type_: Any, payload: Any, reason: str) -> None:
    expected = reason if "\\" in reason else reason.replace("$", r"\$").replace("[", r"\[").replace("|", r"\|")
    with pytest.raises(PayloadRefused, match=REFUSED) as refused:
        codec(type_).encode(payload)
    assert refused.match(expected)
    assert refused.value.job_type == "take"


class Picky(Struct):
    x: int

    def __post_init__(self) -> None:
        if self.x > 100:
            raise ValueError("too much")
        if self.x > 10:
            raise LookupError("unknown")


@pytest.mark.parametrize(("x", "says"), [(101, "too much"), (11, "unknown")])
def test_a_payload_that_refuses_itself_is_refused_in_its_own_words(x: int, says: str) -> None:
    with pytest.raises(PayloadRefused, match=says):
        codec(Picky).encode({"x": x})
    with pytest.raises(PayloadError, match=says):
        codec(Picky).decode(f'{{"x": {x}}}')


ROUND_TRIPS: list[tuple[Any, Any]] = [
    (None, None),
    (str, "\\u0000 is six characters"),
    (str, "\\\\u0000 \" ' \\ / \b\f\n\r\t \x7f \u2028"),
    (str, "😀 ünïcode"),
    (bytes, b"\x00\xff"),
    (int, 2**63),
    (int, -(10**30)),
    (float, 1.7976931348623157e308),
    (float, 5e-324),
    (float, -0.0),
    (float, 0.1 + 0.2),
    (float, 5),
    (Decimal, Decimal("1.10")),
    (Decimal, Decimal("1E+400")),
    (datetime, datetime(2030, 1, 1, 12)),  # noqa: DTZ001
    (datetime, datetime(2030, 1, 1, 12, tzinfo=UTC)),
    (datetime, datetime(2030, 1, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))),
    (date, date(2030, 1, 1)),
    (time, time(12, 30)),
    (timedelta, timedelta(days=400, microseconds=1)),
    (UUID, UUID(int=7)),
    (Color, Color.RED),
    (set[str], {"a", "b", "c", "d"}),
    (frozenset[int], frozenset({1, 2})),
    (tuple[int, str], (1, "a")),
    (dict[int, str], {1: "a", -1: "b"}),
    (dict[UUID, int], {UUID(int=7): 1}),
    (Mail, Mail("you", Inner(1.5, "a"), [1, None], {"": 2.0, "z": None, "a": 1.0})),
    (list[Mail | None], [Mail("you"), None]),
    (Order, Order(None)),
    (SlottedOrder, SlottedOrder(1.5, 2)),
    (DeepPixel, DeepPixel(None, 2)),
    (Address, {}),
    (Address, {"height": 1.0}),
    (Any, nested(200)),
    (Any, {"é": [True, None, 1, "x", {}]}),
]


@pytest.fixture(scope="module")
async def postgres(server_dsn: str) -> "AsyncIterator[asyncpg.Connection[Any]]":
    """No tables are needed here."""
    opened = await asyncpg.connect(server_dsn)
    yield opened
    await opened.close()


async def stored_and_read(postgres: "asyncpg.Connection[Any]", encoded: bytes) -> str:
    """As the statements do it: jsonb in the table, text in and out."""
    text: str = await postgres.fetchval("SELECT ($1::text::jsonb)::text", encoded.decode())
    return text


@pytest.mark.parametrize(("type_", "payload"), ROUND_TRIPS, ids=[str(type_) for type_, _ in ROUND_TRIPS])
async def test_a_payload_comes_back_from_the_database_as_it_went_in(
    postgres: "asyncpg.Connection[Any]", type_: Any, payload: Any
) -> None:
    through = codec(type_)
    assert through.decode(await stored_and_read(postgres, through.encode(payload))) == payload


def test_the_hour_that_comes_twice_is_stored_as_the_moment_that_it_was() -> None:
    second = datetime(2025, 10, 26, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
    through = codec(datetime)
    assert through.decode(through.encode(second).decode()).timestamp() == second.timestamp()


def test_fields_in_another_order_or_with_defaults_left_out_are_no_loss() -> None:
    class Sparse(Struct, omit_defaults=True, rename="camel"):
        first_name: str = ""
        tags: frozenset[str] = frozenset()

    through = codec(Sparse)
    payload = Sparse("you", frozenset("abcdefgh"))
    assert through.decode(through.encode(payload).decode()) == payload
    assert through.encode(Sparse()) == b"{}"


class Everything(Struct):
    text: str
    number: int
    measure: float | None
    moment: datetime
    span: timedelta
    exact: Decimal
    raw: bytes
    names: dict[str, str]
    maybe: list[tuple[bool | None, str]]


LARGE = 2**200
everything = st.builds(
    Everything,
    text=st.text(),
    number=st.integers(-LARGE, LARGE),
    measure=st.none() | st.floats(),
    moment=st.datetimes(timezones=st.just(UTC) | st.none()),
    span=st.timedeltas(timedelta(days=-100_000), timedelta(days=100_000)),
    exact=st.decimals(allow_nan=False, allow_infinity=False),
    raw=st.binary(),
    names=st.dictionaries(st.text(), st.text()),
    maybe=st.lists(st.tuples(st.none() | st.booleans(), st.text())),
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-LARGE, LARGE) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
with_a_database = settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@with_a_database
@given(payload=everything)
async def test_what_is_accepted_comes_back_equal_from_the_database(
    postgres: "asyncpg.Connection[Any]", payload: Everything
) -> None:
    through = codec(Everything)
    try:
        encoded = through.encode(payload)
    except PayloadRefused:
        return
    assert through.decode(encoded.decode()) == payload
    assert through.decode(await stored_and_read(postgres, encoded)) == payload


def as_numbers_are_stored(value: Any) -> Any:
    """jsonb keeps a number, not whether it was an int or a float."""
    match value:
        case float() | int() if not isinstance(value, bool):
            return float(value)
        case list():
            return [as_numbers_are_stored(item) for item in value]
        case dict():
            return {key: as_numbers_are_stored(item) for key, item in value.items()}
        case _:
            return value


@with_a_database
@given(payload=anything)
async def test_what_is_accepted_without_a_type_comes_back_with_the_same_numbers(
    postgres: "asyncpg.Connection[Any]", payload: Any
) -> None:
    through = codec(Any)
    try:
        encoded = through.encode(payload)
    except PayloadRefused:
        return
    assert through.decode(encoded.decode()) == payload
    back = through.decode(await stored_and_read(postgres, encoded))
    assert as_numbers_are_stored(back) == as_numbers_are_stored(payload)


@given(text=st.text(alphabet=st.sampled_from('\\\x00u0"a')))
def test_nul_is_told_from_text_that_looks_like_its_escape(text: str) -> None:
    def attempt(what: Callable[[], object]) -> bool:
        try:
            what()
        except PayloadRefused:
            return False
        return True

    assert attempt(lambda: codec(str).encode(text)) == ("\x00" not in text)


@pytest.mark.parametrize(
    ("type_", "stored", "says"),
    [
        (Mail, '{"from": "me"}', "does not decode as Mail: Object missing required field `to`"),
        (Mail, '{"to": 5}', r"does not decode as Mail: Expected `str`, got `int` - at `\$.to`"),
        (list[int], '[1, "2"]', r"does not decode as list\[int\]: Expected `int`, got `str` - at `\$\[1\]`"),
        (Mail | None, "5", r"does not decode as .*Mail \| None: Expected `object \| null`, got `int`"),
        (Annotated[int, Meta(ge=1)], "0", ".*: Expected `int` >= 1"),
        (Mail, "null", "does not decode as Mail: Expected `object`, got `null`"),
    ],
)
def test_a_stored_payload_that_no_longer_fits_says_where(type_: Any, stored: str, says: str) -> None:
    with pytest.raises(PayloadError, match="the stored payload of job 'take' " + says):
        codec(type_).decode(stored)


def test_fields_that_an_older_program_did_not_write_have_their_defaults() -> None:
    assert codec(Mail).decode('{"to": "you"}') == Mail("you")


def test_fields_that_a_newer_program_wrote_are_passed_over() -> None:
    assert codec(Mail).decode('{"to": "you", "urgent": true}') == Mail("you")


def test_json_that_is_there_already_goes_in_as_it_is() -> None:
    assert codec(Raw).encode(Raw(b'{"a":1}')) == b'{"a":1}'
    with pytest.raises(PayloadRefused):
        codec(Raw).encode(Raw(b"{"))
