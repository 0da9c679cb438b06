"""The names that `bench` knows, for its help; what they stand for is loaded when it runs."""

WORKLOADS = ("conversation", "synthetic", "prefix30", "prefix50", "bursty", "agentic")
STANDARD_FLEETS = ("a30x8", "a30x4+v100x4", "h100x3+l20x3+a30x2")
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
