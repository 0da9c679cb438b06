"""Terminal: what people are shown, none of which commands their terminal.

Names of models, engines and files, and whatever stands in an Envoy's configuration, are text of
others; on the way to a terminal or a log it is escaped here, once for all who print.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from lodestar_extproc.printable import printable_lines


class Terminal(Console):
    """A rich console whose own colours are its only escape sequences."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """See rich: what is to be written, piece by piece."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable_lines(segment.text), segment.style)
