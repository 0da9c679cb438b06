"""What is counted of ext_proc streams, the access log and the process."""

from lodestar_extproc.metrics.metric import SHORT_SECONDS, counter, gauge, histogram

STREAMS = counter(
    "lodestar_streams_total",
    ("verdict",),
    "ext_proc streams that ended, by what became of them.",
    "`bad_route`: a route names a pool or policy that does not exist. `no_endpoint`: a pool is "
    "empty. `cut`: Envoy gave up first.",
)
OPEN_STREAMS = gauge(
    "lodestar_open_streams",
    (),
    "ext_proc streams open now.",
    "Growing without end: answers are observed to their end, or clients hang.",
)
MESSAGES = counter(
    "lodestar_messages_total",
    ("phase",),
    "ext_proc messages received.",
    "Many `response_body`: the observing filter's streams are not ended early.",
)
REPEATED_MESSAGES = counter(
    "lodestar_repeated_messages_total",
    (),
    "ext_proc messages of a request that had already ended; they are ignored.",
    "Envoy 1.35 to 1.37 repeats the last part of a large body in full duplex (envoy#46237); "
    "no request suffers.",
)
BODIES_OVER_BUDGET = counter(
    "lodestar_bodies_over_budget_total",
    ("limit",),
    "Bodies that would take too much to read, by what was too much: `items`, `bytes`, `nesting`, "
    "`time`, or the reader `process`, which ended over it. The fallback decides on their requests, "
    "by size.",
    "A few are hostile or odd clients. Many of `time`: the process is short of CPU. `process`: "
    "short of memory, or a fault of ours; please report it.",
)
STREAM_FAILURES = counter(
    "lodestar_stream_failures_total",
    ("reason",),
    "Streams that we ended in error: `protocol`, Envoy's messages made no sense; `internal`, ours.",
    "`protocol`: run `lodestar-extproc check`. `internal`: report the logged error.",
)
LOG_ENTRIES = counter(
    "lodestar_log_entries_total",
    ("outcome",),
    "Entries of Envoy's access log; `useless` ones belong to no request that we could know, "
    "`unreadable` ones are no entry at all.",
    "None under load: the access log is not configured, so ends are not seen. `unreadable`: "
    "something else than Envoy writes to this port, or another version than ours reads.",
)

LOOP_LAG = histogram(
    "lodestar_event_loop_lag_seconds",
    (),
    "How late a timer of the event loop fires.",
    "Every request waits as long: above 10 ms the process is short of CPU.",
    SHORT_SECONDS,
)
TASK_FAILURES = counter(
    "lodestar_task_failures_total",
    ("task",),
    "Failures that should not happen of what goes on beside the requests; the task goes on.",
    "Requests are served on, by what is known. Report the logged error.",
)
RELOAD_RESULTS = ("applied", "refused", "needs_restart")
CONFIG_RELOADS = counter(
    "lodestar_config_reloads_total",
    ("result",),
    "Changes of the configuration: `applied`, `refused`, or `needs_restart`; a change of which a "
    "part needs a restart counts twice.",
    "`refused`: the old settings stay; the log says what is wrong. `needs_restart`: the log says "
    "what was not applied.",
)
JOURNAL_ENTRIES = counter(
    "lodestar_journal_entries_total",
    ("result",),
    "Ended requests that were `written` to the journal or `dropped`; none without `journal_path`.",
    "`dropped`: its disk is full or slow; the log says which. Requests are not held up.",
)
BUILD_INFO = gauge(
    "lodestar_build_info",
    ("version", "kernel"),
    "1; decisions are computed by the `compiled` kernel, or `plain`.",
    "Tells replicas' versions apart. `plain` decides alike and takes longer; the log says why.",
)
