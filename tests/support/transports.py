"""Which transport a test runs on: what is shipped, or what the variable names; some run on each."""

from __future__ import annotations

import os

import pytest

from lodestar_extproc.transport.calls import CallTransport
from lodestar_extproc.transport.choice import DEFAULT_TRANSPORT, TRANSPORTS, new_transport

VARIABLE = "LODESTAR_TEST_TRANSPORT"


def transport_name() -> str:
    return os.environ.get(VARIABLE, DEFAULT_TRANSPORT)


def a_transport() -> CallTransport:
    """For a server of this test."""
    return new_transport(transport_name())


@pytest.fixture(params=TRANSPORTS)
def each_transport(request, monkeypatch):
    """Runs a test on each."""
    monkeypatch.setenv(VARIABLE, request.param)
    return request.param
