"""A model rewritten by setting, in a real Envoy that sends bodies buffered and in full duplex."""

import io

import pytest

from lodestar_extproc.config.mapped import ModelRewrites
from lodestar_extproc.config.settings import PoolSettings
from stack import CHAT, chat, running_stack

NAME = "a-name-much-longer-than-the-one-the-client-knows"


async def in_parts(body: bytes):
    """A body whose length is not told before."""
    for at in range(0, len(body), 1000):
        yield body[at : at + 1000]


@pytest.mark.parametrize("file", ["envoy.yaml", "variants/full_duplex.yaml"])
async def test_the_engine_is_asked_for_the_target_and_the_answer_is_its_own(tmp_path, file):
    settings = PoolSettings(model_rewrites=ModelRewrites.read({"m": NAME}))
    access_log = file == "envoy.yaml"
    async with running_stack(tmp_path, file, access_log=access_log, settings=settings) as stack:
        engine = stack.engines[0]
        for n_bytes in (1, 300_000):
            for stream in (True, False):
                body = chat(text="x" * n_bytes, stream=stream)
                for data in (io.BytesIO(body), in_parts(body)):
                    async with stack.client.post(stack.envoy.url + CHAT, data=data) as answer:
                        assert answer.status == 200
                        whole = engine.stream() if stream else engine.whole()
                        assert await answer.read() == whole
                    assert engine.seen[-1][2] == body.replace(b'"m"', f'"{NAME}"'.encode(), 1)
        assert {request.model for request in stack.routers.routed} == {NAME}
