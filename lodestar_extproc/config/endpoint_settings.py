"""EndpointSettings: every setting of one endpoint, declared once.

Validation, error messages and docs/settings.md come from these lines.
"""

from __future__ import annotations

from dataclasses import dataclass

from lodestar_extproc.config.setting import check, setting

ENGINES = ("vllm", "sglang", "trtllm", "triton")


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """What an endpoint's own metadata may say of it; null takes the pool's or the scraped value.

    Raises:
        SettingError: a value is out of bounds.
    """

    accelerator: str = setting(
        "default", "Kind of hardware; endpoints of one kind share what is learned."
    )
    engine: str = setting("vllm", "Whose metric names it uses.", choices=ENGINES)
    metrics_path: str | None = setting(
        None,
        "Where its metrics are read, if not at the pool's `metrics_path`; for `trtllm`, if not at "
        "`/prometheus/metrics`.",
        begins_with="/",
    )
    metrics_port: int | None = setting(
        None,
        "Port of its metrics, if not the endpoint's own; for `triton`, if not 8002.",
        at_least=1,
        at_most=65535,
    )
    metrics_scheme: str | None = setting(
        None,
        "`http` or `https` for its metrics; null for as the endpoint itself is reached where they "
        "are on its own port, else `http`.",
        choices=("http", "https"),
    )
    kv_capacity_tokens: float | None = setting(
        None, "Tokens its KV cache holds, if its metrics do not say.", above=0
    )
    token_budget: float = setting(
        2048.0, "Tokens it schedules a step (vLLM: `--max-num-batched-tokens`).", at_least=1
    )
    prefix_caching: bool = setting(
        default=True, text="Whether it reuses the KV cache of a shared prefix."
    )
    kv_events_port: int | None = setting(
        None,
        "Port of its KV events, if not the pool's: engines of one host need one each.",
        at_least=1,
        at_most=65535,
    )
    kv_events_replay_port: int | None = setting(
        None,
        "Port at which it says missed KV events again, if not the pool's.",
        at_least=1,
        at_most=65535,
    )

    def __post_init__(self) -> None:
        check(self)
