"""IncomingRequest: what has come of one request so far, and what it asks for.

It knows events and settings; neither who will serve the request, nor how Envoy is answered.
"""

from __future__ import annotations

from collections.abc import Mapping

from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.extproc import body, conformance
from lodestar_extproc.extproc.events import Event, RequestBody, RequestEvent, RequestHeaders
from lodestar_extproc.extproc.held_body import HeldBody
from lodestar_extproc.extproc.names import (
    CONTENT_LENGTH,
    METHOD,
    OBJECTIVE_HEADERS,
    PATH,
    REQUEST_ID,
)
from lodestar_extproc.extproc.pools import PoolRouter
from lodestar_extproc.request import InferenceRequest, RequestKind
from lodestar_extproc.subset import Subset


class IncomingRequest:
    """One request, put together from its parts."""

    def __init__(self) -> None:
        self.held = HeldBody()
        self._kind = RequestKind.UNKNOWN
        self._headers: Mapping[str, str] = {}
        self._subset: Subset | None = None

    def take(self, event: Event) -> None:
        """Keep what *event* brings; of several subsets the last counts."""
        if isinstance(event, RequestEvent) and event.subset is not None:
            self._subset = event.subset
        if isinstance(event, RequestBody):
            self.held.add(event.body)
        elif isinstance(event, RequestHeaders):
            headers = event.headers
            kind = body.kind_of(headers.get(METHOD, ""), headers.get(PATH, ""))
            self._kind, self._headers = kind or RequestKind.UNKNOWN, headers

    @property
    def is_inference(self) -> bool:
        """By its method and path."""
        return self._kind is not RequestKind.UNKNOWN

    @property
    def request_id(self) -> str:
        """Envoy's; empty where it sent none."""
        return self._headers.get(REQUEST_ID, "")

    @property
    def announced_bytes(self) -> int:
        """The length of its body, as the headers tell; 0 where they do not."""
        length = self._headers.get(CONTENT_LENGTH, "")
        return int(length) if length.isdecimal() and len(length) < 16 else 0

    def content(self) -> bytes:
        """The body, as it came."""
        return self.held.content()

    def content_for_model(self) -> bytes:
        """The body, asking for the model that the headers name, if they name one."""
        return body.for_model(self.held.content(), self._headers)

    def subset(self, settings: PoolSettings) -> Subset | None:
        """The endpoints it may go to; None for all."""
        wanted = conformance.selected(self._headers) if settings.conformance_headers else None
        return self._subset if wanted is None else wanted

    def is_sheddable(self, settings: PoolSettings) -> bool:
        """Whether it may be refused rather than served too late."""
        names = map(self._headers.get, OBJECTIVE_HEADERS)
        return next(filter(None, names), "") in settings.sheddable_objectives

    def read(self, content: bytes | None, n_bytes: int, router: PoolRouter) -> InferenceRequest:
        """What routing needs of it; by its size alone where *content* is None, or no inference.

        Raises:
            InvalidRequest: *content* is no inference, and the pool is strict.
        """
        if content is not None:
            try:
                return body.parse(content, self._kind, router.bytes_per_token, self._headers)
            except body.InvalidRequest:
                if router.settings.strict:
                    raise
        return body.unparsed(n_bytes, router.bytes_per_token(""), self._headers)
