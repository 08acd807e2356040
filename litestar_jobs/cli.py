"""The command line: ``litestar jobs ...``."""

import rich_click as click

__all__ = ("jobs_group",)


@click.group(name="jobs")
def jobs_group() -> None:
    """Background jobs."""
