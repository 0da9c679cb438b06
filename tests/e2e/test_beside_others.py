"""Beside a guardrail and an audit log, in the real Envoy: theirs stay theirs, ours is found."""

from __future__ import annotations

import asyncio
import json
import socket

import aiohttp
import pytest

from envoy_files import (
    FILTER_CONFIG,
    PER_ROUTE,
    ext_proc,
    grpc_cluster,
    grpc_log,
    listener,
    manager,
    route,
    route_table,
)
from envoy_process import connection_manager
from ports import a_port
from process_stack import running_processes
from waiting import until

N_REQUESTS = 20
PROMPT = {"model": "m", "prompt": "hello", "max_tokens": 8, "stream": True}


def beside_a_guardrail(port):
    """A guarded listener whose guardrail at *port* is away, and an audit log there."""

    def edit(config):
        guard = ext_proc("guardrail", "guardrail", failure_mode_allow=False)
        guarded = manager(guard, table=route_table(route("engines")), stat_prefix="guarded")
        config["static_resources"]["listeners"].append(listener(guarded, "guarded"))
        config["static_resources"]["clusters"].append(grpc_cluster("guardrail", port))
        connection_manager(config)["access_log"].insert(0, grpc_log("guardrail"))

    return edit


def enabled_by_the_route(config):
    """Every ext_proc filter is disabled, and wrapped; the route enables it."""
    gateway = connection_manager(config)
    (host,) = gateway["route_config"]["virtual_hosts"]
    enabled = {"@type": FILTER_CONFIG, "config": {"@type": PER_ROUTE, "overrides": {}}}
    for entry in gateway["http_filters"][:-1]:
        plain = entry["typed_config"]
        kind = plain.pop("@type")
        entry["typed_config"] = {
            "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
            "type_url": kind,
            "value": plain,
        }
        entry["disabled"] = True
        words = host["routes"][0].setdefault("typed_per_filter_config", {})
        words[entry["name"]] = enabled


async def asked(url, times):
    async with aiohttp.ClientSession() as session:

        async def ask():
            async with session.post(f"{url}/v1/completions", json=PROMPT) as response:
                await response.read()
                return response.status

        return await asyncio.gather(*(ask() for _ in range(times)))


@pytest.mark.timeout(180)
async def test_guardrail_that_is_away_stays_closed_while_ours_chooses(tmp_path):
    port = a_port()
    async with running_processes(tmp_path, edit=beside_a_guardrail(port)) as stack:
        found = json.loads(await stack.envoy.admin("/listeners?format=json"))["listener_statuses"]
        address = next(each for each in found if each["name"] == "guarded")["local_address"]
        guarded = f"http://127.0.0.1:{address['socket_address']['port_value']}"

        assert set(await asked(guarded, 3)) == {500}
        assert set(await asked(stack.envoy.url, N_REQUESTS)) == {200}
        await until(stack.nothing_is_open)
        assert await stack.service.metric("lodestar_requests_total") == N_REQUESTS
        with socket.socket() as free:
            free.bind(("127.0.0.1", port))


@pytest.mark.timeout(180)
async def test_filters_that_only_the_route_enables_decide_once_for_each_request(tmp_path):
    async with running_processes(tmp_path, edit=enabled_by_the_route) as stack:
        assert set(await asked(stack.envoy.url, N_REQUESTS)) == {200}
        await until(stack.nothing_is_open)

        # Each of the two filters opens a stream for each request.
        assert await stack.ext_proc("streams_started") == 2 * N_REQUESTS
        assert await stack.service.metric("lodestar_requests_total") == N_REQUESTS
