"""TlsContexts: what Python needs to ask engines as Envoy does, made of the same files, read anew.

Envoy checks whose certificate it is by the names that its configuration lists, and by none where it
lists none; so is it here.
"""

from __future__ import annotations

import os
import ssl
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lodestar_extproc.encryption import Pem, UpstreamTls, no_password
from lodestar_extproc.regular_file import read_regular

REREAD_S = 5.0
"""How often certificate files are looked at: they change hours before the old ones end."""


class BadCertificates(ValueError):  # noqa: N818  (the condition's name)
    """What is to encrypt or to be trusted cannot be read; or a certificate is another's."""


@dataclass(slots=True)
class _Made:
    """A context, or why there is none, and of which files it was made when."""

    context: ssl.SSLContext | BadCertificates
    files: tuple[object, ...]
    checked_at_s: float


class TlsContexts:
    """One context for each way to encrypt.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._made: dict[UpstreamTls, _Made] = {}

    def of(self, tls: UpstreamTls) -> ssl.SSLContext:
        """The context for *tls*; another one once its files have changed.

        Raises:
            BadCertificates: a file cannot be read, or holds something else.
        """
        made, now_s = self._made.get(tls), self._clock()
        if made is None or now_s - made.checked_at_s > REREAD_S:
            files = tuple(_stamp(pem) for pem in _pems(tls))
            if made is None or made.files != files:
                made = self._made[tls] = _Made(_context_or_why(tls), files, now_s)
            made.checked_at_s = now_s
        if isinstance(made.context, BadCertificates):
            raise BadCertificates(str(made.context))
        return made.context


def check_names(tls: UpstreamTls, certificate: Mapping[str, Any] | None) -> None:
    """See that *certificate*, as `ssl` shows one that it trusts, has one of the wanted names.

    Raises:
        BadCertificates: it has none.
    """
    if not tls.subject_names or not tls.verifies:
        return
    names = [name for _, name in (certificate or {}).get("subjectAltName", ())]
    if not set(names) & set(tls.subject_names):
        wanted, found = ", ".join(tls.subject_names), ", ".join(names) or "none"
        raise BadCertificates(f"its certificate has the names {found}, and not {wanted}")


def _pems(tls: UpstreamTls) -> Iterable[Pem]:
    return filter(None, (tls.trusted_ca, tls.certificate, tls.private_key))


def _stamp(pem: Pem) -> object:
    """What changes when the file does; a rotation by links is one too."""
    if pem.path is None:
        return None
    try:
        status = pem.path.stat()
    except OSError as error:
        return error.errno
    return status.st_mtime_ns, status.st_ino, status.st_size


def _context_or_why(tls: UpstreamTls) -> ssl.SSLContext | BadCertificates:
    try:
        return _context(tls)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = ", ".join(str(pem.path) for pem in _pems(tls) if pem.path) or "the configuration's"
        return BadCertificates(f"certificates cannot be used ({files}): {error}")


def _context(tls: UpstreamTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if tls.verifies else ssl.CERT_NONE
    if tls.verifies:
        # Envoy trusts what it is given to trust, be it a root or not.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if tls.trusted_ca is not None:
            context.load_verify_locations(cadata=_text(tls.trusted_ca))
        else:
            context.load_default_certs()
    if tls.certificate is not None:
        with ExitStack() as files:
            key = None if tls.private_key is None else _file(tls.private_key, files)
            context.load_cert_chain(_file(tls.certificate, files), key, password=no_password)
    return context


def _text(pem: Pem) -> str:
    return pem.text if pem.path is None else read_regular(pem.path).decode("ascii")


def _file(pem: Pem, files: ExitStack) -> Path:
    """A file that holds it, for as long as *files* are open: `ssl` reads keys from no string."""
    if pem.path is not None:
        read_regular(pem.path)  # `ssl` would wait for a FIFO, and the event loop for it
        return pem.path
    folder = Path(files.enter_context(tempfile.TemporaryDirectory()))
    path = folder / "pem"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(pem.text)
    return path
