"""What clients of the shipped files hear of their request: its id, and more where that is asked."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from lodestar_extproc import names
from lodestar_extproc.commands.cli import app
from process_stack import running_processes
from stack import CHAT, chat

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "envoy").rglob("*.yaml"))


def asked_headers() -> list[dict]:
    """The lines that envoy/envoy.yaml has behind a #."""
    text = (ROOT / "envoy" / "envoy.yaml").read_text()
    lines = re.search(r"^ *# response_headers_to_add:\n(?: *# - .*\n)+", text, re.MULTILINE)
    uncommented = re.sub(r"(?m)^ *# ", "", lines.group())
    return YAML(typ="safe").load(uncommented)["response_headers_to_add"]


def tell_decisions(config: dict) -> None:
    """Take the # away."""
    (listener,) = config["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    manager["route_config"]["virtual_hosts"][0]["response_headers_to_add"] = asked_headers()


async def ask(session: aiohttp.ClientSession, url: str, **headers: str) -> Mapping[str, str]:
    given = {"content-type": "application/json"} | headers
    async with session.post(url + CHAT, data=chat(), headers=given) as response:
        assert response.status == 200
        await response.read()
        return response.headers


@pytest.mark.long
@pytest.mark.parametrize("file", ["envoy.yaml", "variants/full_duplex.yaml"])
async def test_the_id_that_a_client_hears_explains_its_request(tmp_path, file):
    async with (
        running_processes(tmp_path, file, edit=tell_decisions, burn_in_samples=1) as stack,
        aiohttp.ClientSession() as session,
    ):
        # They teach what is predicted of the next.
        await asyncio.gather(*(ask(session, stack.envoy.url) for _ in range(30)))
        heard = await ask(session, stack.envoy.url)
        own = await ask(session, stack.envoy.url, **{"x-request-id": "client-7"})
        shown = await asyncio.to_thread(
            CliRunner().invoke,
            app,
            ["explain", heard["x-request-id"], "--admin", stack.service.url, "--json"],
        )

    assert shown.exit_code == 0, shown.output
    explained = json.loads(shown.output)
    assert explained["request_id"] == heard["x-request-id"]
    assert explained["decision_id"] == heard[names.TOLD_DECISION]
    predicted_ms = float(heard[names.TOLD_PREDICTED_TTFT])
    assert predicted_ms == pytest.approx(1e3 * explained["predicted_ttft_s"], abs=1.0)
    assert own["x-request-id"]


@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shipped_connection_manager_gives_the_id_back(file):
    text = file.read_text()
    managers = len(re.findall(r"stat_prefix: openai\n", text))

    assert text.count("always_set_request_id_in_response: true") == managers


def test_the_headers_that_may_be_asked_for_are_ours():
    headers = {each["header"]["key"]: each["header"]["value"] for each in asked_headers()}

    assert headers == {
        names.TOLD_DECISION: f"%DYNAMIC_METADATA({names.METADATA_NAMESPACE}:{names.DECISION_ID})%",
        names.TOLD_PREDICTED_TTFT: (
            f"%DYNAMIC_METADATA({names.METADATA_NAMESPACE}:{names.PREDICTED_TTFT})%"
        ),
    }
