"""ServerTls: how a port of ours is encrypted, and which clients may connect.

The files are read anew when they change; while they are bad, the last good ones stay.
"""

from __future__ import annotations

import datetime as dt
import logging
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lodestar_extproc.encryption import no_password
from lodestar_extproc.regular_file import read_regular

CERTIFICATE_FILE, KEY_FILE = "tls.crt", "tls.key"
"""As a Kubernetes Secret of type `kubernetes.io/tls` names them when it is mounted."""
SELF_SIGNED_FOR = dt.timedelta(days=3650)
"""Ten years, as nobody checks it: longer than any process runs, and each start makes a new one."""
_log = logging.getLogger(__name__)


class CertificateError(ValueError):
    """There is no certificate to serve with; the message says what is needed."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """How to encrypt.

    Attributes:
        folder: holds `tls.crt` and `tls.key`; None for a self-signed certificate.
        client_ca: certificates, PEM, by which those of clients are checked; None asks for none.
    """

    folder: Path | None = None
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class ServedPair:
    """What to serve with, all PEM; *client_ca* is empty where clients need no certificate."""

    key: bytes
    certificate: bytes
    client_ca: bytes = b""


class CertificateFiles:
    """The files of *tls*, and when the last good ones were written."""

    def __init__(self, tls: ServerTls) -> None:
        self._pair = None if tls.folder is not None else self_signed()
        self._folder = tls.folder or Path()
        self._client_ca = tls.client_ca
        self._read_at: tuple[int, ...] = ()

    def read(self) -> ServedPair:
        """What the files hold now.

        Raises:
            CertificateError: they cannot be read, or do not belong together.
        """
        written_at = self._written_at()
        served = ServedPair(*(self._pair or self._pair_of_files()), self._clients())
        self._read_at = written_at
        return served

    def latest(self) -> ServedPair | None:
        """What they hold, if it has changed and is good."""
        try:
            if self._written_at() == self._read_at:
                return None
            latest = self.read()
        except CertificateError as error:
            _log.error("the last good certificate stays: %s", error)
            return None
        _log.info("%s: new certificate taken up", self._client_ca or self._folder)
        return latest

    def _pair_of_files(self) -> tuple[bytes, bytes]:
        certificate, key = self._folder / CERTIFICATE_FILE, self._folder / KEY_FILE
        try:
            pair = read_regular(key), read_regular(certificate)
            # OpenSSL says whether they belong together; a server would fail each handshake instead.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key, password=no_password)
        except (OSError, ValueError) as error:
            raise CertificateError(
                f"{certificate} and {key} are no certificate and its key: {error}"
            ) from error
        return pair

    def _clients(self) -> bytes:
        if self._client_ca is None:
            return b""
        try:
            found = read_regular(self._client_ca)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_verify_locations(cadata=found.decode("ascii"))
        except (OSError, ValueError) as error:
            raise CertificateError(
                f"{self._client_ca} holds no certificates to check clients by: {error}"
            ) from error
        return found

    def _written_at(self) -> tuple[int, ...]:
        files = [] if self._pair else [self._folder / CERTIFICATE_FILE, self._folder / KEY_FILE]
        if self._client_ca is not None:
            files.append(self._client_ca)
        # A file that is not there has no time; reading it says what is missing.
        return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)


def ssl_context(tls: ServerTls, protocols: Sequence[str] = ()) -> ssl.SSLContext:
    """For a server to listen with; each handshake is by the files as they are then.

    Args:
        protocols: what is spoken inside, as ALPN names it; none says nothing of it.

    Raises:
        CertificateError: the files are missing or do not belong together.
    """
    files = CertificateFiles(tls)
    listening = _context(files.read(), protocols)
    held = [listening]

    def choose(handshake: ssl.SSLObject, _name: str | None, _listening: ssl.SSLContext) -> None:
        if (latest := files.latest()) is not None:
            held[0] = _context(latest, protocols)
        handshake.context = held[0]

    listening.sni_callback = choose
    return listening


def _context(served: ServedPair, protocols: Sequence[str]) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # A resumed session would outlive the certificates by which its client was checked.
    made.options |= ssl.OP_NO_TICKET
    made.num_tickets = 0
    if protocols:
        made.set_alpn_protocols(list(protocols))
    with tempfile.TemporaryDirectory() as folder:  # `ssl` reads keys from no string
        pair = Path(folder) / "pair.pem"
        pair.touch(mode=0o600)
        pair.write_bytes(served.key + b"\n" + served.certificate)
        made.load_cert_chain(pair)
    if served.client_ca:
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(cadata=served.client_ca.decode("ascii"))
    return made


def self_signed() -> tuple[bytes, bytes]:
    """A new key and a certificate for it, both PEM.

    Raises:
        CertificateError: the library is not there.
    """
    try:
        from cryptography import x509  # noqa: PLC0415  (an extra)
        from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    except ImportError:
        raise CertificateError(
            "install lodestar-extproc[kubernetes] for a self-signed certificate, or name a folder "
            f"with {CERTIFICATE_FILE} and {KEY_FILE}"
        ) from None
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lodestar-extproc")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + SELF_SIGNED_FOR)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    return (
        key.private_bytes(
            encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        certificate.public_bytes(encoding),
    )
