"""The trace id: where it comes from, where it goes, and what is never let in."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import msgspec
import pytest
from litestar import Litestar, WebSocket, asgi, get, post, websocket
from litestar.response import Stream
from litestar.testing import TestClient
from litestar.types import Receive, Scope, Send

from litestar_jobs import Jobs, JobsConfig, JobsPlugin, job
from litestar_jobs.errors import ConfigurationError
from litestar_jobs.middleware import TraceMiddleware
from litestar_jobs.telemetry import NoTracing
from litestar_jobs.testing import ended, running, until
from litestar_jobs.trace import current_carrier, current_trace_id, trace_id_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"
MADE_HERE = re.compile(r"[0-9a-f]{32}\Z")

Header = tuple[str | bytes, str | bytes]


def no_span() -> str | None:
    return None


def traced(*handlers: Any, header: str = "x-trace-id", span: Any = no_span, **settings: Any) -> Litestar:
    """An application with the middleware and nothing else of ours."""
    return Litestar(handlers, middleware=[TraceMiddleware(header, span)], logging_config=None, **settings)


@get("/")
async def what_is_it() -> str:
    return str(current_trace_id.get())


async def answer(app: Litestar, headers: Sequence[Header] = (), path: str = "/") -> httpx.Response:
    async with running(app) as http:
        return await http.get(path, headers=headers)  # type: ignore[arg-type]  # bytes are fine to httpx


# Where it comes from.


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("traceparent", TRACEPARENT), ("x-trace-id", "mine"), ("x-request-id", "theirs")], TRACE),
        ([("x-trace-id", "mine"), ("x-request-id", "theirs")], "mine"),
        ([("x-request-id", "theirs")], "theirs"),
        ([("traceparent", "nonsense"), ("x-trace-id", "mine")], "mine"),
        ([("x-trace-id", "not printable \x00"), ("x-request-id", "theirs")], "theirs"),
        ([("X-Trace-ID", "mine")], "mine"),
    ],
)
async def test_the_sources_have_an_order(headers: Sequence[Header], expected: str) -> None:
    response = await answer(traced(what_is_it), headers)
    assert (response.text, response.headers["x-trace-id"]) == (expected, expected)


async def test_the_current_span_goes_before_all_headers() -> None:
    response = await answer(traced(what_is_it, span=lambda: "of-the-span"), [("traceparent", TRACEPARENT)])
    assert response.text == "of-the-span"


async def test_a_request_without_an_id_gets_a_new_one_each_time() -> None:
    app = traced(what_is_it)
    first, second = await answer(app), await answer(app)
    assert MADE_HERE.match(first.text)
    assert MADE_HERE.match(second.text)
    assert first.text != second.text
    assert first.headers["x-trace-id"] == first.text


async def test_the_header_has_the_name_that_the_configuration_gives_it() -> None:
    app = traced(what_is_it, header="X-Correlation-Id")
    response = await answer(app, [("x-correlation-id", "c1"), ("x-trace-id", "t1")])
    assert response.text == "c1"
    assert response.headers["x-correlation-id"] == "c1"
    assert "x-trace-id" not in response.headers


@pytest.mark.parametrize("name", ["", "x trace", "x-trace\r\n", "x:trace", "é", "-"])
def test_a_name_that_is_no_header_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="trace_header must be the name of a header"):
        JobsConfig(trace_header=name)


# What is never let in.

EVIL = [
    b"a\r\nset-cookie: evil=1",
    b"a\nb",
    b"a\x00b",
    b"\x1b[31mred\x1b[0m",
    b"a\x7f",
    b"x" * 10_000,
    b"x" * 65,
    b"",
    b" ",
    b"two words",
    "é".encode("latin-1"),
    "\N{FULLWIDTH LATIN CAPITAL LETTER A}".encode(),
    b"\xff\xfe",
]


@pytest.mark.parametrize("value", EVIL)
@pytest.mark.parametrize("name", [b"x-trace-id", b"x-request-id", b"traceparent"])
async def test_an_evil_header_is_ignored_and_never_logged(
    name: bytes, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        response = await answer(traced(what_is_it), [(name, value)])
    assert MADE_HERE.match(response.text)
    assert response.headers["x-trace-id"] == response.text
    assert "set-cookie" not in response.headers
    raw = value.decode("latin-1").strip()
    assert not raw or raw not in caplog.text


async def test_64_printable_characters_are_an_id() -> None:
    longest = "!" + "x" * 62 + "~"
    assert (await answer(traced(what_is_it), [("x-trace-id", longest)])).text == longest


async def test_an_id_that_comes_twice_is_none() -> None:
    response = await answer(traced(what_is_it), [("x-trace-id", "one"), ("x-trace-id", "two")])
    assert MADE_HERE.match(response.text)


@pytest.mark.parametrize(
    ("traceparent", "valid"),
    [
        (TRACEPARENT, True),
        (f"00-{TRACE}-{SPAN}-00", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-01-more", False),
        (f"ff-{TRACE}-{SPAN}-01", False),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{SPAN}-01", False),
        (f"00-{TRACE}-{SPAN}-01\n", False),
        (f"cc-{TRACE}-{SPAN}-01-" + "x" * 10_000, False),
        (f"cc-{TRACE}-{SPAN}-01.", False),
        ("", False),
        (None, False),
    ],
)
def test_a_traceparent_is_valid_as_the_w3c_says(traceparent: str | None, *, valid: bool) -> None:
    assert trace_id_of(traceparent) == (TRACE if valid else None)


@get("/carrier")
async def carried() -> dict[str, str] | None:
    carrier = current_carrier.get()
    return None if carrier is None else dict(carrier)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        ([("traceparent", "nonsense"), ("tracestate", "a=b")], None),
        ([("tracestate", "a=b"), ("baggage", "who=me")], {"baggage": "who=me"}),
        ([("traceparent", TRACEPARENT)], {"traceparent": TRACEPARENT}),
        (
            [("traceparent", TRACEPARENT), ("tracestate", "a=b"), ("tracestate", "c=d"), ("baggage", "who=me")],
            {"traceparent": TRACEPARENT, "tracestate": "a=b, c=d", "baggage": "who=me"},
        ),
        ([("traceparent", TRACEPARENT), ("tracestate", "a=" + "b" * 511)], {"traceparent": TRACEPARENT}),
        ([("traceparent", TRACEPARENT), ("baggage", "a=" + "b" * 8191)], {"traceparent": TRACEPARENT}),
        ([("traceparent", TRACEPARENT), ("baggage", b"a=\x00")], {"traceparent": TRACEPARENT}),
        ([("traceparent", TRACEPARENT), ("baggage", "a=é".encode())], {"traceparent": TRACEPARENT}),
    ],
)
async def test_only_valid_w3c_headers_are_carried(headers: Sequence[Header], expected: dict[str, str] | None) -> None:
    assert (await answer(traced(carried), headers, "/carrier")).json() == expected


# Where it goes: every kind of answer.


@get("/sync", sync_to_thread=True)
def in_a_thread() -> str:
    return str(current_trace_id.get())


@get("/stream")
async def stream() -> Stream:
    async def lines() -> AsyncIterator[str]:
        for _ in range(3):
            await asyncio.sleep(0)
            yield f"{current_trace_id.get()}\n"

    return Stream(lines())


@get("/broken")
async def broken() -> None:
    raise RuntimeError(str(current_trace_id.get()))


@asgi("/mounted", is_mount=True, copy_scope=True)
async def mounted(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": ((b"X-Trace-Id", b"old"),)})
    await send({"type": "http.response.body", "body": str(current_trace_id.get()).encode(), "more_body": False})


@pytest.mark.parametrize("handler", [in_a_thread, mounted])
async def test_handlers_of_every_kind_see_the_id_and_answer_with_it(handler: Any) -> None:
    path = next(iter(handler.paths))
    response = await answer(traced(handler), [("x-trace-id", "t1")], path)
    assert response.text == "t1"
    assert response.headers.get_list("x-trace-id") == ["t1"]


async def test_a_streamed_answer_is_made_under_the_id() -> None:
    response = await answer(traced(stream), [("x-trace-id", "t1")], "/stream")
    assert response.text == "t1\nt1\nt1\n"
    assert response.headers["x-trace-id"] == "t1"


async def test_an_error_is_answered_with_the_id_and_handled_under_it() -> None:
    seen = []

    async def after_exception(_error: Exception, _scope: Scope) -> None:
        seen.append(current_trace_id.get())

    response = await answer(traced(broken, after_exception=[after_exception]), [("x-trace-id", "t1")], "/broken")
    assert response.status_code == 500
    assert response.headers["x-trace-id"] == "t1"
    assert seen == ["t1"]


async def test_nothing_is_left_after_a_request_even_if_it_fails() -> None:
    await answer(traced(broken), [("traceparent", TRACEPARENT)], "/broken")
    assert current_trace_id.get() is None
    assert current_carrier.get() is None


async def test_a_response_that_is_sent_again_has_the_id_of_its_own_request() -> None:
    kept: list[tuple[bytes, bytes]] = [(b"content-type", b"text/plain")]

    @asgi("/kept", copy_scope=True)
    async def keeps(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": kept})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    app = traced(keeps)
    for trace_id in ("one", "two"):
        assert (await answer(app, [("x-trace-id", trace_id)], "/kept")).headers["x-trace-id"] == trace_id
    assert kept == [(b"content-type", b"text/plain")]


def test_a_websocket_is_accepted_with_the_id() -> None:
    @websocket("/ws")
    async def talk(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        await socket.send_text(str(current_trace_id.get()))
        await socket.close()

    with TestClient(traced(talk)) as client, client.websocket_connect("/ws", headers={"x-trace-id": "t1"}) as ws:
        assert ws.receive_text() == "t1"
        assert (b"x-trace-id", b"t1") in (ws.extra_headers or [])


async def test_requests_at_the_same_time_do_not_mix() -> None:
    everybody = asyncio.Barrier(20)

    @get("/together")
    async def together() -> str:
        before = current_trace_id.get()
        await everybody.wait()
        assert current_trace_id.get() == before
        return str(before)

    async with running(traced(together)) as http:
        ids = [f"t{number}" for number in range(20)]
        responses = await asyncio.gather(*(http.get("/together", headers={"x-trace-id": one}) for one in ids))
    assert [response.text for response in responses] == ids
    assert [response.headers["x-trace-id"] for response in responses] == ids


# Into the row, and on.


@job(queue="trace")
async def first(*, jobs: Jobs) -> None:
    await jobs.enqueue(second())


@job(queue="trace")
async def second(*, jobs: Jobs) -> None:
    await jobs.enqueue_many([last()])


@job(queue="trace")
def last() -> None:
    assert current_trace_id.get() is not None


@post("/first")
async def request_first(jobs: Jobs) -> str:
    return str(await jobs.enqueue(first()))


async def all_rows(connection: "asyncpg.Connection[asyncpg.Record]", number: int) -> list[asyncpg.Record]:
    """The jobs once so many have completed, in the order in which they were enqueued."""

    async def look() -> bool:
        done = await connection.fetchval("SELECT count(*) FROM litestar_jobs.finished WHERE status = 'completed'")
        return bool(done == number)

    await until(look, what=f"{number} jobs have not completed")
    return await connection.fetch("SELECT * FROM litestar_jobs.job ORDER BY id")


async def test_follow_up_jobs_inherit_the_trace_and_its_carrier(
    dsn: str, connection: "asyncpg.Connection[asyncpg.Record]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("litestar_jobs.plugin._tracing", lambda: NoTracing(current_carrier.get))
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[first, second, last]))
    headers = {"traceparent": TRACEPARENT, "tracestate": "a=b", "baggage": "who=me"}
    async with running(Litestar([request_first], plugins=[plugin], logging_config=None)) as http:
        assert (await http.post("/first", headers=headers)).headers["x-trace-id"] == TRACE
        rows = await all_rows(connection, 3)
    assert [row["job_type"] for row in rows] == ["first", "second", "last"]
    assert {row["trace_id"] for row in rows} == {TRACE}
    assert [msgspec.json.decode(row["headers"]) for row in rows] == [headers] * 3


async def test_the_trace_header_of_the_configuration_is_that_of_the_application(dsn: str) -> None:
    plugin = JobsPlugin(JobsConfig(dsn=dsn, jobs=[last], trace_header="x-correlation-id"))

    @post("/last")
    async def request_last(jobs: Jobs) -> str:
        return str(await jobs.enqueue(last()))

    async with running(Litestar([request_last], plugins=[plugin], logging_config=None)) as http:
        response = await http.post("/last", headers={"x-correlation-id": "c1"})
        row = await ended(plugin.client, UUID(response.text))
    assert response.headers["x-correlation-id"] == "c1"
    assert row.trace_id == "c1"
