"""UpstreamTls: how bytes on their way to an engine are encrypted, as values.

Read in an Envoy configuration or in settings; used by whoever asks engines.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Pem:
    """Certificates or a key, as PEM: in a file, or written into the configuration."""

    path: Path | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """How Envoy encrypts what it sends to an endpoint.

    Attributes:
        trusted_ca: what the endpoint's certificate is checked by.
        system_roots: whether it is checked by those of the system Envoy runs on.
        untrusted: whether any certificate will do; with neither of the above, too.
        certificate, private_key: Envoy's own; None where it shows none.
        server_name: the SNI; empty for none.
        host_is_server_name: whether the endpoint's `hostname` is the SNI where it has one.
        subject_names: of which the certificate has to have one, exactly; none where any will do.
    """

    trusted_ca: Pem | None = None
    system_roots: bool = False
    untrusted: bool = False
    certificate: Pem | None = None
    private_key: Pem | None = None
    server_name: str = ""
    host_is_server_name: bool = False
    subject_names: tuple[str, ...] = ()

    @property
    def verifies(self) -> bool:
        """Whether Envoy refuses an endpoint whose certificate it cannot trust."""
        return not self.untrusted and (self.trusted_ca is not None or self.system_roots)


def no_password() -> str:
    """For `ssl`, in place of asking on the terminal for a key's password, which waits for ever."""
    raise ValueError("the private key has a password")
