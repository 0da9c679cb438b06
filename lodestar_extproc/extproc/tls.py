"""credentials(): a `ServerTls` as gRPC wants it.

Gateways encrypt the way to an endpoint picker and do not check who it is, so a certificate made at
the start will do for them.
"""

from __future__ import annotations

import grpc

from lodestar_extproc.server_tls import CertificateFiles, ServedPair, ServerTls


def credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """For a server to listen with; gRPC asks for the files again at each new connection.

    Raises:
        CertificateError: the files are missing or do not belong together, or there is no library to
            make a certificate with.
    """
    files = CertificateFiles(tls)

    def latest() -> grpc.ServerCertificateConfiguration | None:
        found = files.latest()
        return None if found is None else _configuration(found)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(files.read()),
        latest,
        require_client_authentication=tls.client_ca is not None,
    )


def _configuration(served: ServedPair) -> grpc.ServerCertificateConfiguration:
    pairs = [(served.key, served.certificate)]
    return grpc.ssl_server_certificate_configuration(pairs, served.client_ca or None)
