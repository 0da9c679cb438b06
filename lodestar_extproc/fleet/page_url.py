"""PageUrl: by which URL an engine's metric page is asked for: whole, or what is read of it alone.

A vLLM server takes 4 ms and more of its event loop to write all of its page, and a tenth of that
for the dozen metrics that are read. It neither waits nor asks: it says what to ask for, and is told
what came of it.
"""

from __future__ import annotations

import math
from urllib.parse import quote

from lodestar_extproc.fleet.engine_metrics import names_read

WORTH_BYTES = 8 * 1024
"""Of a whole page: a shorter one costs hardly more than a part of it."""
RETRY_S = 60.0
"""An engine that gives no parts is asked for them again so often: it may have been replaced."""


class PageUrl:
    """How one engine's page is asked for.

    prometheus_client, which most engines write their pages with, gives the metrics that `name[]`
    names and no others. vLLM up to 0.24 reads it where the path ends in a slash
    (vllm-project/vllm#53140), and no engine does whose processes gather their metrics in files. So
    both ways are tried, and a part is believed while it has every name that the whole page had.

    Args:
        whole: the page's own URL. One with a `?` is asked for as it is, and nothing else.
        engine: whose names the page uses.
    """

    def __init__(self, whole: str, engine: str) -> None:
        self.whole = whole
        self._engine = engine
        self._parts = _parts(whole, engine)
        self._tried = 0
        self._names: frozenset[bytes] = frozenset()
        self._n_bytes = 0
        self._whole_until_s = -math.inf

    def serves(self, whole: str, engine: str) -> bool:
        """Whether it was made for the same."""
        return (self.whole, self._engine) == (whole, engine)

    def part(self, now_s: float) -> str | None:
        """Where a part is to be asked for that says as much; None for the whole page."""
        if now_s < self._whole_until_s or self._n_bytes < WORTH_BYTES or not self._names:
            return None
        return self._parts[self._tried] if self._parts else None

    def suffices(self, names: frozenset[bytes], n_bytes: int) -> bool:
        """Whether a part says what the whole page did, in less than half as many bytes.

        Args:
            names: those on it that are read.
        """
        return names >= self._names and 2 * n_bytes < self._n_bytes

    def saw_whole(self, names: frozenset[bytes], n_bytes: int) -> None:
        """The whole page came."""
        self._names, self._n_bytes = names, n_bytes

    def refuse(self, now_s: float, *, was_silent: bool = False) -> None:
        """The part does not suffice: the next way is tried, and after the last none for a while.

        Args:
            was_silent: nothing came, which a second way shall not repeat at once.
        """
        self._tried = (self._tried + 1) % len(self._parts)
        if was_silent or self._tried == 0:
            self._whole_until_s = now_s + RETRY_S


def _parts(whole: str, engine: str) -> tuple[str, ...]:
    """The same page's URLs with the names that are read; none where *whole* has a query."""
    names = sorted(names_read(engine))
    if not names or "?" in whole or "#" in whole:
        return ()
    query = "&".join(f"name%5B%5D={quote(name.decode(), safe=':')}" for name in names)
    if whole.endswith("/"):
        return (f"{whole}?{query}",)
    return (f"{whole}?{query}", f"{whole}/?{query}")
