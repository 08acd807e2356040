"""The public API fits one screen, errors are a drawn tree, and type checkers see what users are told."""

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import litestar_jobs
from litestar_jobs import errors

HERE = Path(__file__).parent

PUBLIC = """
Cancel Cron Every Exponential Fail FailedJob Finished Fixed Job JobContext JobFilter JobId JobRequest JobRow JobStatus Jobs
JobsClient JobsConfig JobsPlugin Limit Never Rate Retention RetryAfter Snooze StartedWorkflow StepRow Unique WorkerConfig
Workflow WorkflowRow chain group job
"""


def test_the_public_names_are_these() -> None:
    assert sorted(litestar_jobs.__all__) == sorted(PUBLIC.split())
    assert [name for name in litestar_jobs.__all__ if not hasattr(litestar_jobs, name)] == []


def test_every_public_name_says_what_it_is() -> None:
    named = [getattr(litestar_jobs, name) for name in PUBLIC.split()]
    assert [each for each in named if not inspect.getdoc(each)] == []


def own_errors() -> dict[str, type[BaseException]]:
    return {
        name: each
        for name, each in vars(errors).items()
        if isinstance(each, type) and issubclass(each, BaseException) and each.__module__ == errors.__name__
    }


def test_every_error_is_exported() -> None:
    assert sorted(errors.__all__) == sorted(own_errors())


def drawn_parents() -> dict[str, str]:
    """Each error of the tree at the top of the module, with what it hangs from."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if (found := re.match(r"([ │├└─]*)(\w+)", line)) and (found[2] in own_errors() or "on the job" in line):
            depth, name = len(found[1]), found[2]
            above = [each for each in above if each[0] < depth]
            hangs_from = [parent for _, parent in above if parent in own_errors()]
            if hangs_from and name in own_errors():
                parents[name] = hangs_from[-1]
            above.append((depth, name))
    return parents


def test_the_errors_are_the_tree_that_is_drawn() -> None:
    real = {name: each.__bases__[0].__name__ for name, each in own_errors().items() if name != "JobsError"}
    assert drawn_parents() == real


def test_every_error_of_ours_is_one_of_ours() -> None:
    assert all(issubclass(each, errors.JobsError) for each in own_errors().values())


def checked(*command: str) -> None:
    done = subprocess.run([*command, "tests/typing"], cwd=HERE.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_accepts_and_refuses_what_users_are_told() -> None:
    pytest.importorskip("mypy", reason="mypy is in the dependency group lint")
    checked(sys.executable, "-m", "mypy")


@pytest.mark.skipif(shutil.which("node") is None, reason="pyright runs on node")
def test_pyright_accepts_and_refuses_what_users_are_told() -> None:
    pytest.importorskip("pyright", reason="pyright is in the dependency group lint")
    checked(sys.executable, "-m", "pyright", "--pythonpath", sys.executable)
