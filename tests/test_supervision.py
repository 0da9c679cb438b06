"""Supervision: a task that fails is counted, told once, and begun anew; nothing else stops it."""

import asyncio
import logging
from collections import Counter

import pytest

from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.fleet.poller import Poller
from lodestar_extproc.supervision import BackgroundTask, Supervisor
from waiting import until


class Watched(Supervisor):
    """One whose pauses take no time and are written down."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.pauses_s: list[float] = []
        super().__init__(lambda task: self.counts.update([task]), sleep=self._pause)

    async def _pause(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        await asyncio.sleep(0)


def failing(n: int, error: type[BaseException] = KeyError):
    left = iter(range(n))

    async def work() -> None:
        if next(left, None) is not None:
            raise error("a word")

    return work


@pytest.mark.parametrize("error", [KeyError, RecursionError, MemoryError, asyncio.CancelledError])
async def test_what_fails_is_begun_anew_until_it_succeeds(error):
    supervisor = Watched()
    await supervisor.keep(BackgroundTask.SCRAPING, failing(3, error))
    assert supervisor.counts == {"scraping": 3}


async def test_pauses_grow_to_half_a_minute():
    supervisor = Watched()
    await supervisor.keep(BackgroundTask.SCRAPING, failing(7))
    assert supervisor.pauses_s == [1, 2, 4, 8, 16, 30, 30]


async def test_each_kind_of_failure_is_told_once(caplog):
    supervisor = Watched()
    with caplog.at_level(logging.INFO):
        await supervisor.keep(BackgroundTask.SCRAPING, failing(5))
        await supervisor.keep(BackgroundTask.PROBING, failing(5))
        await supervisor.keep(BackgroundTask.PROBING, failing(5, OSError))
    assert [r.getMessage().split(" failed")[0] for r in caplog.records] == [
        "scraping",
        "probing",
        "probing",
    ]


async def test_a_failure_among_others_in_a_group_is_told_by_itself(caplog):
    async def together() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(failing(1)())

    supervisor, attempts = Watched(), iter([together, together, failing(0)])

    async def attempt() -> None:
        await next(attempts)()

    await supervisor.keep(BackgroundTask.DISCOVERY, attempt)
    assert supervisor.counts == {"discovery": 2}
    assert len(caplog.records) == 1


async def test_a_task_that_is_cancelled_ends_at_once():
    supervisor = Watched()
    task = asyncio.create_task(supervisor.keep(BackgroundTask.EXPIRY, asyncio.Event().wait))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not supervisor.counts


async def test_a_failed_visit_is_counted_and_costs_no_other():
    visits: Counter[str] = Counter()

    async def visit(endpoint: Endpoint) -> None:
        visits[endpoint.address] += 1
        if endpoint.address == "a:1":
            raise KeyError(endpoint.address)

    supervisor = Watched()
    poller = Poller(
        visit, interval_s=lambda: 0.01, task=BackgroundTask.PROBING, supervisor=supervisor
    )
    poller.set_endpoints([Endpoint("a:1"), Endpoint("b:1")])
    polling = asyncio.create_task(poller.run())
    await until(lambda: visits["a:1"] > 2 and visits["b:1"] > 2)
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)
    assert supervisor.counts["probing"] >= 2


async def test_what_no_task_can_catch_is_counted_too():
    supervisor, loop = Watched(), asyncio.get_running_loop()
    loop.set_exception_handler(supervisor.heed)
    loop.call_soon(failing(1)().send, None)
    await until(lambda: supervisor.counts == {"other": 1})
