"""Operations on filters from the command line: a count and consent first, and figures for machines."""

import json
from uuid import UUID

import pytest

from cli_app import fail, hold
from litestar_jobs import JobFilter, JobStatus
from litestar_jobs.store import Store
from test_cli import NOBODY, Litestar_, command, enqueued, jobs, printed

__all__ = ("command", "jobs")  # fixtures

PENDING = JobFilter(status="pending")


async def test_a_filter_is_counted_and_asked_about_before_anything_moves(jobs: Litestar_, store: Store) -> None:
    await enqueued(fail("no"), fail("no"), fail("no"), work=True)
    await enqueued(fail("pending"))

    refused = await jobs("retry", "--status", "failed", input="n\n")
    assert refused.exit_code == 1
    assert "Run again: 3 jobs? [y/N]" in refused.output
    assert len(await store.find(PENDING, 10)) == 1

    agreed = await jobs("retry", "--status", "failed", "--type", "fail", input="y\n")
    assert agreed.exit_code == 0
    assert agreed.output.splitlines()[-1] == "3 jobs run again."
    assert len(await store.find(PENDING, 10)) == 4
    assert "0 jobs run again." in (await jobs("retry", "--status", "failed")).output, "nothing to ask about"


async def test_a_dry_run_only_counts(jobs: Litestar_, store: Store) -> None:
    await enqueued(fail("1"), fail("2", queue="other"), hold("3"))
    result = await jobs("cancel", "--queue", "other", "--dry-run")
    assert (result.exit_code, result.output) == (0, "1 job would be cancelled.\n")
    machine = await jobs("cancel", "--all", "--dry-run", "--json")
    assert json.loads(machine.stdout) == {"matched": 3, "moved": 0}
    assert len(await store.find(PENDING, 10)) == 3


async def test_each_operation_does_what_it_says(jobs: Litestar_, store: Store) -> None:
    one, two, three = await enqueued(fail("1"), fail("2"), hold("3"))

    async def done(*arguments: object) -> dict[str, int]:
        result = await jobs(*arguments, "--yes", "--json")
        assert result.exit_code == 0, result.output
        answer: dict[str, int] = json.loads(result.stdout)
        return answer

    async def by_id() -> dict[UUID, tuple[JobStatus, str, int]]:
        return {row.id: (row.status, row.queue, row.priority) for row in await store.find(JobFilter.everything(), 10)}

    assert await done("move", "--to", "urgent", "--type", "fail") == {"matched": 2, "moved": 2}
    assert await done("reprioritise", "--priority", -5, one) == {"matched": 1, "moved": 1}
    assert await done("cancel", "--queue", "urgent") == {"matched": 2, "moved": 2}
    assert await by_id() == {
        one: (JobStatus.CANCELLED, "urgent", -5),
        two: (JobStatus.CANCELLED, "urgent", 0),
        three: (JobStatus.PENDING, "held", 0),
    }
    assert await done("delete", one, three) == {"matched": 1, "moved": 1}
    assert await done("delete", "--all") == {"matched": 1, "moved": 1}
    assert list(await by_id()) == [three]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("retry",), "Say which jobs"),
        (("delete",), "Say which jobs"),
        (("move", "--queue", "a"), "Missing option '--to'"),
        (("reprioritise", "--priority", 99_999, "--all"), "99999 is not in the range"),
        (("cancel", "--status", "failed", "--yes"), "only pending and running jobs can be cancelled"),
        (("retry", "--all", "--queue", "a", "--yes"), "a filter for all jobs has no conditions"),
        (("delete", "--all", "--json"), "--json does not ask: add --yes, or --dry-run."),
        (("cancel", "--older-than", "5"), "'5' is not a number with a unit"),
        (("cancel", "--error", ""), "error must be text of 1 to"),
        (("prune", "--status", "pending"), "'pending' is not one of 'completed', 'failed', 'cancelled'"),
    ],
)
async def test_a_call_that_makes_no_sense_exits_with_2(
    jobs: Litestar_, arguments: tuple[object, ...], told: str
) -> None:
    result = await jobs(*arguments)
    assert result.exit_code == 2
    assert told in printed(result)


async def test_an_age_of_nothing_is_a_condition_too(jobs: Litestar_, store: Store) -> None:
    await enqueued(fail("1"))
    assert (await jobs("cancel", "--older-than", "0s", "--yes")).output == "1 job cancelled.\n"


async def test_list_has_the_options_of_a_filter(jobs: Litestar_) -> None:
    one, two = await enqueued(fail("no route"), fail("other"), work=True)
    result = json.loads((await jobs("list", "--error", "NO ROUTE", "--json")).stdout)
    assert [row["id"] for row in result["jobs"]] == [str(one)]
    assert "There are no such jobs." in (await jobs("list", "--older-than", "1h")).output
    assert "There are no such jobs." in (await jobs("list", "--trace-id", "nobody")).output
    assert str(two) in (await jobs("list", "--limit", 1)).output


async def test_ids_alone_still_say_of_each_why_it_did_not_move(jobs: Litestar_) -> None:
    result = await jobs("retry", NOBODY)
    assert result.exit_code == 1
    assert "not moved: there is no such job" in result.output


async def test_prune_deletes_what_was_kept_long_enough_and_a_dry_run_counts_it(jobs: Litestar_, store: Store) -> None:
    await enqueued(fail("no"), fail("no"), work=True)
    assert (await jobs("prune")).output == "0 completed jobs, 0 failed jobs, 0 cancelled jobs deleted.\n"
    assert "2 failed jobs" in (await jobs("prune", "--older-than", "0s", "--dry-run")).output
    assert (await jobs("prune", "--older-than", "0s", "--status", "completed")).exit_code == 0
    assert len(await store.find(JobFilter(status="failed"), 10)) == 2
    pruned = await jobs("prune", "--older-than", "0s", "--json")
    assert json.loads(pruned.stdout) == {"completed": 0, "failed": 2, "cancelled": 0}
    assert await store.find(JobFilter.everything(), 10) == []
