from __future__ import annotations

import pytest_asyncio
from stack import running_stack


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def default_stack(tmp_path_factory):
    async with running_stack(tmp_path_factory.mktemp("envoy")) as stack:
        yield stack


@pytest_asyncio.fixture(loop_scope="session")
async def stack(default_stack):
    """The default configuration, with nothing remembered of earlier tests."""
    default_stack.reset()
    return default_stack
