"""What labels say of an endpoint: its accelerator, its engine, and its own settings. Pure."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from ruamel.yaml.error import YAMLError

from lodestar_extproc.config import EndpointSettings, SettingError, settings_of
from lodestar_extproc.config.yaml_tree import passing_reader
from lodestar_extproc.fleet.discovery.kubernetes.objects import Labels

PREFIX = "lodestar/"
"""Of labels and annotations that hold an endpoint's own settings: `lodestar/kv-capacity-tokens`."""
ENGINE_LABEL = "llm-d.ai/engine-type"
ENGINES: Mapping[str, str] = MappingProxyType(
    {
        "vllm": "vllm",
        "sglang": "sglang",
        "trtllm-serve": "trtllm",
        "triton-tensorrt-llm": "triton",
        "triton": "triton",
    }
)
"""Our engine by the value of that label, in which llm-d's router names them."""
ACCELERATOR_LABELS = (
    "nvidia.com/gpu.product",  # GPU feature discovery
    "amd.com/gpu.product-name",  # AMD's node labeller
    "gpu.intel.com/product",  # Intel's node feature rules
    "cloud.google.com/gke-accelerator",
    "cloud.google.com/gke-tpu-accelerator",
    "karpenter.k8s.aws/instance-accelerator-name",
    "karpenter.k8s.aws/instance-gpu-name",
    "eks.amazonaws.com/instance-gpu-name",
    "gpu.nvidia.com/class",  # CoreWeave
)
"""Labels by which well-known operators and clouds name an accelerator, the most exact first."""
_log = logging.getLogger(__name__)


def accelerator(places: Iterable[Labels], devices: int = 1) -> str | None:
    """The accelerator that the first of *places* to name one names; several make one, `h100x8`.

    >>> accelerator([{}, {"nvidia.com/gpu.product": "NVIDIA-L4"}], devices=2)
    'NVIDIA-L4x2'
    """
    for labels in places:
        for label in ACCELERATOR_LABELS:
            if name := labels.get(label):
                return f"{name}x{devices}" if devices > 1 else name
    return None


def own_settings(
    place: str, labels: Labels, annotations: Labels, defaults: EndpointSettings
) -> EndpointSettings:
    """*defaults* with what labels and annotations say of one endpoint; what is wrong is logged.

    Args:
        place: whose they are, for the log.
    """
    values: dict[str, Any] = {}
    if engine := ENGINES.get(labels.get(ENGINE_LABEL, "")):
        values["engine"] = engine
    for key, text in {**labels, **annotations}.items():
        if key.startswith(PREFIX):
            name = key.removeprefix(PREFIX).replace("-", "_")
            values |= _setting(place, key, name, text)
    return dataclasses.replace(defaults, **values)


def _setting(place: str, key: str, name: str, text: str) -> Mapping[str, object]:
    known = settings_of(EndpointSettings)
    try:
        if name not in known:
            problem = f"unknown; known: {', '.join(known)}"
            raise SettingError(name, problem)  # noqa: TRY301  (told like any other fault)
        kind = known[name].kind
        return {name: known[name].parse(text if kind is str else _read(text))}
    except (SettingError, YAMLError) as error:
        _log.warning("%s: %s is left out: %s", place, key, error)
        return {}


def _read(text: str) -> object:
    with passing_reader() as reader:
        return reader.load(text)
