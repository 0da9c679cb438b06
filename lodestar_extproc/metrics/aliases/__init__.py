"""The names other endpoint pickers give the same facts, for boards and autoscalers made for them.

names.py      which facts, and under which names
requests.py   what is counted request by request
pools.py      what is read of the pools when the page is asked for
"""

from lodestar_extproc.metrics.aliases.pools import PoolAliases
from lodestar_extproc.metrics.aliases.requests import RequestAliases

__all__ = ["PoolAliases", "RequestAliases"]
