"""The doctor: known traps in an Envoy configuration, and their cures."""

from lodestar_extproc.check.doctor import check
from lodestar_extproc.check.envoy_binary import find_envoy
from lodestar_extproc.check.finding import Fault, Finding, Patch, Report

__all__ = ["Fault", "Finding", "Patch", "Report", "check", "find_envoy"]
