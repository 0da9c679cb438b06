"""context(): a `ServerTls` as the HTTP server wants it."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path

from lodestar_extproc.server_tls import CertificateFiles, ServedPair, ServerTls


def context(tls: ServerTls) -> ssl.SSLContext:
    """For a server to listen with; each handshake is by the files as they are then.

    Raises:
        CertificateError: the files are missing or do not belong together.
    """
    files = CertificateFiles(tls)
    listening = _context(files.read())
    held = [listening]

    def choose(handshake: ssl.SSLObject, _name: str | None, _listening: ssl.SSLContext) -> None:
        if (latest := files.latest()) is not None:
            held[0] = _context(latest)
        handshake.context = held[0]

    listening.sni_callback = choose
    return listening


def _context(served: ServedPair) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # A resumed session would outlive the certificates by which its client was checked.
    made.options |= ssl.OP_NO_TICKET
    made.num_tickets = 0
    with tempfile.TemporaryDirectory() as folder:  # `ssl` reads keys from no string
        pair = Path(folder) / "pair.pem"
        pair.touch(mode=0o600)
        pair.write_bytes(served.key + b"\n" + served.certificate)
        made.load_cert_chain(pair)
    if served.client_ca:
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(cadata=served.client_ca.decode("ascii"))
    return made
