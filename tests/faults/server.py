"""A PostgreSQL of the suite's own, to be stopped, killed and started again.

Durability is on as in production, except for ``fsync``: what is killed here are processes, never the machine, and what a
process has written is in the system's page cache whether or not it was forced to the disk. Recovery from the
write-ahead log after a crash is real.
"""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Literal

import asyncpg

from litestar_jobs import migrate
from litestar_jobs.database import Database, Link
from litestar_jobs.embedded import _is_root, _package
from litestar_jobs.testing import until

CONFIGURATION = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
max_connections = 200
autovacuum_naptime = '5s'
"""
TEMPLATE = "faults_template"


class Server:
    """One data directory and the server on it. The port stays the same over restarts."""

    def __init__(self, configuration: str = "") -> None:
        """``configuration`` are further lines of ``postgresql.conf``."""
        package = _package()
        self._programs: Path = package.POSTGRES_VERSIONS[package.TARGET_POSTGRES_VERSION]
        self._user: dict[str, Any] = {}
        # As root the embedded package has made a user for servers, and opened the programs to it.
        self.directory = Path(tempfile.mkdtemp(prefix="litestar-jobs-faults-"))
        if _is_root():
            package.ensure_user_exists("pgserver")
            for path in package.POSTGRES_VERSIONS.values():
                package.ensure_prefix_permissions(path)
                package.ensure_folder_permissions(path, 0o055)
                package.ensure_folder_permissions(path.parent / "lib", 0o044)
            shutil.chown(self.directory, "pgserver")
            self._user = {"user": "pgserver"}
        self.data = self.directory / "data"
        self.port = free_port()
        self.run("initdb", "-D", self.data, "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync")
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(f"{CONFIGURATION}port = {self.port}\n{configuration}")

    def run(self, program: str, *arguments: object) -> None:
        """One of PostgreSQL's programs, as the user that may run it."""
        with (self.directory / "log").open("ab") as log:
            words = [str(self._programs / program), *map(str, arguments)]
            subprocess.run(words, check=True, stdout=log, stderr=log, cwd="/", **self._user)

    def dsn(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    async def start(self) -> None:
        """Return when it takes connections, after whatever recovery it needs."""
        log = self.data / "server.log"
        await asyncio.to_thread(self.run, "pg_ctl", "-D", self.data, "-l", log, "-w", "-t", 60, "start")

    async def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """``fast`` ends connections and writes all to disk; ``immediate`` aborts, and the next start recovers."""
        await asyncio.to_thread(self.run, "pg_ctl", "-D", self.data, "-m", mode, "-w", "-t", 60, "stop")

    async def kill(self) -> None:
        """SIGKILL to the postmaster. Its children notice, and leave the shared memory before a new one may start."""
        pid = int((self.data / "postmaster.pid").read_text().splitlines()[0])
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        os.kill(pid, signal.SIGKILL)

        async def gone() -> bool:
            return not any(lives(each) for each in (pid, *children))

        await until(gone, 30, "processes of the killed server are left")
        # Where no init process buries it at once, the next server would take it for alive.
        (self.data / "postmaster.pid").unlink()

    async def restart(self, how: Literal["fast", "immediate", "kill"]) -> None:
        await (self.kill() if how == "kill" else self.stop(how))
        await self.start()

    async def create_template(self) -> None:
        """A migrated database with the tables of the suite, for :meth:`create`."""
        await self._admin(f"CREATE DATABASE {TEMPLATE}")
        link = Link(Database(self.dsn(TEMPLATE)))
        await migrate.upgrade(link, "litestar_jobs")
        await link.run((Path(__file__).parent / "tables.sql").read_text())
        await link.close()

    async def create(self, name: str) -> str:
        """A new database out of the template: its DSN."""
        await self._admin(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return self.dsn(name)

    async def drop(self, name: str) -> None:
        await self._admin(f"DROP DATABASE {name} WITH (FORCE)")

    async def _admin(self, statement: str) -> None:
        connection = await asyncpg.connect(self.dsn())
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def lives(pid: int) -> bool:
    """Whether this process runs; one that waits to be buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
