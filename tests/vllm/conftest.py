"""Two real vLLM servers behind the shipped gateway, started once for all tests here."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest_asyncio

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks" / "vllm"))

from real_stack import running_stack  # noqa: E402  (needs the path)

ENVIRONMENT = Path(os.environ.get("LODESTAR_VLLM", ROOT / ".vllm"))
"""What benchmarks/vllm/setup_cpu.sh made."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(tmp_path_factory):
    async with running_stack(ENVIRONMENT, tmp_path_factory.mktemp("vllm")) as running:
        yield running
        assert running.gateway is not None
