"""PgBouncer in transaction mode, in front of the server of the tests, as its own documentation would have it."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

import asyncpg
import pytest
from sqlalchemy import Dialect, Engine
from sqlalchemy.event import listen, remove

CONFIGURATION = """\
[databases]
* = {server}
[pgbouncer]
listen_addr =
unix_socket_dir = {directory}
listen_port = {port}
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 1000
server_idle_timeout = 1
logfile = {directory}/log
pidfile = {directory}/pid
"""
PORT = 6432


def program() -> str:
    """Where PgBouncer is; skips the test if it is nowhere."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
    return found


@contextmanager
def pooler(server_dsn: str, connections: int = 10) -> Iterator[str]:
    """PgBouncer in front of every database of the server; gives the DSN of the same database through it."""
    directory = Path(tempfile.mkdtemp(prefix="litestar-jobs-pooler-"))
    words = [program(), str(_configured(server_dsn, directory, connections))]
    if os.geteuid() == 0:  # it refuses to be root; the server's user may go where the server's socket is
        user = _owner_of_socket(server_dsn)
        shutil.chown(directory, user)
        words[1:1] = ["-u", user]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(directory / f".s.PGSQL.{PORT}", process)
        parts = urlsplit(server_dsn)
        user = unquote(parts.username or "postgres")
        yield urlunsplit(
            parts._replace(netloc=f"{quote(user, '')}@", query=f"host={quote(str(directory))}&port={PORT}")
        )
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(directory)


def _owner_of_socket(server_dsn: str) -> str:
    host = Path(_query(server_dsn).get("host", "/"))
    owner = host.owner() if host.is_absolute() else "root"
    return "nobody" if owner == "root" else owner


def _query(dsn: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(dsn).query))


def _configured(server_dsn: str, directory: Path, connections: int) -> Path:
    parts = urlsplit(server_dsn)
    query = _query(server_dsn)
    server = {
        "host": query.get("host", parts.hostname or "127.0.0.1"),
        "port": parts.port or query.get("port", "5432"),
        "user": unquote(parts.username or "postgres"),
        "password": unquote(parts.password or ""),
    }
    file = directory / "pgbouncer.ini"
    told = " ".join(f"{name}='{value}'" for name, value in server.items() if value)
    file.write_text(CONFIGURATION.format(server=told, directory=directory, port=PORT, connections=connections))
    file.chmod(0o644)
    directory.chmod(0o755)
    return file


def _wait_for(path: Path, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 10
    while not _answers(path):
        log = path.parent / "log"
        assert process.poll() is None, f"PgBouncer ended: {log.read_text() if log.exists() else 'without a log'}"
        assert time.monotonic() < until, f"PgBouncer does not listen at {path}"
        time.sleep(0.01)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@contextmanager
def unprepared() -> Iterator[None]:
    """Connections of the tests' own, as their drivers' documentation wants them behind such a pooler: asyncpg without a
    cache of prepared statements, SQLAlchemy without names for them, psycopg without preparing anything."""

    def connects(dialect: Dialect, _record: object, _words: object, settings: dict[str, Any]) -> None:
        if dialect.driver == "asyncpg":
            settings.update(prepared_statement_name_func=str, prepared_statement_cache_size=0)
        elif dialect.driver == "psycopg":
            settings["prepare_threshold"] = None

    with pytest.MonkeyPatch.context() as patch:
        for function in ("connect", "create_pool"):
            patch.setattr(asyncpg, function, partial(getattr(asyncpg, function), statement_cache_size=0))
        listen(Engine, "do_connect", connects)
        yield
        remove(Engine, "do_connect", connects)
