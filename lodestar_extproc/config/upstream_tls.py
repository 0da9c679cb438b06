"""read_transports(): how Envoy encrypts what it sends to a cluster's endpoints."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NotBase64
from pathlib import Path
from typing import TYPE_CHECKING

from lodestar_extproc.config.config_source import resources_in, source_file
from lodestar_extproc.config.errors import ConfigError
from lodestar_extproc.config.node import read_node
from lodestar_extproc.config.schema import RESOURCES
from lodestar_extproc.config.upstream import Transport, TransportMatch, Transports
from lodestar_extproc.encryption import Pem, UpstreamTls

if TYPE_CHECKING:
    from lodestar_extproc.config.node import Node

MATCH_NAMESPACE = "envoy.transport_socket_match"
"""In an endpoint's metadata: by what a cluster with several transports tells it apart."""
ANY_CHAIN = "ACCEPT_UNTRUSTED"
TLS, RAW = "UpstreamTlsContext", "RawBuffer"


class _NotToldError(Exception):
    """A part of a transport socket that cannot be told from here; says why."""


def read_transports(cluster: Node, root: Node, path: Path) -> Transports:
    """Those of *cluster*, with the secrets of the bootstrap *root*, read from *path*."""
    matches = tuple(
        TransportMatch(
            tuple((key, value.text) for key, value in entry.get("match").entries()),
            _transport(entry.get("transport_socket"), root, path),
        )
        for entry in cluster.get("transport_socket_matches").items()
    )
    otherwise = _transport(cluster.get("transport_socket"), root, path)
    if cluster.get("transport_socket_matcher"):
        otherwise = Transport(otherwise.tls, "a matcher chooses its transport sockets")
    return Transports(otherwise, matches)


def match_metadata(entry: Node) -> dict[str, str]:
    """What an endpoint says of the transport it wants."""
    metadata = entry.get("metadata", "filter_metadata", MATCH_NAMESPACE)
    return {key: value.text for key, value in metadata.entries()}


def _transport(socket: Node, root: Node, path: Path) -> Transport:
    config = socket.get("typed_config")
    if not socket or config.type_name == RAW:
        return Transport()
    contexts = list(config.messages(TLS))
    unread = "" if config.type_name == TLS else f"its transport socket {socket.get('name').text}"
    try:
        return Transport(_tls(contexts[0], root, path) if contexts else None, unread)
    except _NotToldError as error:
        return Transport(UpstreamTls(), str(error))


def _tls(context: Node, root: Node, path: Path) -> UpstreamTls:
    common = context.get("common_tls_context")
    trust = _trust(common, root, path)
    chains = list(common.get("tls_certificates").items())
    chains += [
        _secret(config, root, path).get("tls_certificate")
        for config in common.get("tls_certificate_sds_secret_configs").items()
    ]
    chain = chains[0] if chains else None
    return UpstreamTls(
        trusted_ca=_pem(trust[0].get("trusted_ca"), trust[1].get("trusted_ca")),
        system_roots=any(t.get("system_root_certs") for t in trust),
        untrusted=any(t.get("trust_chain_verification").text == ANY_CHAIN for t in trust),
        certificate=_pem(chain.get("certificate_chain")) if chain else None,
        private_key=_pem(chain.get("private_key")) if chain else None,
        server_name=context.get("sni").text,
        host_is_server_name=context.get("auto_host_sni").flag,
        subject_names=tuple(dict.fromkeys(name for t in trust for name in _subject_names(t))),
    )


def _trust(common: Node, root: Node, path: Path) -> tuple[Node, Node]:
    """The two contexts that certificates are checked by; where they differ the first holds."""
    combined = common.get("combined_validation_context")
    secret = combined.get("validation_context_sds_secret_config") or common.get(
        "validation_context_sds_secret_config"
    )
    own = combined.get("default_validation_context") or common.get("validation_context")
    if not secret:
        return own, own
    return _secret(secret, root, path).get("validation_context"), own


def _subject_names(trust: Node) -> tuple[str, ...]:
    typed = (san.get("matcher") for san in trust.get("match_typed_subject_alt_names").items())
    matchers = [*typed, *trust.get("match_subject_alt_names").items()]
    names = tuple(matcher.get("exact").text for matcher in matchers)
    if not all(names):
        raise _NotToldError("names of certificates that are matched otherwise than exactly")
    return names


def _secret(config: Node, root: Node, path: Path) -> Node:
    """The `Secret` that a `SdsSecretConfig` names: in the bootstrap, or in a file."""
    name, source = config.get("name").text, config.get("sds_config")
    if not source:
        secrets = list(root.get("static_resources", "secrets").items())
    elif file := source_file(source, path):
        try:
            secrets = list(resources_in(read_node(file, RESOURCES), "Secret"))
        except ConfigError as error:
            raise _NotToldError(str(error)) from error
    else:
        raise _NotToldError(f"the secret {name} of xDS (SDS)")
    for secret in secrets:
        if secret.get("name").text == name:
            return secret
    raise _NotToldError(f"the secret {name}: it stands nowhere")


def _pem(*sources: Node) -> Pem | None:
    """The first that is written of some `DataSource`s."""
    source = next(filter(None, sources), None)
    if source is None:
        return None
    if filename := source.get("filename").text:
        return Pem(path=Path(filename))
    if encoded := source.get("inline_bytes").text:
        try:
            return Pem(text=b64decode(encoded).decode())
        except (NotBase64, UnicodeDecodeError) as error:
            raise _NotToldError("inline bytes that are no PEM in base64") from error
    if source.get("environment_variable"):
        raise _NotToldError("an environment variable of Envoy's process")
    return Pem(text=source.get("inline_string").text)
