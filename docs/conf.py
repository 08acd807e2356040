"""How Sphinx builds these pages. Nothing is fetched: ``sphinx-build -W --keep-going -n docs docs/_build``."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "litestar-jobs"
author = "The litestar-jobs authors"
project_copyright = f"2026, {author}"
version = release = version_of("litestar-jobs")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_design",
    "click_commands",
    "short_names",
]
exclude_patterns = ["_build"]
smartquotes_action = "qe"  # quotes and ellipses; two dashes begin an option

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
toc_object_entries_show_parents = "hide"
maximum_signature_line_length = 88

nitpicky = True
nitpick_ignore_regex = [
    # Documented elsewhere, and no inventory of theirs is fetched: the build needs no network.
    (
        r"py:.*",
        r"(asyncio|asyncpg|collections|contextlib|contextvars|datetime|enum|litestar|msgspec|httpx|pathlib|typing|uuid)\..*",
    ),
    # Names of the standard library and of Litestar as they stand in annotations.
    (
        r"py:.*",
        r"(Any|Awaitable|Callable|Iterable|Mapping|Sequence|UUID|datetime|timedelta|Path|NamedDependency|Litestar)",
    ),
    (
        r"py:.*",
        r"(BaseException|Exception|None|bool|dict|float|int|list|str|bytes|callable|RuntimeError|TimeoutError|ValueError|LookupError)",
    ),
    # Type variables and aliases of this library that explain themselves where they appear.
    (
        r"py:.*",
        r"(.*\.)?(T|PayloadT|ResultT|Duration|Outcome|Hook|Event|RetryPolicy|Migrate|DatabaseSource|UniqueKey)",
    ),
]

html_theme = "shibuya"
html_title = "litestar-jobs"
html_static_path = ["_static"]
html_css_files = ["house.css"]
html_show_sourcelink = False
html_theme_options = {"accent_color": "blue"}
