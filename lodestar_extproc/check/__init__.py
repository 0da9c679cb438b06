"""The doctor: known traps in an Envoy configuration, and their cures."""

from lodestar_extproc.check.doctor import check, check_running
from lodestar_extproc.check.envoy_binary import find_envoy
from lodestar_extproc.check.finding import Fault, Finding, Patch, Report, Unseen

__all__ = [
    "Fault",
    "Finding",
    "Patch",
    "Report",
    "Unseen",
    "check",
    "check_running",
    "find_envoy",
]
