import asyncio

import pytest

from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.fleet.poller import GROUP_VISITS, Poller
from lodestar_extproc.fleet.scrape_budget import ScrapeBudget


def taught(pace, seen_s):
    for _ in range(1000):
        pace.spent(seen_s)


def test_a_small_fleet_is_read_as_often_as_asked_for():
    pace = ScrapeBudget(0.2).new_pace()
    taught(pace, 0.2e-3)

    assert pace.ask(8, 0.2) == 0.2


@pytest.mark.parametrize("n", [8, 64, 256, 512, 4096])
def test_all_reads_together_never_take_more_than_the_budget(n):
    pace = ScrapeBudget(0.2).new_pace()
    taught(pace, 0.3e-3)
    interval_s = pace.ask(n, 0.2)

    assert n * pace.scrape_s / interval_s <= 0.2 + 1e-9
    assert interval_s >= 0.2


def test_pools_share_one_budget():
    budget = ScrapeBudget(0.2)
    one, other = budget.new_pace(), budget.new_pace()
    for pace in (one, other):
        taught(pace, 0.4e-3)
    alone_s = one.ask(300, 0.2)
    other.ask(300, 0.2)

    assert one.ask(300, 0.2) == pytest.approx(2 * alone_s)


def test_the_pace_is_back_when_pages_or_fleets_are_small_again():
    pace = ScrapeBudget(0.2).new_pace()
    taught(pace, 5e-3)
    assert pace.ask(512, 0.2) > 2.0
    taught(pace, 0.05e-3)
    assert pace.ask(64, 0.2) == 0.2


@pytest.mark.parametrize("n", [1, 7, 8, 64, 100, 512])
async def test_visits_of_one_interval_are_spread_in_small_groups(n):
    begun: list[tuple[float, str]] = []
    clock = asyncio.get_running_loop().time

    async def visit(endpoint):
        begun.append((clock(), endpoint.address))

    interval_s = 0.5
    poller = Poller(visit, interval_s=lambda: interval_s)
    poller.set_endpoints(Endpoint(f"10.0.{i // 250}.{i % 250}:80") for i in range(n))
    running = asyncio.create_task(poller.run())
    await asyncio.sleep(2.2 * interval_s)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    counts = [[a for _, a in begun].count(address) for address in {a for _, a in begun}]
    assert len(counts) == n
    # A busy machine is late with the last.
    assert set(counts) <= {1, 2, 3}
    assert len({at_s for at_s, _ in begun}) >= -(-n // GROUP_VISITS)
