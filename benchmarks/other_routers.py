"""Other routers from PyPI, which stand before engines by themselves: how each is begun.

python -m venv FOLDER && FOLDER/bin/pip install vllm-router==0.1.17 smg==1.13.0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

_STARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "vllm-router": ("vllm-router",),
        # It would load a tokenizer of the model from a hub.
        "smg": ("smg", "launch", "--disable-tokenizer-autoload"),
    }
)
_POLICY = ("--policy", "cache_aware", "--log-level", "error")
"""Its own recommendation, with its own defaults."""


def commands(
    folder: Path | None, addresses: Sequence[str], ports: Sequence[int]
) -> dict[str, list[str]]:
    """What starts those that are installed in the environment *folder*, by name.

    Args:
        addresses: of engines.
        ports: two for each: its own, and one for its metrics.
    """
    if folder is None:
        return {}
    workers = ("--worker-urls", *(f"http://{address}" for address in addresses))
    free = iter(ports)
    return {
        name: [
            *(str(folder / "bin" / start[0]), *start[1:], *_POLICY, *workers),
            *("--host", "127.0.0.1", "--port", str(next(free))),
            *("--prometheus-port", str(next(free))),
        ]
        for name, start in _STARTS.items()
        if (folder / "bin" / start[0]).exists()
    }
