"""Envoy's admin page: `/config_dump` and `/clusters` of a running Envoy, as nodes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from lodestar_extproc.config import NotEnvoyConfig
from lodestar_extproc.config.node import Node

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_S = 30.0
"""An Envoy of a large mesh writes a hundred megabytes, in seconds."""


def admin_url(written: str) -> str:
    """The page's address as people write it, `localhost:15000` too.

    Raises:
        NotEnvoyConfig: it is no address of an admin page.
    """
    url = written.rstrip("/") if "://" in written else f"http://{written.rstrip('/')}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        problem = "is not the address of an admin page, such as http://127.0.0.1:9901"
        raise NotEnvoyConfig(problem, file=written)
    return url


def config_dump(url: str) -> Node:
    """The whole dump, endpoints included.

    Raises:
        NotEnvoyConfig: nobody answers there, or no Envoy.
    """
    return _asked(f"{url}/config_dump?include_eds")


def clusters(url: str) -> Node:
    """The clusters and what Envoy holds of their hosts now.

    Raises:
        NotEnvoyConfig: as above.
    """
    return _asked(f"{url}/clusters?format=json")


def healthy_hosts(statuses: Node, cluster: str) -> tuple[int, int] | None:
    """How many hosts of *cluster* Envoy would send to, and of how many; None if it has no such."""
    for status in statuses.get("cluster_statuses").items():
        if status.get("name").text == cluster:
            hosts = [_is_healthy(host.get("health_status")) for host in _hosts(status)]
            return sum(hosts), len(hosts)
    return None


def _hosts(status: Node) -> Iterator[Node]:
    return status.get("host_statuses").items()


def _is_healthy(health: Node) -> bool:
    """Whether no check or ejection speaks against a host: each that does is a flag."""
    given = health.get("eds_health_status").text
    flags = (node.flag for name, node in health.entries() if name.startswith("failed_"))
    return not any(flags) and given in ("", "HEALTHY", "UNKNOWN", "DEGRADED")


def _asked(url: str) -> Node:
    # An admin page is near: no proxy stands between.
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT_S) as answer:
            text = answer.read()
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise NotEnvoyConfig(f"Envoy's admin page does not answer: {reason}", file=url) from error
    try:
        document = json.loads(text)
    except ValueError as error:
        problem = "is not Envoy's admin page: it answers no JSON"
        raise NotEnvoyConfig(problem, file=url) from error
    return Node(document, url, 0)
