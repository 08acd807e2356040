"""The network between workers and PostgreSQL: a TCP proxy that reads the protocol along the way.

A connection is known by the statements that went over it, each of which begins with its contract, so "the connection
that claims" is one that carried ``-- Claim jobs``. Faults are asked for by such words: cut it, let it go silent, or
swallow the answer to its next statement. The last one is how "between the commit and its acknowledgement" is hit by
design and not by luck: the server has answered that it is ready again, so the statement is committed, and the client
finds a connection that broke.
"""

import asyncio
from collections.abc import Awaitable
from typing import Self
from urllib.parse import urlsplit, urlunsplit

CLAIM, COMPLETE, SETTLE = "-- Claim jobs", "-- Finish jobs", "-- Settle"
PROMOTE, RENEW, ENQUEUE, HAND_BACK = "-- Promote", "-- Renew", "-- Write", "-- Hand back"
COMMIT = "COMMIT"
"""How statements begin. The chores' connection, which promotes and rescues, is also the one that listens."""

SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102


class Trap:
    """Waits for a statement, and for the server's answer to it."""

    def __init__(self, words: str, *, cut: bool) -> None:
        self.words = words
        self.cut = cut
        self.sprung = asyncio.Event()
        """The server has answered, and nobody heard."""


class Wire:
    """One connection through the proxy."""

    def __init__(self, proxy: "Proxy", client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._statements: dict[bytes, str] = {}
        self.seen: set[str] = set()
        """The first line of each statement that went over it."""
        self.silent = False
        self._trap: Trap | None = None

    def carries(self, words: str) -> bool:
        return any(line.startswith(words) for line in self.seen)

    def cut(self) -> None:
        """Both ends find a reset connection."""
        self._client.transport.abort()
        self._server.transport.abort()

    async def pump_client(self, reader: asyncio.StreamReader) -> None:
        """From the client to the server, a message at a time."""
        while True:
            kind, body = await _message(reader)
            for statement in self._sent(kind, body):
                self.seen.add(statement.partition("\n")[0])
                self._trap = self._trap or self._proxy.trap_for(statement)
            if not self.silent:
                self._server.write(kind + _length(body) + body)
                await self._server.drain()

    async def pump_server(self, reader: asyncio.StreamReader) -> None:
        """From the server to the client."""
        while True:
            kind, body = await _message(reader)
            if self.silent:
                continue
            if self._trap is None:
                self._client.write(kind + _length(body) + body)
                await self._client.drain()
            elif kind == b"Z":
                self._trap.sprung.set()
                if self._trap.cut:
                    self.cut()
                self.silent = True

    def _sent(self, kind: bytes, body: bytes) -> list[str]:
        """The statements that begin to be executed with this message."""
        if kind == b"Q":
            return [body.rstrip(b"\0").decode()]
        if kind == b"P":
            name, statement, _ = body.split(b"\0", 2)
            self._statements[name] = statement.decode()
        elif kind == b"B":
            _, name, _ = body.split(b"\0", 2)
            return [self._statements.get(name, "")]
        return []


class Proxy:
    """Listens on a port of its own and leads to the server of ``dsn``."""

    def __init__(self, dsn: str) -> None:
        parts = urlsplit(dsn)
        self._target = (parts.hostname or "", parts.port or 5432)
        self._parts = parts
        self.wires: set[Wire] = set()
        self._traps: list[Trap] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port: int = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for wire in self.wires:
            wire.cut()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10)

    @property
    def dsn(self) -> str:
        return urlunsplit(self._parts._replace(netloc=f"postgres@127.0.0.1:{self._port}"))

    def carrying(self, words: str) -> list[Wire]:
        """The connections over which such a statement went."""
        return [wire for wire in self.wires if wire.carries(words)]

    def cut(self, words: str = "") -> int:
        """Break these connections; how many."""
        wires = self.carrying(words)
        for wire in wires:
            wire.cut()
        return len(wires)

    def silence(self, words: str = "") -> list[Wire]:
        """These connections stay open, and nothing comes through any more: the other side is gone without a word."""
        wires = self.carrying(words)
        for wire in wires:
            wire.silent = True
        return wires

    def swallow(self, words: str, *, cut: bool = True) -> Trap:
        """The next time that such a statement is executed, its answer is lost. Then the connection breaks, or is silent
        for ever."""
        trap = Trap(words, cut=cut)
        self._traps.append(trap)
        return trap

    def trap_for(self, statement: str) -> Trap | None:
        for trap in self._traps:
            if statement.startswith(trap.words):
                self._traps.remove(trap)
                return trap
        return None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._connect(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # one side has gone, so the other goes too
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        startup = await _startup(reader)
        while _code(startup) in (SSL_REQUEST, GSS_REQUEST):
            writer.write(b"N")
            startup = await _startup(reader)
        answers, server = await asyncio.open_connection(*self._target)
        try:
            server.write(_length(startup) + startup)
            if _code(startup) == CANCEL_REQUEST:
                await answers.read()
                return
            wire = Wire(self, writer, server)
            self.wires.add(wire)
            try:
                await _first([wire.pump_client(reader), wire.pump_server(answers)])
            finally:
                self.wires.discard(wire)
        finally:
            server.transport.abort()


async def _first(pumps: list[Awaitable[None]]) -> None:
    """Run them until one ends, then end the others."""
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head[:1], await reader.readexactly(int.from_bytes(head[1:]) - 4)


async def _startup(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4)) - 4)


def _code(startup: bytes) -> int:
    return int.from_bytes(startup[:4])


def _length(body: bytes) -> bytes:
    return (len(body) + 4).to_bytes(4)
