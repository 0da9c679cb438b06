"""The demo's parts, without the warnings that loading Envoy's message types gives."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from lodestar_extproc.demo import bootstrap, compare, screen, spoken, stack

__all__ = ["bootstrap", "compare", "screen", "spoken", "stack"]
