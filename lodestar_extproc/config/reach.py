"""How engines are asked for metrics and health: as Envoy reaches them, or as settings say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from lodestar_extproc.encryption import Pem, UpstreamTls
from lodestar_extproc.endpoint import ANY_2XX, HealthQuestion

if TYPE_CHECKING:
    from lodestar_extproc.config.member import Member
    from lodestar_extproc.config.settings import PoolSettings
    from lodestar_extproc.config.upstream import HttpHealthCheck

HEALTH_PATH = "/health"
"""Of vLLM, SGLang and trtllm-serve."""
OFF, VERIFIED, UNVERIFIED = "off", "verified", "unverified"


def encryption(member: Member, settings: PoolSettings) -> UpstreamTls | None:
    """How to encrypt the way to *member*; None for not at all."""
    theirs, asked = member.transport.tls, settings.engine_tls
    if asked == OFF or (asked is None and theirs is None):
        return None
    tls = theirs or UpstreamTls()
    name = settings.engine_server_name or (
        member.hostname if tls.host_is_server_name and member.hostname else tls.server_name
    )
    tls = dataclasses.replace(
        tls,
        server_name=name,
        host_is_server_name=False,
        trusted_ca=_pem(settings.engine_ca_path) or tls.trusted_ca,
        certificate=_pem(settings.engine_certificate_path) or tls.certificate,
        private_key=_pem(settings.engine_key_path) or tls.private_key,
    )
    if asked == UNVERIFIED:
        return dataclasses.replace(tls, untrusted=True)
    if asked == VERIFIED:
        names = tls.subject_names or ((name,) if name else ())
        roots = tls.trusted_ca is None
        return dataclasses.replace(tls, untrusted=False, system_roots=roots, subject_names=names)
    return tls


def health_path(check: HttpHealthCheck | None, settings: PoolSettings) -> str:
    """Where health is asked."""
    return settings.health_path or (HEALTH_PATH if check is None else check.path)


def health_question(
    member: Member, check: HttpHealthCheck | None, settings: PoolSettings, cluster: str
) -> HealthQuestion:
    """How it is asked: as Envoy does, unless settings name a path of their own."""
    if check is None or settings.health_path is not None:
        return ANY_2XX
    host = member.health_host or check.host or member.hostname or cluster
    return HealthQuestion(check.method, host, check.statuses)


def _pem(path: str | None) -> Pem | None:
    return None if path is None else Pem(Path(path))
