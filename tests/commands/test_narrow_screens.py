"""What commands print is whole on a screen of 80 columns, and of 40."""

from __future__ import annotations

import asyncio

import pytest
from rich.console import Console
from typer.testing import CliRunner

from admin_world import an_admin_server
from demo_parts import screen
from lodestar_extproc.commands.cli import app
from lodestar_extproc.endpoint import Endpoint
from lodestar_extproc.evaluation.summary import Summary
from lodestar_extproc.simulator.instances import ServingOptions, parse_instances, serving
from recorded_journal import Recording

LONG = "[2001:db8:85a3:8d3:1319:8a2e:370:7348]:65535"
SUMMARY_KEYS = ("requests", "failed", "ttft_mean_s", "ttft_p50_s", "ttft_p90_s", "ttft_p99_s",
                "tpot_mean_s", "e2e_mean_s")  # fmt: skip


async def run(width: int, *arguments: str) -> str:
    environment = {"COLUMNS": str(width), "http_proxy": "http://127.0.0.1:1"}
    shown = await asyncio.to_thread(CliRunner().invoke, app, list(arguments), env=environment)
    assert shown.exit_code == 0, shown.output
    assert "…" not in shown.output
    return shown.output


@pytest.mark.parametrize("width", [40, 80, 200])
async def test_explain_cuts_neither_an_id_nor_an_address(width):
    async with an_admin_server(policy="random") as (world, address):
        world.router.set_endpoints([Endpoint(LONG), Endpoint("10.0.0.1:8000")])
        decision = world.decide("0c5f9e0e-6d4b-4f3a-9c0e-1f2d3c4b5a69")
        listed = await run(width, "explain", "--admin", address)
        explained = await run(width, "explain", decision.decision_id, "--admin", address)

    for text in (decision.decision_id, decision.address, "0c5f9e0e-6d4b-4f3a-9c0e-1f2d3c4b5a69"):
        assert text in "".join(listed.split())
    for text in ("[2001:db8:85a3:8d3:1319:8a2e:370:7348]:65535", "queued tokens", "10.0.0.1:8000"):
        assert "".join(text.split()) in "".join(explained.split())


@pytest.mark.parametrize("width", [40, 80])
def test_the_demo_shows_every_policy_whole(width):
    summaries = {name: Summary(640, 0, *[1.234567] * 6) for name in ("prefix_affinity_token_load",)}
    console = Console(width=width, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(screen.comparison(summaries))
        console.print(
            screen.closing(summaries | {"learned": summaries[next(iter(summaries))]}, 1.0)
        )

    assert "prefix_affinity_token_load" in capture.get()
    for name in ("requests", "mean s", "P99 s", "E2E s"):
        assert name in capture.get()


@pytest.mark.parametrize("width", [40, 80, 200])
async def test_load_shows_every_figure_under_its_whole_name(width):
    async with serving(parse_instances("h100"), ServingOptions(speed=50.0)) as (server,):
        url = f"http://{server.address}"
        shown = await run(width, "load", "--url", url, "--rate", "20", "--duration", "0.5")

    for key in SUMMARY_KEYS:
        assert key in shown


@pytest.mark.parametrize("width", [40, 80])
async def test_replay_names_every_policy_whole(width, tmp_path):
    recording = Recording(tmp_path / "j", burn_in_samples=1)
    await asyncio.to_thread(recording.serve, 60)
    path = await asyncio.to_thread(recording.write)

    shown = await run(width, "replay", str(path))

    for text in ("prefix_affinity_token_load", "session_affinity", "direct/made", "TTFT mean s"):
        assert text in shown
