"""Parts: what can be measured, each a few cells that belong together; a plan names them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cells import Cell, interleaved
from contenders import VLLM_ROUTER

MAIN = ("learned", "prefix_affinity_token_load", "round_robin")
RIVALS = ("learned", "prefix_affinity_token_load", "lmetric")
ALL = (*MAIN, "lmetric", "least_request", "prefix_cache")
AGENT_SESSIONS = "agent_sessions"
WHOLE = (*RIVALS, "session_affinity")
WHOLE_SESSIONS = "agent_sessions_140"
PAIR_SESSIONS = "agent_sessions_70"
PAIR_MIXED_SESSIONS = "agent_sessions_105"
AGENTS = ("learned", "cache_aware", "prefix_affinity_token_load", "lmetric")
HOLDING = ("learned", "learned_at_once", *AGENTS[1:])


@dataclass(frozen=True)
class Part:
    """Some policies on the same arrivals, round by round.

    Attributes:
        load: requests a second over the measured saturation; None for what suits the machine.
        repeat: the same rounds once more; 0 is the first time.
    """

    policies: Sequence[str]
    rounds: Sequence[int]
    load: float | None = None
    workload: str = "mixed"
    repeat: int = 0

    def cells(
        self, fleet: str, saturation_per_s: float, main_load: float, duration_s: float
    ) -> Iterator[Cell]:
        """Every policy once a round, in an order of its own."""
        load = main_load if self.load is None else self.load
        rate_per_s = round(load * saturation_per_s, 2)
        yield from interleaved(
            fleet,
            self.workload,
            rate_per_s,
            self.policies,
            self.rounds,
            duration_s,
            self.repeat,
        )


PARTS: Mapping[str, Part] = MappingProxyType(
    {
        "main": Part(MAIN, (1, 2, 3)),
        "rivals": Part(RIVALS, (1, 2, 3)),
        "others": Part(("lmetric", "least_request"), (1, 2, 3)),
        "prefix_cache": Part(("prefix_cache",), (1, 2, 3)),
        # By how much a run differs from itself.
        "again": Part(MAIN, (1,), repeat=1),
        "again2": Part(MAIN, (1,), repeat=2),
        "again3": Part(MAIN, (1,), repeat=3),
        "again4": Part(MAIN, (1,), repeat=4),
        "rivals_again": Part(RIVALS, (1,), repeat=1),
        "rivals_again2": Part(RIVALS, (1,), repeat=2),
        # Dealt out in turn these are more than the fleet can serve.
        "near": Part(MAIN[:2], (1, 2), 0.9),
        "limit": Part(RIVALS, (1, 2, 3), 0.95),
        "over": Part(RIVALS, (1,), 1.1),
        "half": Part(MAIN, (1, 2), 0.5),
        "equal": Part((*RIVALS, "round_robin"), (1, 2)),
        # These differ from the mixed load, by whose saturation they are measured.
        "chats": Part(RIVALS, (1, 2), 0.97, "chats"),
        "trace": Part((*RIVALS, "prefix_cache"), (1, 2), 0.39, "conversation"),
        # Agent sessions: two loads below tipping and one near it; another router once at each.
        "agents_low": Part(AGENTS, (1, 2, 3, 4), 0.25, AGENT_SESSIONS),
        "agents_middle": Part(AGENTS, (1, 2, 3, 4), 0.3, AGENT_SESSIONS),
        "agents_near_once": Part(AGENTS, (1,), 0.35, AGENT_SESSIONS),
        "agents_near": Part(AGENTS, (1, 2, 3, 4), 0.35, AGENT_SESSIONS),
        "router_low": Part((VLLM_ROUTER,), (1,), 0.25, AGENT_SESSIONS),
        "router_middle": Part((VLLM_ROUTER,), (1,), 0.3, AGENT_SESSIONS),
        "router_near": Part((VLLM_ROUTER,), (1,), 0.35, AGENT_SESSIONS),
        "by_hand_low": Part(("learned_by_hand",), (1, 2, 3, 4), 0.25, AGENT_SESSIONS),
        "by_hand_middle": Part(("learned_by_hand",), (1, 2, 3, 4), 0.3, AGENT_SESSIONS),
        # What holding requests gives, beside rules.
        "holding_middle": Part(HOLDING, (1, 2), 0.3, AGENT_SESSIONS, repeat=5),
        "holding_near": Part(HOLDING, (1, 2), 0.35, AGENT_SESSIONS, repeat=5),
        "holding_middle_more": Part(AGENTS, (3, 4, 5), 0.3, AGENT_SESSIONS, repeat=5),
        "holding_low": Part(AGENTS, (1, 2, 3), 0.25, AGENT_SESSIONS, repeat=5),
        "holding_low_more": Part(AGENTS, (3, 4, 5, 6), 0.25, AGENT_SESSIONS, repeat=5),
        # Equal engines, below tipping and near it.
        "equal_middle": Part(AGENTS, (1, 2), 0.3, AGENT_SESSIONS),
        "equal_near": Part(AGENTS, (1, 2), 0.35, AGENT_SESSIONS),
        "equal_middle_more": Part(AGENTS, (3, 4, 5, 6), 0.3, AGENT_SESSIONS),
        "equal_near_more": Part(AGENTS, (3, 4), 0.35, AGENT_SESSIONS),
        "router_again": Part((VLLM_ROUTER,), (3,), 0.3, AGENT_SESSIONS, repeat=5),
        # With another router in every round.
        "beside_router": Part((*AGENTS, VLLM_ROUTER), (6, 7), 0.3, AGENT_SESSIONS),
        "near_beside_router": Part((*AGENTS, VLLM_ROUTER), (5, 6), 0.35, AGENT_SESSIONS),
        # For runs of 100 s and more, of which the first minute fills the caches.
        "long_near": Part(AGENTS, (1, 2, 3), 0.35, AGENT_SESSIONS),
        "long_near_more": Part(AGENTS, (4, 5, 6), 0.35, AGENT_SESSIONS),
        "long_low": Part(AGENTS, (1, 2, 3), 0.25, AGENT_SESSIONS),
        "long_low_more": Part(AGENTS, (4, 5, 6), 0.25, AGENT_SESSIONS),
        "long_middle": Part(AGENTS, (1, 2, 3), 0.3, AGENT_SESSIONS),
        "long_middle_more": Part(AGENTS, (4, 5, 6), 0.3, AGENT_SESSIONS),
        "long_router_low": Part((VLLM_ROUTER,), (1, 2), 0.25, AGENT_SESSIONS),
        "long_router_low_more": Part((VLLM_ROUTER,), (4, 5), 0.25, AGENT_SESSIONS),
        "long_router_middle": Part((VLLM_ROUTER,), (1, 2), 0.3, AGENT_SESSIONS),
        "long_router_middle_more": Part((VLLM_ROUTER,), (4, 5), 0.3, AGENT_SESSIONS),
        # By how much a round of agents differs from itself.
        "low_again": Part(("learned", "cache_aware"), (1,), 0.25, AGENT_SESSIONS, repeat=1),
        "low_again2": Part(("learned", "cache_aware"), (1,), 0.25, AGENT_SESSIONS, repeat=2),
        # Recorded conversations, whose prompts share less than sessions do.
        "trace_again": Part(AGENTS, (1, 2, 3), 0.353, "conversation"),
        "holding_near_more": Part(HOLDING, (3, 4), 0.35, AGENT_SESSIONS, repeat=5),
        "holding_mixed": Part(("learned", "learned_at_once", *RIVALS[1:]), (1, 2), repeat=5),
        "mixed_again": Part(RIVALS, (4,)),
        # Whole cards: near tipping by virtual time, and four fifths of
        # what was taken for the saturation of the others.
        "whole_near": Part(WHOLE, (1, 2), 0.92, WHOLE_SESSIONS),
        "whole_near_more": Part(WHOLE, (3, 4), 0.92, WHOLE_SESSIONS),
        "whole_low": Part(WHOLE, (1, 2), 0.8, WHOLE_SESSIONS),
        "whole_low_more": Part(WHOLE, (3, 4), 0.8, WHOLE_SESSIONS),
        # Without the rule that is far behind, for more rounds in the same time.
        "whole_rivals_near": Part(RIVALS, (1, 2, 3), 0.92, WHOLE_SESSIONS),
        "whole_rivals_near_more": Part(RIVALS, (4,), 0.92, WHOLE_SESSIONS),
        "whole_rivals_low": Part(RIVALS, (1, 2, 3), 0.8, WHOLE_SESSIONS),
        "whole_rivals_low_more": Part(RIVALS, (4,), 0.8, WHOLE_SESSIONS),
        "whole_chats": Part(RIVALS, (1, 2), 1.5),
        # Two cards: below tipping by virtual time, and near it.
        "pair_low": Part(RIVALS, (1, 2, 3, 4), 0.625, PAIR_SESSIONS),
        "pair_low_more": Part(RIVALS, (4,), 0.625, PAIR_SESSIONS),
        "pair_near": Part(RIVALS, (1, 2, 3, 4), 0.75, PAIR_SESSIONS),
        "pair_kept": Part(("session_affinity",), (1, 2, 3, 4), 0.625, PAIR_SESSIONS),
        "pair_mixed_low": Part(RIVALS, (1, 2, 3, 4), 0.55, PAIR_MIXED_SESSIONS),
        "pair_mixed_near": Part(RIVALS, (1, 2, 3, 4), 0.7, PAIR_MIXED_SESSIONS),
        "pair_mixed_kept": Part(("session_affinity",), (1,), 0.7, PAIR_MIXED_SESSIONS),
        "pair_tensor_near": Part(WHOLE, (1, 2, 3, 4), 0.7, PAIR_MIXED_SESSIONS),
        "pair_chats": Part(RIVALS, (1, 2), 1.0),
        "all": Part(ALL, (3,), 0.9),
    }
)
"""By name."""
PLAN = ("main", "others", "near", "half", "chats", "prefix_cache", "all")
