"""Faults of processes: killed, suspended, told to stop."""

from .conftest import World


async def test_nothing_is_lost_or_doubled_without_any_fault(world: World) -> None:
    await world.fleet.start_all(2)
    world.load.begin_rolling_back()
    await world.load.backlog(500, 0.01)
    found = await world.judged()
    assert found.counts["jobs completed"] == 500
    assert found.counts["claims"] - found.counts["handed_back"] == found.counts["starts"] == 500
    assert found.counts["rolled_back"] > 0
