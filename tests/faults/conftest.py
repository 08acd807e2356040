"""What the fault tests share: one server to be stopped and killed, and for each test a database, a fleet and a load."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from litestar_jobs.testing import until

from .app import Settings
from .fleet import Events, Fleet
from .load import Load, loading
from .oracle import Findings, judge, nobody_left, settled
from .proxy import Proxy
from .server import Server


@pytest.fixture(scope="session")
async def server() -> AsyncIterator[Server]:
    """The suite's own server; a test that stops it starts it again."""
    own = Server()
    await own.start()
    await own.create_template()
    yield own
    await own.stop("immediate")
    own.remove()


@pytest.fixture
async def world(server: Server, tmp_path: Path) -> AsyncIterator["World"]:
    """A database, a proxy to it, workers that go through the proxy, and callers that enqueue directly."""
    name = f"faults_{uuid4().hex[:12]}"
    direct = await server.create(name)
    async with Proxy(direct) as proxy, loading(direct, direct) as load:
        settings = Settings(dsn=proxy.dsn, session_dsn=proxy.dsn, direct_dsn=direct, events=str(tmp_path / "events"))
        fleet = Fleet(settings)
        try:
            yield World(server, direct, proxy, load, fleet)
        finally:
            await fleet.kill()
    await nobody_left(direct)
    await server.drop(name)


@dataclass
class World:
    """Everything that a fault can be done to."""

    server: Server
    dsn: str
    proxy: Proxy
    load: Load
    fleet: Fleet

    @property
    def events(self) -> Events:
        return self.fleet.events

    async def judged(self, within: float = 60) -> Findings:
        """End the load, wait until all jobs have ended, let the workers go, and see that nothing is wrong."""
        await self.load.end()
        await self.load.ask_again()
        await settled(self.dsn, within)
        codes = await self.fleet.stop()
        assert codes == [0] * len(codes), self.output()
        found = await judge(self.dsn, self.load, self.events)
        assert found.wrong == {}, self.output()
        return found

    async def busy(self, at_least: int = 100) -> None:
        """Return when the workers have got going: so many more attempts have ended."""
        before = len(self.events.of("AttemptEnded"))

        async def look() -> bool:
            return len(self.events.of("AttemptEnded")) >= before + at_least

        await until(look, 30, lambda: f"the workers do not work: {self.output()}")

    def output(self) -> str:
        return "\n".join(worker.output.read_text()[-3000:] for worker in self.fleet.workers)
