"""Faults of the server: stopped fast, stopped at once, and killed, under claims, finishes and enqueues."""

import asyncio
from typing import Literal

import pytest

from .app import Work, plain, transacted
from .conftest import World
from .recovery import ends, moment, seconds_to_recover


@pytest.mark.parametrize("how", ["fast", "immediate", "kill"])
async def test_a_server_that_comes_back_finds_everything_and_everybody_again(
    world: World, how: Literal["fast", "immediate", "kill"]
) -> None:
    """It is away for longer than the lease, under 2 workers and 8 callers. Nothing is lost or doubled, and within five
    seconds after it takes connections jobs are finished at their usual rate."""
    await world.fleet.start_all(2)
    world.load.begin(8, lambda n: (plain, transacted)[n % 2](Work(0.02)))
    await world.load.begin_rolling_back()
    await world.busy(100)
    since = await moment(world.dsn)
    await asyncio.sleep(2)  # the usual rate
    broken = await moment(world.dsn)
    await (world.server.kill() if how == "kill" else world.server.stop(how))
    await asyncio.sleep(world.fleet.settings.lease + 1)  # the outage
    await world.server.start()
    back = await moment(world.dsn)
    await world.busy(300)
    await world.load.end()
    assert world.load.refused > 0
    await world.judged()
    recovery = seconds_to_recover(await ends(world.dsn), since, broken, back)
    assert recovery is not None
    assert recovery <= 5
