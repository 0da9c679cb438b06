"""What clients use today works through Envoy as it does on an engine: OpenAI's client, and curl."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio

from envoy_process import patient
from lodestar_extproc.simulator.defaults import DEFAULT_MODEL
from simulated_stack import simulated_stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGES = [{"role": "user", "content": "What is an envoy?"}]
CHAT = {"model": DEFAULT_MODEL, "messages": MESSAGES, "max_tokens": 24}
COMPLETION = {"model": DEFAULT_MODEL, "prompt": "Once", "max_tokens": 24}
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clients")
    async with simulated_stack(folder, edit=patient, policy="learned", strict=True) as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="module")
async def clients(stack) -> AsyncIterator[tuple[openai.AsyncOpenAI, openai.AsyncOpenAI]]:
    """One that asks Envoy, and one that asks an engine."""
    urls = (stack.envoy.url, f"http://{stack.engines[0].address}")
    through, direct = (
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) for url in urls
    )
    async with through, direct:
        yield through, direct


async def test_a_streamed_chat_is_the_engines_with_its_usage(clients):
    answers = []
    for client in clients:
        options = {"include_usage": True}
        stream = await client.chat.completions.create(**CHAT, stream=True, stream_options=options)
        chunks = [chunk async for chunk in stream]
        text = [c.choices[0].delta.content for c in chunks if c.choices]
        assert chunks[-2].choices[0].finish_reason == "length"
        usage = chunks[-1].usage
        answers.append(("".join(filter(None, text)), usage.prompt_tokens, usage.completion_tokens))
    through, direct = answers
    assert through == direct
    assert through[2] == CHAT["max_tokens"]


async def test_a_chat_in_one_piece_is_the_engines(clients):
    through, direct = [await client.chat.completions.create(**CHAT) for client in clients]
    assert through.choices == direct.choices
    assert through.usage.total_tokens == direct.usage.total_tokens


@pytest.mark.parametrize("prompt", ["Once", [1, 2, 3]])
async def test_completions_are_the_engines(clients, prompt):
    texts = []
    for client in clients:
        whole = await client.completions.create(**COMPLETION | {"prompt": prompt})
        stream = await client.completions.create(**COMPLETION | {"prompt": prompt}, stream=True)
        parts = [chunk.choices[0].text async for chunk in stream]
        assert "".join(parts) == whole.choices[0].text
        texts.append(whole.choices[0].text)
    assert texts[0] == texts[1]


async def test_models_are_listed(clients):
    for client in clients:
        assert [model.id async for model in client.models.list()] == [DEFAULT_MODEL]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"model": "another"}, openai.NotFoundError),
        ({"max_tokens": 0}, openai.BadRequestError),
        ({"messages": "none"}, openai.BadRequestError),
    ],
)
async def test_the_engines_errors_reach_the_client_as_they_are(clients, changes, error):
    raised = []
    for client in clients:
        with pytest.raises(error) as caught:
            await client.chat.completions.create(**CHAT | changes, stream=True)
        raised.append(caught.value.body)
    # In strict mode a body that cannot be read is answered before any engine sees it.
    if changes != {"messages": "none"}:
        assert raised[0] == raised[1]
    assert raised[0]["message"]


async def test_when_every_engine_is_busy_the_client_is_told_so(stack, clients):
    through, _ = clients
    for index in range(len(stack.engines)):
        await stack.break_engine(index, kind="503")
    with pytest.raises(openai.InternalServerError) as caught:
        await through.chat.completions.create(**CHAT)
    for index in range(len(stack.engines)):
        await stack.break_engine(index, kind="none")
    assert caught.value.status_code == 503
    assert "busy" in caught.value.body["message"]


@needs_curl
@pytest.mark.parametrize("stream", [True, False])
async def test_curl_gets_the_engines_answer(stack, stream):
    asked = json.dumps(CHAT | {"stream": stream})
    urls = (stack.envoy.url, f"http://{stack.engines[0].address}")
    through, direct = [await curl(f"{url}/v1/chat/completions", "-d", asked) for url in urls]
    assert text_of(through) == text_of(direct) != ""
    assert through.endswith(b"data: [DONE]\n\n") is stream


@needs_curl
async def test_curl_waits_with_a_long_body_until_it_may_send_it(stack, tmp_path):
    """It asks by `Expect: 100-continue`; the engine then finds the prompt too long."""
    body = tmp_path / "body.json"
    message = {"role": "user", "content": "x" * 2_000_000}
    body.write_text(json.dumps(CHAT | {"messages": [message]}))
    answer = await curl(f"{stack.envoy.url}/v1/chat/completions", "-d", f"@{body}")
    assert b"maximum context length" in answer


@needs_curl
async def test_curl_lists_models(stack):
    listed = json.loads(await curl(f"{stack.envoy.url}/v1/models"))
    assert [model["id"] for model in listed["data"]] == [DEFAULT_MODEL]


async def curl(url: str, *options: str) -> bytes:
    command = ["curl", "-sSN", "--max-time", "20", "-H", "content-type: application/json"]
    process = await asyncio.create_subprocess_exec(
        *command, *options, url, stdout=asyncio.subprocess.PIPE
    )
    answer, _ = await process.communicate()
    assert process.returncode == 0
    return answer


def text_of(answer: bytes) -> str:
    """What the model said: how many tokens an event holds is a matter of the moment."""
    return "".join(re.findall(r'"content":"([^"]*)"', answer.decode()))
