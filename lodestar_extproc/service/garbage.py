"""settle_garbage(): what lives as long as the process is no work for the garbage collector."""

from __future__ import annotations

import gc

_YOUNG, _YOUNG_TIMES, _MIDDLE_TIMES = 10_000, 20, 3
"""When it looks: at the youngest once there are so many more of them, and how often that is done
before the next older are looked at too. Each call of grpcio leaves a ring of seven objects, a KiB
with what they hold: 1 to 2 MiB of that wait, and a look takes about a millisecond. Calls that are
open meanwhile grow old by it, and their rings wait until all is looked at: after the third time,
and once a quarter of all has come since the last. A judgement."""


def settle_garbage() -> None:
    """What lives as long as the process need not be looked at again and again."""
    gc.collect()
    gc.freeze()
    # All that is not frozen is looked at when it has grown by a quarter of what there was last
    # time: now it is none of what was frozen.
    gc.collect()
    gc.set_threshold(_YOUNG, _YOUNG_TIMES, _MIDDLE_TIMES)
