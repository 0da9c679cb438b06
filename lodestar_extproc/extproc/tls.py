"""The server's certificate: from files, which are read anew when they change, or self-signed.

Gateways encrypt the way to an endpoint picker and do not check who it is, so a certificate made at
the start will do for them.
"""

from __future__ import annotations

import datetime as dt
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

CERTIFICATE_FILE, KEY_FILE = "tls.crt", "tls.key"
"""As a Kubernetes Secret of type `kubernetes.io/tls` names them when it is mounted."""
SELF_SIGNED_FOR = dt.timedelta(days=3650)
"""Ten years, as nobody checks it: longer than any process runs, and each start makes a new one."""
_log = logging.getLogger(__name__)


class CertificateError(ValueError):
    """There is no certificate to serve with; the message says what is needed."""


@dataclass(frozen=True, slots=True)
class Tls:
    """How to encrypt.

    Attributes:
        folder: holds `tls.crt` and `tls.key`; None for a self-signed certificate.
    """

    folder: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """For a server to listen with.

        Raises:
            CertificateError: the files are missing or do not belong together, or there is no
                library to make a certificate with.
        """
        if self.folder is None:
            return grpc.ssl_server_credentials([self_signed()])
        files = _KeyPair(self.folder)
        return grpc.dynamic_ssl_server_credentials(files.read(), files.latest)


class _KeyPair:
    """The files of a certificate and its key, and when the last good pair was written."""

    def __init__(self, folder: Path) -> None:
        self._certificate = folder / CERTIFICATE_FILE
        self._key = folder / KEY_FILE
        self._read_at: tuple[int, int] | None = None

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Read the pair as it is now.

        Raises:
            CertificateError: it cannot be read, or is no pair.
        """
        try:
            # OpenSSL says whether they belong together; gRPC would fail each handshake instead.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._certificate, self._key)
            pair = (self._key.read_bytes(), self._certificate.read_bytes())
            self._read_at = self._written_at()
        except (OSError, ssl.SSLError) as error:
            raise CertificateError(
                f"{self._certificate} and {self._key} are no certificate and its key: {error}"
            ) from error
        return grpc.ssl_server_certificate_configuration([pair])

    def latest(self) -> grpc.ServerCertificateConfiguration | None:
        """The pair, if it has changed and is good; gRPC asks for each new connection."""
        try:
            if self._written_at() == self._read_at:
                return None
            latest = self.read()
        except (OSError, CertificateError) as error:
            _log.error("the last good certificate stays: %s", error)
            return None
        _log.info("%s: new certificate taken up", self._certificate)
        return latest

    def _written_at(self) -> tuple[int, int]:
        return self._certificate.stat().st_mtime_ns, self._key.stat().st_mtime_ns


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
