"""Headers of the Gateway API conformance tests: they say where to go, and are told who served.

https://github.com/kubernetes-sigs/gateway-api-inference-extension/tree/main/conformance
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lodestar_extproc.extproc.events import Headers, ResponseHeaders
from lodestar_extproc.names import SERVED, TEST_ECHO, TEST_SELECTION, TEST_SERVED
from lodestar_extproc.request import Subset


def selected(headers: Mapping[str, str]) -> Subset | None:
    """The endpoints among which a test wants the request to go; None for all."""
    wanted = headers.get(TEST_SELECTION, "")
    return Subset.of([wanted]) if wanted else None


def request_headers(addresses: Sequence[str]) -> Headers:
    """What the tests' backend has to send back to show that the first address was reached."""
    return tuple((TEST_ECHO, f"{TEST_SERVED}:{address}") for address in addresses[:1])


def response_headers(event: ResponseHeaders) -> Headers:
    """Tell a test who served, by the gateway's metadata, or what is missing there."""
    if event.metadata is None:
        return ((TEST_SERVED, "fail: missing envoy lb metadata"),)
    served = event.metadata.get(SERVED)
    return ((TEST_SERVED, served or "fail: missing destination endpoint served metadata"),)
