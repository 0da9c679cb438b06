"""bound(): sockets that listen, bound as grpcio binds them."""

from __future__ import annotations

import socket
import stat
from contextlib import suppress
from pathlib import Path

from lodestar_extproc.transport.calls import ListenError

BACKLOG = 1024
"""Connections that wait to be taken; an Envoy makes one for each of its threads."""
_UNIX, _ABSTRACT = "unix:", "unix-abstract:"
_ANY = ("", "0.0.0.0", "::")  # noqa: S104  (what the operator asked for)


def bound(address: str, *, shared: bool = False) -> list[socket.socket]:
    """What listens on `host:port` or `unix:/path`: a socket for each of a name's addresses.

    Args:
        shared: other processes may listen there, too, if they say so as well.

    Raises:
        ListenError: it cannot be bound.
    """
    try:
        if address.startswith(_ABSTRACT):
            return [_listening(socket.AF_UNIX, "\0" + address.removeprefix(_ABSTRACT))]
        if address.startswith(_UNIX):
            return [_at_path(Path(address.removeprefix(_UNIX)))]
        host, _, port = address.rpartition(":")
        return _at_host(host.strip("[]"), int(port), shared=shared)
    except (OSError, ValueError, OverflowError) as error:
        raise ListenError(f"cannot listen on {address}; is it in use? ({error})") from error


def _at_path(path: Path) -> socket.socket:
    """A file that an earlier process left is replaced."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()
    return _listening(socket.AF_UNIX, str(path))


def _at_host(host: str, port: int, *, shared: bool) -> list[socket.socket]:
    if host in _ANY:
        if socket.has_dualstack_ipv6():
            return [_listening(socket.AF_INET6, ("::", port), dual=True, shared=shared)]
        return [_listening(socket.AF_INET, ("", port), shared=shared)]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    made: list[socket.socket] = []
    try:
        for family, _, _, _, place in dict.fromkeys(found):
            # One name, one port: what the first was given holds for the others.
            at = (place[0], made[0].getsockname()[1] if made else place[1], *place[2:])
            made.append(_listening(family, at, shared=shared))
    except OSError:
        for each in made:
            each.close()
        raise
    return made


def _listening(
    family: int, at: object, *, dual: bool = False, shared: bool = False
) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not dual))
        made.bind(at)  # type: ignore[arg-type]
        made.listen(BACKLOG)
        made.settimeout(0)
    except OSError:
        made.close()
        raise
    return made
