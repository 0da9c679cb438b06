"""IncomingRequest: what has come of one request so far, and what it asks for.

It knows events and settings; neither who will serve the request, nor how Envoy is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from lodestar_extproc.config.settings import PoolSettings
from lodestar_extproc.extproc import body, conformance, paths
from lodestar_extproc.extproc.body_reading import InvalidRequest, OverBudget, ParsedBody
from lodestar_extproc.extproc.budget import Limit
from lodestar_extproc.extproc.events import (
    Content,
    Event,
    MessageKind,
    RequestBody,
    RequestEvent,
    RequestHeaders,
)
from lodestar_extproc.extproc.held_body import HeldBody
from lodestar_extproc.extproc.model_name import renamed
from lodestar_extproc.extproc.pools import PoolRouter
from lodestar_extproc.extproc.scheduling_hints import scheduling_hints
from lodestar_extproc.extproc.unread_body import UnreadBody
from lodestar_extproc.names import (
    CONTENT_LENGTH,
    METHOD,
    PATH,
    REQUEST_ID,
)
from lodestar_extproc.request import InferenceRequest, RequestKind, Subset
from lodestar_extproc.routing.look_ups import Lookup
from lodestar_extproc.routing.routers import UnknownPool

LARGE_BYTES = 2 * 2**10
"""A body from here on is read before it is its turn, in steps; a shorter one at once: within 3 ms
if it is all punctuation, else in a tenth of one."""
_ENDS = (MessageKind.REQUEST_END, MessageKind.REQUEST_WITHOUT_BODY)


OwnPaths = Callable[[], tuple[str, ...]]
"""Tells the paths that the request's pool names."""


