"""IncomingRequest: what has come of one request so far, and what it asks for.

It knows events and settings; neither who will serve the request, nor how Envoy is answered.
"""

from __future__ import annotations

from collections.abc import Mapping

from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.extproc import body, conformance
from lodestar_extproc.extproc.events import (
    MessageKind,
    RequestBody,
    RequestEvent,
    RequestHeaders,
)
from lodestar_extproc.extproc.held_body import HeldBody
from lodestar_extproc.extproc.model_name import renamed
from lodestar_extproc.extproc.pools import PoolRouter
from lodestar_extproc.extproc.scheduling_hints import scheduling_hints
from lodestar_extproc.names import (
    CONTENT_LENGTH,
    METHOD,
    PATH,
    REQUEST_ID,
)
from lodestar_extproc.request import InferenceRequest, RequestKind, Subset

_ENDS = (MessageKind.REQUEST_END, MessageKind.REQUEST_WITHOUT_BODY)


class IncomingRequest:
    """One request, put together from its parts.

    Attributes:
        is_complete: its last part has come.
    """

    def __init__(self) -> None:
        self.is_complete = False
        self.held = HeldBody()
        self._kind = RequestKind.UNKNOWN
        self._headers: Mapping[str, str] = {}
        self._subset: Subset | None = None

    def note(self, event: RequestEvent) -> None:
        """Remember how far the request has come, and nothing of what *event* brings."""
        self.is_complete = self.is_complete or event.kind in _ENDS

    def take(self, event: RequestEvent) -> None:
        """Keep what *event* brings; a later subset replaces an earlier one."""
        self.note(event)
        if event.subset is not None:
            self._subset = event.subset
        if isinstance(event, RequestBody):
            self.held.add(event.body)
        elif isinstance(event, RequestHeaders):
            headers = event.headers
            kind = body.kind_of(headers.get(METHOD, ""), headers.get(PATH, ""))
            self._kind, self._headers = kind or RequestKind.UNKNOWN, headers

    @property
    def is_inference(self) -> bool:
        """Whether its method and path call an inference API."""
        return self._kind is not RequestKind.UNKNOWN

    @property
    def request_id(self) -> str:
        """Envoy's id of the request; empty where it sent none."""
        return self._headers.get(REQUEST_ID, "")

    @property
    def announced_bytes(self) -> int:
        """The body's length that the headers tell; 0 where they tell none."""
        length = self._headers.get(CONTENT_LENGTH, "")
        return int(length) if length.isdecimal() and len(length) < 16 else 0

    def content(self) -> bytes:
        """The body, as it came."""
        return self.held.content()

    def subset(self, settings: PoolSettings) -> Subset | None:
        """The endpoints it may go to; None for all."""
        wanted = conformance.selected(self._headers) if settings.conformance_headers else None
        return self._subset if wanted is None else wanted

    def read(
        self, content: bytes | None, n_bytes: int, router: PoolRouter, *, may_rename: bool
    ) -> tuple[InferenceRequest, bytes | None]:
        """Read the request for routing; and *content* as the engine is to get it.

        The request is known by its size alone where *content* is None or no inference.

        Args:
            may_rename: its body can still be changed, to ask for another model.

        Raises:
            InvalidRequest: *content* is no inference, and the pool is strict.
        """
        settings = router.settings
        hints = scheduling_hints(self._headers, settings)

        def target_of(named: str) -> str:
            if not may_rename:
                return named
            return hints.target_model or router.draw_target_model(named)

        if content is not None:
            try:
                request = body.parse(content, self._kind, router.bytes_per_token, hints, target_of)
            except body.InvalidRequest:
                if settings.strict:
                    raise
            else:
                changed = request.named_model is not None
                return request, renamed(content, request.model) if changed else content
        return body.unparsed(n_bytes, router.bytes_per_token(""), hints), content
