"""The statements in ``sql/``, for one schema.

The files are written for the schema ``litestar_jobs``; another schema's name takes its place when they are read.
"""

import re
from functools import cache
from importlib.resources import files

from litestar_jobs.errors import ConfigurationError

__all__ = ("Statements",)

SCHEMA_NAME = re.compile(r"(?!pg_|public\Z|information_schema\Z)[a-z_][a-z0-9_]{0,50}\Z")


@cache
def _source(name: str) -> str:
    return files("litestar_jobs").joinpath("sql", f"{name}.sql").read_text(encoding="utf-8")


class Statements:
    """The statements for one schema. ``channel`` is where its workers listen, ``changes`` where those do who
    watch jobs."""

    def __init__(self, schema: str) -> None:
        if not SCHEMA_NAME.match(schema):
            raise ConfigurationError(
                f"the schema must be a plain lower-case name of at most 51 letters, digits and underscores, and one "
                f"of the jobs' own (not public or pg_...), not {schema!r}"
            )
        self.schema = schema
        self.channel = schema
        self.changes = f"{schema}.changes"

    def __getitem__(self, name: str) -> str:
        return _rendered(name, self.schema)

    def render(self, sql: str) -> str:
        """SQL that is written for the schema ``litestar_jobs``, for this one."""
        return sql if self.schema == "litestar_jobs" else re.sub(r"\blitestar_jobs\.", f'"{self.schema}".', sql)


@cache
def _rendered(name: str, schema: str) -> str:
    return Statements(schema).render(_source(name))
