"""The example of the README does what the README says, served by a real uvicorn in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def demo(dsn: str, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.demo", "--port", "0", *arguments],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": dsn, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_the_round_shows_each_job_under_the_trace_id_of_its_request(direct_dsn: str) -> None:
    with demo(direct_dsn, "--once") as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    for line in (
        "[demo-ada] send_welcome_email: mail to ada@example.com: welcome",
        "ConnectionError: the mail server hung up",
        "[demo-flaky] send_welcome_email: mail to flaky@example.com: welcome",
        "[demo-report] write_report: report: 2 users",
        '{"status_code":400,"detail":"we changed our mind"}',
    ):
        assert line in output
    assert "mail to bob@example.com" not in output


def test_the_demo_stays_up_for_requests_until_it_is_interrupted(direct_dsn: str) -> None:
    with demo(direct_dsn) as process:
        assert process.stdout is not None
        url = next(line.split()[5] for line in process.stdout if "The application stays up at" in line)
        answer = httpx.post(f"{url}/users", json={"email": "me@example.com"}, headers={"x-trace-id": "mine"})
        assert answer.is_success
        assert answer.headers["x-trace-id"] == "mine"
        assert any("[mine] send_welcome_email: mail to me@example.com" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert "stopped, 0 jobs handed back" in output


def test_the_application_of_the_example_can_be_loaded_by_the_command_line(direct_dsn: str) -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "litestar", "--app", "examples.app:create_app", "jobs", "list", "--json"],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": direct_dsn},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert listed.returncode == 0, listed.stderr
    assert json.loads(listed.stdout)


def test_the_readme_shows_what_the_example_prints() -> None:
    readme = (ROOT / "README.md").read_text()
    source = (ROOT / "examples" / "demo.py").read_text()
    for path in ("/users", "/users/rejected", "/reports"):
        assert f"http://127.0.0.1:8000{path}" in readme
        assert f'"{path}"' in source
