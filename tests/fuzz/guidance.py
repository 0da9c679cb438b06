"""GUIDED_BY: whose branches guide the fuzzing of each target.

Code that counts its branches takes several times as long, so only what reads the bytes does; what
lies behind, as the router behind the messages, is checked just the same.
"""

GUIDED_BY = {
    "wire": ("lodestar_extproc.extproc",),
    "bodies": ("lodestar_extproc.extproc", "lodestar_extproc.request"),
    "answers": ("lodestar_extproc.extproc",),
    "access_log": ("lodestar_extproc.extproc",),
    "metric_page": ("lodestar_extproc.fleet",),
    "envoy_config": ("lodestar_extproc.config",),
    "checkpoint": ("lodestar_extproc.learning",),
    "journal": ("lodestar_extproc.evaluation", "lodestar_extproc.journal"),
    "frames": ("lodestar_extproc.sharing",),
    "http2": ("lodestar_extproc.transport",),
}
