"""The names that `bench` knows, for its help; what they stand for is loaded when it runs."""

WORKLOADS = ("conversation", "synthetic", "prefix30", "prefix50", "bursty", "agentic")
AGENT_WORKLOADS = ("agent_sessions", "agent_crowd", "agent_sessions_16", "agent_sessions_full")
STANDARD_FLEETS = ("a30x8", "a30x4+v100x4", "h100x3+l20x3+a30x2")
AGENT_CELLS = (
    ("agent_sessions", "unequal-96k"),
    ("agent_sessions", "unequal-48k"),
    ("agent_crowd", "unequal-48k"),
    ("agent_sessions", "equal-96k"),
    ("agent_sessions", "equal-48k"),
    ("agent_crowd", "equal-48k"),
)
"""Workload and fleet: what the live sessions hold is 0.5, 1 and 2 times all caches together."""
SCENARIO_NAMES = (
    "steady",
    "cold_start",
    "workload_shift",
    "slow",
    "slow_and_back",
    "join",
    "leave",
    "scrape_1s",
    "scrape_10s",
    "no_scrape",
    "index_double",
    "index_half",
    "tokens_over",
    "tokens_under",
    "noise",
    "aborts",
    "failures",
    "two_routers",
    "false_labels",
)