class IncomingRequest:
    """One request, put together from its parts.

    Args:
        pool_of: finds its pool's router; errors as of `Overrides.find`.

    Attributes:
        is_complete: its last part has come.
        over_budget: what its body was beyond, where that was read no further.
    """

    def __init__(self, pool_of: Callable[[], tuple[PoolRouter, object]]) -> None:
        self._pool_of = pool_of
        self.is_complete = False
        self.over_budget: Limit | None = None
        self.held = HeldBody()
        self._held_ahead: Event | None = None
        self._kind = RequestKind.UNKNOWN
        self._unread: UnreadBody | None = None
        self._knows_path = False
        self._headers: Mapping[str, str] = {}
        self._subset: Subset | None = None

    def note(self, event: RequestEvent) -> bool:
        """Remember how far the request has come, and nothing of what *event* brings.

        Returns whether it had come to its end before.
        """
        was_complete = self.is_complete
        self.is_complete = was_complete or event.kind in _ENDS
        return was_complete

    def take(self, event: RequestEvent) -> None:
        """Keep what *event* brings; a later subset replaces an earlier one."""
        self.note(event)
        if event.subset is not None:
            self._subset = event.subset
        if event is self._held_ahead:
            self._held_ahead = None
        elif isinstance(event, RequestBody):
            self.held.add(event.body)
        elif isinstance(event, RequestHeaders):
            self._headers = event.headers
            self._find_kind(())

    def _find_kind(self, more: Iterable[str]) -> None:
        kind = paths.kind_of(self._headers.get(METHOD, ""), self._path, more)
        self._knows_path = kind is not None
        self._kind = kind or RequestKind.UNKNOWN

    @property
    def _path(self) -> str:
        return self._headers.get(PATH, "")

    def _know(self, own_paths: OwnPaths) -> None:
        """Take paths that the pool names for inference too."""
        if self._headers and not self._knows_path and (more := own_paths()):
            self._find_kind(more)

    def may_be_load(self, own_paths: OwnPaths) -> bool:
        """Whether it calls an inference API, or may have a long body for what nobody knows."""
        self._know(own_paths)
        n_bytes = self.announced_bytes if CONTENT_LENGTH in self._headers else None
        method = self._headers.get(METHOD, "")
        return self._knows_path or paths.may_be_heavy(method, self._path, n_bytes)

    def is_light(self, n_bytes: int, own_paths: OwnPaths) -> bool:
        """Whether it calls nothing known, and a body of *n_bytes* is no load either."""
        self._know(own_paths)
        method = self._headers.get(METHOD, "")
        heavy = self._knows_path or paths.may_be_heavy(method, self._path, n_bytes)
        return bool(self._headers) and not heavy

    @property
    def is_about_kept(self) -> bool:
        """Whether it is no inference, and for what an engine keeps or is to keep."""
        makes = paths.makes_kept(self._headers.get(METHOD, ""), self._path)
        return not self._knows_path and bool(makes or paths.kept_name(self._path))

    def is_owed(self, event: Event) -> bool:
        """Whether it may be told in a moment who keeps what *event*, its headers, is for."""
        if not isinstance(event, RequestHeaders):
            return False
        path, method = event.headers.get(PATH, ""), event.headers.get(METHOD, "")
        name = paths.kept_name(path)
        if not name or paths.kind_of(method, path) is not None:
            return False
        router = self._known_pool()
        return router is not None and router.awaited.is_owed(name)

    def _known_pool(self) -> PoolRouter | None:
        """The pool that it is for; None where that is not known."""
        try:
            router, _ = self._pool_of()
        except (UnknownPool, ValueError):
            return None
        return router

    def look_up(self, at_s: float) -> Lookup | None:
        """Where to go for that; None where it is for nothing such, or its pool is not known."""
        router = self._known_pool() if self.is_about_kept else None
        if router is None:
            return None
        return router.look_up(paths.kept_name(self._path), at_s, self.subset(router.settings))

    @property
    def request_id(self) -> str:
        """Envoy's id of the request; empty where it sent none."""
        return self._headers.get(REQUEST_ID, "")

    @property
    def announced_bytes(self) -> int:
        """The body's length that the headers tell; 0 where they tell none."""
        length = self._headers.get(CONTENT_LENGTH, "")
        return int(length) if length.isdecimal() and len(length) < 16 else 0

    def content(self) -> Content:
        """The body, as it came."""
        return self.held.content()

    def subset(self, settings: PoolSettings) -> Subset | None:
        """The endpoints it may go to; None for all."""
        wanted = conformance.selected(self._headers) if settings.conformance_headers else None
        return self._subset if wanted is None else wanted

    def unread(self, event: Event, own_paths: OwnPaths) -> UnreadBody | None:
        """A long body, of which *event* is the last part, to be read before that is taken.

        That part is held from now on. None where the body is short, or is not to be read.
        """
        self._know(own_paths)
        if not self._is_to_be_read:
            return None
        last = event.body if isinstance(event, RequestBody) else b""
        if self.held.n_bytes + len(last) < LARGE_BYTES:
            return None
        if last and event is not self._held_ahead:
            self.held.add(last)
            self._held_ahead = event
        self._unread = UnreadBody(self.held.content(), self._kind)
        return self._unread

    @property
    def _is_to_be_read(self) -> bool:
        """Its API is known; or no path is, and its body tells by its shape."""
        return self._kind is not RequestKind.UNKNOWN or not self._path

    def read(
        self, content: Content | None, n_bytes: int, router: PoolRouter, *, may_rename: bool
    ) -> tuple[InferenceRequest, Content | None]:
        """Read the request for routing; and *content* as the engine is to get it.

        The request is known by its size alone where *content* is None, no inference, or takes too
        much to be read.

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

        parsed = None if content is None else self._parse(content, strict=settings.strict)
        if content is None or parsed is None:
            return body.unparsed(n_bytes, router.bytes_per_token(""), hints), content
        request = body.request_of(
            parsed,
            self._kind,
            router.bytes_per_token,
            hints,
            target_of,
            router.tokens_per_medium,
            router.only_model,
        )
        if request.named_model is None:
            return request, content
        text = bytes(content)
        wanted = renamed(text, request.model)
        return request, content if wanted is text else wanted

    def _parse(self, content: Content, *, strict: bool) -> ParsedBody | None:
        """What *content* says; None where that is not known."""
        if not self._is_to_be_read:
            return None
        unread, self._unread = self._unread or UnreadBody(content, self._kind), None
        says = unread.read()
        if isinstance(says, InvalidRequest):
            if strict:
                raise InvalidRequest(str(says))
            return None
        if isinstance(says, OverBudget):
            self.over_budget = says.limit
            return None
        return says if says.model else says._replace(model=paths.model_in(self._path))
