"""The options of `serve` that say who may connect to its ports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lodestar_extproc.admin.access import AdminAccess
    from lodestar_extproc.server_tls import ServerTls

TlsOption = Annotated[
    str, typer.Option(help="off; self-signed; or a folder with tls.crt and tls.key, read anew.")
]
ClientCaOption = Annotated[
    Path | None,
    typer.Option(help="With --tls: take only clients with a certificate of this CA, PEM."),
]
AdminTlsOption = Annotated[
    Path | None,
    typer.Option(help="Folder with tls.crt and tls.key, read anew: --admin by HTTPS."),
]
AdminClientCaOption = Annotated[
    Path | None,
    typer.Option(help="With --admin-tls: take only clients with a certificate of this CA, PEM."),
]
AdminTokenOption = Annotated[
    Path | None,
    typer.Option(help="File with the token that --admin asks for; /healthz and /ready need none."),
]
AdminHostOption = Annotated[
    list[str] | None,
    typer.Option(help="Host name under which --admin is reached from outside; may be repeated."),
]


def tls_of(option: str, client_ca: Path | None) -> ServerTls | None:
    """How *option* asks to encrypt.

    Raises:
        ValueError: clients are to be checked and nothing is encrypted.
    """
    from lodestar_extproc.server_tls import ServerTls  # noqa: PLC0415

    if option == "off":
        if client_ca is not None:
            raise ValueError("--tls-client-ca needs --tls: without it nobody shows a certificate")
        return None
    return ServerTls(None if option == "self-signed" else Path(option), client_ca)


def admin_access_of(
    folder: Path | None,
    client_ca: Path | None,
    token: Path | None = None,
    hosts: Sequence[str] = (),
) -> AdminAccess:
    """Who may ask the admin server.

    Raises:
        ValueError: clients are to be checked and nothing is encrypted.
    """
    from lodestar_extproc.admin.access import AdminAccess  # noqa: PLC0415
    from lodestar_extproc.server_tls import ServerTls  # noqa: PLC0415

    if client_ca is not None and folder is None:
        raise ValueError("--admin-client-ca needs --admin-tls: without it nobody shows one")
    tls = None if folder is None else ServerTls(folder, client_ca)
    return AdminAccess(tls, token, tuple(hosts))
