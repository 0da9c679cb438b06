"""`explain` against a real admin server."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from aiohttp import web
from typer.testing import CliRunner

from admin_world import an_admin_server
from lodestar_extproc.commands.cli import app
from lodestar_extproc.endpoint import Endpoint
from ports import a_port
from recorded_journal import Recording


async def run(*arguments: str):
    """The command, in a thread, for the server needs the loop."""
    environment = {"COLUMNS": "200", "http_proxy": "http://127.0.0.1:1"}
    return await asyncio.to_thread(
        CliRunner().invoke, app, ["explain", *arguments], env=environment
    )


async def test_a_request_is_explained_with_every_candidate():
    async with an_admin_server(burn_in_samples=1, shadow_policies=("random",)) as (world, address):
        world.serve(30)
        decision = world.decide("request-1")
        world.first_token(decision, 0.25)
        shown = await run("request-1", "--admin", address)

    assert shown.exit_code == 0
    assert decision.decision_id in shown.output
    for candidate in decision.addresses:
        assert candidate in shown.output
    assert f"{decision.addresses[0]} (served)" not in shown.output
    assert "Policy learned chose" in shown.output
    assert "Observed TTFT 0.250 s" in shown.output
    assert "Shadow policy random would have chosen" in shown.output


async def test_the_endpoint_that_served_is_marked():
    async with an_admin_server(policy="random") as (world, address):
        decision = world.decide()
        world.end(decision, served=decision.addresses[1])
        shown = await run(decision.decision_id, "--admin", f"http://{address}/")

    assert f"{decision.addresses[1]} (served)" in shown.output


async def test_an_ipv6_address_is_shown_whole():
    async with an_admin_server(policy="random") as (world, address):
        world.router.set_endpoints([Endpoint("[fd00::7]:8000")])
        decision = world.decide()
        explained = await run(decision.decision_id, "--admin", address)
        listed = await run("--admin", address)

    assert explained.output.count("[fd00::7]:8000") == 2
    assert "[fd00::7]:8000" in listed.output


async def test_json_is_what_the_server_said():
    async with an_admin_server(policy="random") as (world, address):
        decision = world.decide("r")
        shown = await run("r", "--admin", address, "--json")

    answer = orjson.loads(shown.output)
    assert answer["chosen"] == decision.address
    assert len(answer["candidates"]) == 3


async def test_without_an_id_the_last_decisions_are_listed():
    async with an_admin_server(policy="random") as (world, address):
        ids = [world.decide().decision_id for _ in range(4)]
        shown = await run("--admin", address, "--limit", "2")
        everything = await run("--admin", address, "--json")

    assert [decision_id in shown.output for decision_id in ids] == [False, False, True, True]
    assert len(orjson.loads(everything.output)["decisions"]) == 4


async def test_no_decisions_yet_is_said():
    async with an_admin_server() as (_, address):
        shown = await run("--admin", address)

    assert shown.exit_code == 0
    assert "no decisions yet" in shown.output


@pytest.mark.parametrize("decision", ["nobody", "a/b", "?x", "[red]"])
async def test_an_unknown_id_is_told_from_a_dead_service(decision):
    async with an_admin_server() as (_, address):
        shown = await run(decision, "--admin", address)

    assert shown.exit_code == 1
    assert f"{decision} is not among the last" in shown.stderr


async def test_a_service_that_is_not_there_is_said(unused_tcp_port):
    shown = await run("r", "--admin", f"127.0.0.1:{unused_tcp_port}")

    assert shown.exit_code == 2
    assert "lodestar-extproc serve" in shown.stderr


@pytest.mark.parametrize("answer", ["[1]", "hello", '{"error": "no"}'])
async def test_another_server_is_recognised(answer, unused_tcp_port):
    async def respond(_request: web.Request) -> web.Response:
        return web.Response(text=answer, status=500 if "error" in answer else 200)

    other = web.Application()
    other.router.add_get("/explain/{id}", respond)
    runner = web.AppRunner(other)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
        shown = await run("r", "--admin", f"127.0.0.1:{unused_tcp_port}")
    finally:
        await runner.cleanup()

    assert shown.exit_code == 2
    assert "error: " in shown.stderr


@pytest.mark.parametrize("admin", ["ftp://x:1", "http://", "127.0.0.1:port", "file:///etc/passwd"])
async def test_an_address_that_is_none_is_refused(admin):
    shown = await run("r", "--admin", admin)

    assert shown.exit_code == 2
    assert "error: " in shown.stderr


async def test_what_each_candidate_would_have_cost_is_shown_part_by_part():
    async with an_admin_server(burn_in_samples=1) as (world, address):
        world.serve(30)
        decision = world.decide()
        shown = await run(decision.decision_id, "--admin", address)

    for text in ("what it would have cost, in seconds", "own ttft", "delay to others", "memory"):
        assert text in shown.output
    assert shown.output.index("Policy learned chose") < shown.output.index("delay to others")


async def test_a_journal_explains_a_request_of_yesterday(tmp_path):
    recording = Recording(tmp_path / "journal.jsonl", burn_in_samples=1)
    await asyncio.to_thread(recording.serve, 40)
    path = await asyncio.to_thread(recording.write)
    decision = recording.listener.decisions[0]
    shown = await run(decision.decision_id, "--journal", str(path))
    missing = await run("nobody", "--journal", str(path))
    without = await run("--journal", str(path))

    assert shown.exit_code == 0, shown.output
    assert decision.address in shown.output
    assert (missing.exit_code, without.exit_code) == (1, 2)
    assert "an older file may have it" in missing.stderr
    assert "--journal wants an ID" in " ".join(without.stderr.split())


ESCAPES = "m\x1b]0;pwned\x07\x1b[2J\x1b[31mFAKE\r\n\x7f\x9b1m\u202e\u2028"


@pytest.mark.parametrize("options", [[], ["--json"]])
async def test_nothing_that_a_client_sends_commands_the_terminal(options):
    async def respond(_request: web.Request) -> web.Response:
        listed = {"decisions": [{"request_id": ESCAPES, "id": ESCAPES, "model": ESCAPES}]}
        return web.json_response(listed)

    other = web.Application()
    other.router.add_get("/decisions", respond)
    runner = web.AppRunner(other)
    await runner.setup()
    port = a_port()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        shown = await run("--admin", f"127.0.0.1:{port}", *options)
    finally:
        await runner.cleanup()
    assert all(c.isprintable() or c == "\n" for c in shown.output)
    if options:
        assert orjson.loads(shown.output)["decisions"][0]["model"] == ESCAPES
