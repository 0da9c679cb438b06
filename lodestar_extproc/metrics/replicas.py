"""What is counted of other replicas: what is handed to them, and what is shared with them."""

from lodestar_extproc.metrics.metric import POOL, counter, gauge

HANDOVER_RESULTS = ("handed", "received", "unreadable", "lost")
HANDED_OVER = counter(
    "lodestar_handed_over_total",
    ("result",),
    "First tokens, reports and ends that one replica heard of another's request: `handed` to its "
    "owner, `received` from who heard it, `unreadable` there, or `lost`, as the owner cannot be "
    "reached.",
    "`lost` while no replica has stopped: replicas cannot reach each other. List all of them in "
    "Envoy's cluster for this service, or name them by `serve --peer`.",
)
SETTLED_EARLY = counter(
    "lodestar_settled_early_total",
    POOL,
    "Requests whose end was never heard, and which their engine had long finished: given up "
    "before `request_timeout_s`.",
    "Growing: ends go elsewhere, or nowhere. The access log is not configured, or another replica "
    "gets it and cannot hand it over.",
)
SHARE_STATE = gauge(
    "lodestar_share_state",
    ("pool", "state"),
    "1 for how well the pool is shared: `shared`, `degraded` (frames late or lost) or `alone`; "
    "none without the setting `share`.",
    "`alone`: the store is away, and the log says why; each replica decides by what it sees "
    "itself. `degraded` for long: the store or a replica is short of CPU.",
)
SHARE_PEERS = gauge(
    "lodestar_share_peers",
    POOL,
    "Other replicas that this one hears of.",
    "Fewer than there are: that replica is stopped, cut off, or shares by another prefix.",
)
FRAMES = counter(
    "lodestar_share_frames_total",
    ("pool", "result"),
    "Frames `sent` to other replicas, `received` from them, `lost` on the way or `unreadable`.",
    "`lost`: the store drops what we are too slow for; what was in it is asked for again. "
    "`unreadable`: a later version, or something else, writes to these channels.",
)
SHARE_STATES = ("shared", "degraded", "alone")
