"""Access: who may ask the admin server: by its host name, and by a token where one is set."""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from lodestar_extproc.regular_file import read_regular
from lodestar_extproc.server_tls import ServerTls

OPEN_PATHS = frozenset({"/healthz", "/ready"})
"""Probes have no token; they learn whether we serve, and no more."""
INTERNAL_ENDINGS = (".localhost", ".svc", ".cluster.local", ".internal")
"""Names that nobody can own on the Internet: RFC 6761, Kubernetes, ICANN's private-use domain."""
_log = logging.getLogger(__name__)


class TokenError(ValueError):
    """The token's file cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class AdminAccess:
    """Who may ask.

    Attributes:
        tls: how the port is encrypted, and whether clients need a certificate; None for plain HTTP.
        token_file: its first line has to be sent, as a bearer token or as a password; None asks for
            none.
        hosts: names under which the server is reached, beside addresses and internal names.
    """

    tls: ServerTls | None = None
    token_file: Path | None = None
    hosts: tuple[str, ...] = ()

    def check(self) -> None:
        """Find out at the start what would lock everybody out.

        Raises:
            TokenError: the token cannot be read.
        """
        if self.token_file is not None:
            self._token()

    @property
    def middleware(self) -> Middleware:
        """Refuses who may not ask."""

        @web.middleware
        async def refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
            if not self._is_our_name(request.headers.get("Host", "")):
                # A page on the Internet that has its name resolved to our address sends its own.
                said = "this host name is not known here: name it with --admin-host"
                return web.json_response({"error": said}, status=403)
            if self.token_file is not None and request.path not in OPEN_PATHS:
                try:
                    token = self._token()
                except TokenError as error:
                    _log.error("admin: %s", error)
                    return web.json_response({"error": "the token cannot be read"}, status=503)
                if not _shows(request.headers.get("Authorization", ""), token):
                    asked = {"WWW-Authenticate": 'Basic realm="lodestar", Bearer realm="lodestar"'}
                    said = "send the token of --admin-token, as a bearer token or as a password"
                    return web.json_response({"error": said}, status=401, headers=asked)
            return await handler(request)

        return refuse

    def _token(self) -> bytes:
        assert self.token_file is not None
        try:
            token = read_regular(self.token_file).strip()
        except OSError as error:
            raise TokenError(f"the token cannot be read: {error}") from error
        if not token:
            raise TokenError(f"{self.token_file} is empty: it has to hold the token")
        return token

    def _is_our_name(self, host: str) -> bool:
        # An IPv6 address stands in brackets, so that what follows a last colon is a port.
        name = re.sub(r":\d*$", "", host).lower().rstrip(".")
        try:
            ip_address(name.strip("[]"))
        except ValueError:
            pass
        else:
            return True
        # A name without a dot is looked up where we are, not on the Internet.
        if "." not in name or name.endswith(INTERNAL_ENDINGS):
            return True
        return name in {each.lower().rstrip(".") for each in self.hosts}


ANYBODY = AdminAccess()
"""Who reaches the port may ask: it is on loopback by default."""


def _shows(header: str, token: bytes) -> bool:
    """Whether `Authorization` holds *token*: as a bearer token, or as anybody's password."""
    scheme, _, given = header.partition(" ")
    sent = given.strip().encode("utf-8", "surrogateescape")
    if scheme.lower() == "basic":
        try:
            sent = base64.b64decode(sent, validate=True).partition(b":")[2]
        except binascii.Error:
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(sent, token)
