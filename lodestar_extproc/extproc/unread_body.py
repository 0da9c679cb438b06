"""UnreadBody: a body that is still to be read, and what it turns out to say."""

from __future__ import annotations

from lodestar_extproc.extproc.body_reading import InvalidRequest, OverBudget, reading
from lodestar_extproc.extproc.events import Content
from lodestar_extproc.extproc.reader_frames import Reading
from lodestar_extproc.extproc.work_in_steps import Steps
from lodestar_extproc.request import RequestKind


class UnreadBody:
    """One body, and what it turned out to say.

    Attributes:
        content: empty once it is read.
        says: None until it is read.
    """

    def __init__(self, content: Content, kind: RequestKind) -> None:
        self.content = content
        self.kind = kind
        self.says: Reading | None = None

    def settle(self, says: Reading) -> None:
        """This is what it says."""
        self.content, self.says = b"", says

    def steps(self) -> Steps:
        """Read it, in steps of at most some milliseconds."""
        try:
            says: Reading = yield from reading(bytes(self.content), self.kind)
        # What was raised holds by its traceback all that was being read, and would hold itself.
        except InvalidRequest as error:
            says = InvalidRequest(str(error))
        except OverBudget as error:
            says = OverBudget(error.limit)
        self.settle(says)

    def read(self) -> Reading:
        """Read it in one go, unless it was read."""
        if self.says is None:
            for _ in self.steps():
                pass
        assert self.says is not None
        return self.says
