"""The command line: ``litestar jobs ...``. One file per theme; this one only puts them together.

Every command exits with 0 if what it was asked for is so, with 1 if it is not, with 2 if it was called wrongly. What
went wrong is on stderr. With ``--json`` stdout is one JSON document, whose shape is that of the Struct it is made of.
"""

import click
from litestar.cli._utils import LitestarGroup

from litestar_jobs.cli.bulk import delete, move, reprioritise
from litestar_jobs.cli.limits import limits
from litestar_jobs.cli.listing import list_jobs
from litestar_jobs.cli.moves import cancel, retry
from litestar_jobs.cli.partitions import partitions
from litestar_jobs.cli.prune import prune
from litestar_jobs.cli.queues import queues
from litestar_jobs.cli.schedules import schedules
from litestar_jobs.cli.story import show
from litestar_jobs.cli.tables import check, downgrade, init, sql, upgrade
from litestar_jobs.cli.worker import worker
from litestar_jobs.cli.workflows import workflow, workflows

__all__ = ("jobs_group",)


@click.group(name="jobs", cls=LitestarGroup)
def jobs_group() -> None:
    """Background jobs: their tables, their workers, and what became of them."""


for command in (init, upgrade, downgrade, check, sql, worker, list_jobs, show, retry, cancel, schedules):
    jobs_group.add_command(command)
for command in (delete, move, reprioritise, prune, partitions, queues, limits, workflows, workflow):
    jobs_group.add_command(command)
