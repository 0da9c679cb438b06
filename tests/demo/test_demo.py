"""The demo loses nothing: ports of its own, true progress, results kept when a part fails."""

from __future__ import annotations

import asyncio
import json
import socket

import aiohttp
import pytest
from rich.console import Console

from demo_parts import bootstrap, compare, screen, spoken, stack
from lodestar_extproc.demo.processes import DemoError
from lodestar_extproc.evaluation.load import LoadClient, LoadRecord
from lodestar_extproc.evaluation.summary import Summary

DemoPlan, Progress, FleetPlan = compare.DemoPlan, compare.Progress, stack.FleetPlan
FLEET = FleetPlan(("a30", "h100"))


def a_plan(folder, **changes) -> DemoPlan:
    values = {"policies": ("random", "round_robin"), "fleet": FLEET, "duration_s": 2.0}
    return DemoPlan(**values | {"rate_per_s": 4.0, "seed": 1, "folder": folder} | changes)


def a_summary() -> Summary:
    return Summary(100, 0, 0.1, 0.1, 0.2, 0.3, 0.01, 1.0)


def refuses_random(ports, engines, settings):
    """A configuration that cannot be made for one of the policies."""
    if settings["policy"] == "random":
        raise DemoError("random is not to be had")
    return bootstrap.bootstrap(ports, engines, settings)


@pytest.mark.long
async def test_two_demos_at_once_and_a_taken_port_are_no_trouble(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with socket.create_server(("127.0.0.1", 0)):
        async with (
            stack.running_stack(FLEET, {"policy": "random"}, tmp_path / "a") as one,
            stack.running_stack(FLEET, {"policy": "random"}, tmp_path / "b") as other,
            aiohttp.ClientSession() as session,
        ):
            for world in (one, other):
                async with session.get(f"{world.url}/v1/models") as response:
                    assert response.status == 200
                async with session.get(f"{world.admin_url}/ready") as response:
                    assert (await response.json())["ready"]
                async with session.get(f"{world.envoy_admin_url}/ready") as response:
                    assert response.status == 200


@pytest.mark.long
async def test_what_ran_is_kept_when_a_policy_cannot_be_run(tmp_path):
    plan, progress = a_plan(tmp_path, configure=refuses_random), Progress()
    shares = []
    async with asyncio.timeout(120):
        await compare.compare(plan, progress, lambda: shares.append(progress.done_ratio(plan)))

    assert set(progress.summaries) == {"round_robin"}
    assert progress.summaries["round_robin"].requests == plan.n_arrivals
    assert progress.summaries["round_robin"].failed == 0
    assert progress.failures == {"random": "random is not to be had"}
    assert list(screen.problems(progress)) == [
        "error: random not run to the end: random is not to be had"
    ]
    written = json.loads(compare.as_json(plan, progress, {}))
    assert written["not_run"] == progress.failures
    assert written["policies"]["round_robin"]["requests"] == plan.n_arrivals
    assert shares == sorted(shares)
    assert shares[0] == 0.0
    assert shares[-1] == 1.0


def test_progress_is_the_share_of_the_requests_that_were_sent(tmp_path):
    plan = a_plan(tmp_path, duration_s=60.0)
    progress = Progress(policy="random")
    assert progress.done_ratio(plan) == 0.0

    progress.client = LoadClient("http://127.0.0.1:1", model="m")
    progress.client.n_sent = plan.n_arrivals // 2
    assert progress.done_ratio(plan) == pytest.approx(0.25, abs=0.01)

    progress.client.n_sent = plan.n_arrivals
    assert progress.done_ratio(plan) == 0.5  # all were sent, not all have ended

    progress.summaries["random"] = a_summary()
    assert progress.done_ratio(plan) == 0.5
    progress.policy, progress.client = "round_robin", None
    assert progress.done_ratio(plan) == 0.5

    progress.failures["round_robin"] = "it broke"
    assert progress.done_ratio(plan) == 1.0


def test_without_a_terminal_lines_say_how_it_goes(tmp_path):
    plan, progress = a_plan(tmp_path), Progress()
    console = Console(width=80, color_system=None, highlight=False)
    times_s = iter([0.0, 5.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0])
    lines = spoken.Spoken(plan, progress, console, clock=lambda: next(times_s))
    with console.capture() as capture:
        progress.policy = "random"
        lines.refresh()
        progress.client = LoadClient("http://127.0.0.1:1", model="m")
        progress.client.n_sent = plan.n_arrivals
        progress.client.records = [
            LoadRecord(0.0, "chat", 200, 0.25, 1.0, 4, "", "", -1, 0, None, None)
        ]
        for _ in range(3):
            lines.refresh()
        progress.summaries["random"] = a_summary()
        lines.refresh()
        progress.policy, progress.client = "round_robin", None
        lines.refresh()
        progress.failures["round_robin"] = "it broke"
        lines.refresh()
        lines.refresh()

    assert capture.get().splitlines() == [
        "random: 1 of 2, starting",
        "random: 50%, 1 requests ended, 0 failed, TTFT mean 0.250 s, P99 0.250 s",
        "random: done, 100 requests ended, 0 failed, TTFT mean 0.100 s, P99 0.300 s",
        "round_robin: 2 of 2, starting",
        "round_robin: could not be run to its end; the others go on",
    ]
