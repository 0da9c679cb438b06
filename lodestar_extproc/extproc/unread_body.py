"""UnreadBody: a long body that is to be read before its request is looked at."""

from __future__ import annotations

from lodestar_extproc.extproc.body_reading import InvalidRequest, OverBudget, reading
from lodestar_extproc.extproc.reader_frames import Reading
from lodestar_extproc.extproc.work_in_steps import Steps
from lodestar_extproc.request import RequestKind


class UnreadBody:
    """One body, and what it turned out to say.

    Attributes:
        content: empty once it is read.
        says: None until it is read.
    """

    def __init__(self, content: bytes, kind: RequestKind) -> None:
        self.content = content
        self.kind = kind
        self.says: Reading | None = None

    def settle(self, says: Reading) -> None:
        """This is what it says."""
        self.content, self.says = b"", says

    def steps(self) -> Steps:
        """Read it, in steps of at most some milliseconds."""
        try:
            says: Reading = yield from reading(self.content, self.kind)
        except (InvalidRequest, OverBudget) as error:
            says = error
        self.settle(says)
