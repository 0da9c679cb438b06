"""AdminServer: HTTP for operators: metrics, readiness, the fleet, decisions explained, a page.

It only reads: nothing here changes what the service does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from importlib import resources
from itertools import chain
from types import MappingProxyType
from typing import Any

import orjson
from aiohttp import web

from lodestar_extproc import __version__
from lodestar_extproc.admin.access import ANYBODY, AdminAccess
from lodestar_extproc.admin.decision_log import CAPACITY, DecisionLog
from lodestar_extproc.admin.history import PoolHistory
from lodestar_extproc.admin.pages import FORM, PagesInTurn, listed, with_list
from lodestar_extproc.admin.pool_json import endpoints_json, gain_json, pool_json
from lodestar_extproc.events.endpoint_changes import whole_outage
from lodestar_extproc.events.event_log import CAPACITY as EVENTS_KEPT
from lodestar_extproc.events.event_log import EventLog
from lodestar_extproc.gain.compared import Gain
from lodestar_extproc.metrics import Metrics
from lodestar_extproc.routing.pool_view import PoolView
from lodestar_extproc.server_tls import ssl_context

DEFAULT_LIMIT = 50
"""Decisions that `/decisions` shows when no limit is asked for. A judgement: a screen or two."""
_HEADERS = MappingProxyType(
    {
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        # The page brings its own style and script and asks nobody but us.
        "Content-Security-Policy": "default-src 'none'; style-src 'self' 'unsafe-inline'; "
        "script-src 'self' 'unsafe-inline'; connect-src 'self'; img-src data:",
    }
)

_FILES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "/": ("dashboard.html", "text/html"),
        "/uplot.js": ("vendored/uplot.js", "text/javascript"),
        "/uplot.css": ("vendored/uplot.css", "text/css"),
        "/charts.js": ("charts.js", "text/javascript"),
    }
)
"""What the page is made of: file and kind, by path."""


class ServingState(StrEnum):
    """Whether the process takes requests yet, or still."""

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"


class AdminServer:
    """Serves operators on one address.

    Args:
        metrics: what `/metrics` shows.
        pools: the pools as they are now.
        events: what `/events` shows.
        gains: by pool, what `/gain` shows.
        clock: monotonic seconds, the routers'.

    Attributes:
        decisions: to be told by the routers what they decide.
        histories: by pool, to be told the same.
        address: `host:port` it listens on, once it does.
    """

    def __init__(
        self,
        metrics: Metrics,
        pools: Callable[[], Sequence[PoolView]],
        events: EventLog | None = None,
        gains: Callable[[], Mapping[str, Sequence[Gain]]] = dict,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.decisions = DecisionLog()
        self.histories: dict[str, PoolHistory] = {}
        self._began_at_s = clock()
        self.address = ""
        self._metrics = metrics
        self._pools = pools
        self._gains = gains
        self._events = EventLog() if events is None else events
        self._clock = clock
        self._phase = ServingState.STARTING
        self._files = {
            path: resources.files(__package__).joinpath(name).read_bytes()
            for path, (name, _) in _FILES.items()
        }
        self._pages = PagesInTurn()
        self._runner: web.AppRunner | None = None

    async def start(self, address: str, access: AdminAccess = ANYBODY) -> int:
        """Listen on `host:port`; the port bound, for port 0 the one given.

        Raises:
            OSError: the address cannot be bound.
            ValueError: it is no address, or there is no certificate or no token.
        """
        access.check()
        encrypted = None if access.tls is None else ssl_context(access.tls)
        host, _, port = address.rpartition(":")
        self._runner = web.AppRunner(self._app(access), access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(
            self._runner, host.strip("[]") or None, int(port), ssl_context=encrypted
        ).start()
        bound = int(self._runner.addresses[0][1])
        self.address = f"{host}:{bound}"
        return bound

    async def stop(self) -> None:
        """Stop listening. Idempotent."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def set_ready(self, *, ready: bool) -> None:
        """Set what `/ready` says: not ready at first, and draining once it has been ready."""
        if ready:
            self._phase = ServingState.SERVING
        elif self._phase is ServingState.SERVING:
            self._phase = ServingState.DRAINING

    def _app(self, access: AdminAccess) -> web.Application:
        app = web.Application(middlewares=[access.middleware])
        app.add_routes(
            [
                *(web.get(path, self._show_file) for path in _FILES),
                web.get("/history", self._show_history),
                web.get("/metrics", self._show_metrics),
                web.get("/healthz", self._show_alive),
                web.get("/ready", self._show_ready),
                web.get("/endpoints", self._show_endpoints),
                web.get("/decisions", self._show_decisions),
                web.get("/events", self._show_events),
                web.get("/gain", self._show_gains),
                web.get("/explain/{id}", self._show_explanation),
            ]
        )
        return app

    async def _show_file(self, request: web.Request) -> web.Response:
        kind = _FILES[request.path][1]
        return web.Response(
            body=self._files[request.path], content_type=kind, charset="utf-8", headers=_HEADERS
        )

    async def _show_history(self, _request: web.Request) -> web.Response:
        minutes = {pool: history.minutes() for pool, history in self.histories.items()}
        return _json({"history": minutes})

    async def _show_metrics(self, request: web.Request) -> web.Response:
        content_type, pieces = self._metrics.pieces(request.headers.get("Accept", ""))
        page = await self._pages.whole(pieces)
        return web.Response(body=page, headers={"Content-Type": content_type})

    async def _show_alive(self, _request: web.Request) -> web.Response:
        return _json({"alive": True})

    async def _show_ready(self, _request: web.Request) -> web.Response:
        reasons = [] if self._phase is ServingState.SERVING else [str(self._phase)]
        pools = self._pools()
        reasons += [f"pool {p.pool} has no endpoint" for p in pools if not p.states]
        # Requests are answered all the same, and may well be served: what is wrong may be how
        # health is asked. So that is told, and takes nobody out.
        told = [*reasons, *filter(None, map(whole_outage, pools))]
        return _json({"ready": not reasons, "reasons": told}, 503 if reasons else 200)

    async def _show_endpoints(self, _request: web.Request) -> web.Response:
        about = {
            "phase": self._phase,
            "version": __version__,
            "uptime_s": self._clock() - self._began_at_s,
        }
        pools = (with_list(pool_json(p), "endpoints", endpoints_json(p)) for p in self._pools())
        head = orjson.dumps(about)[:-1] + b',"pools":'
        return _as_json(await self._pages.whole(chain([head], listed(pools), [b"}\n"])))

    async def _show_decisions(self, request: web.Request) -> web.Response:
        limit = _number(request, "limit", DEFAULT_LIMIT)
        if limit is None:
            return _no_number("limit", request, CAPACITY)
        pieces = with_list({}, "decisions", self.decisions.last(limit, self._clock()))
        return _as_json(await self._pages.whole(chain(pieces, [b"\n"])))

    async def _show_events(self, request: web.Request) -> web.Response:
        limit, since = _number(request, "limit", DEFAULT_LIMIT), _number(request, "since", 0)
        if limit is None or since is None:
            name = "limit" if limit is None else "since"
            return _no_number(name, request, EVENTS_KEPT)
        return _json({"events": [event.as_json() for event in self._events.last(limit, since)]})

    async def _show_gains(self, _request: web.Request) -> web.Response:
        gains = {pool: list(map(gain_json, each)) for pool, each in self._gains().items()}
        return _json({"gains": gains})

    async def _show_explanation(self, request: web.Request) -> web.Response:
        explained = self.decisions.explain(request.match_info["id"], self._clock())
        if explained is None:
            message = f"not among the last {CAPACITY} decisions, by decision id or x-request-id"
            return _json({"error": message}, 404)
        return _json(explained)


def _number(request: web.Request, name: str, default: int) -> int | None:
    """The number asked for by *name*; None where it is none."""
    asked = request.query.get(name, str(default))
    return int(asked) if asked.isascii() and asked.isdigit() and len(asked) <= 9 else None


def _no_number(name: str, request: web.Request, most: int) -> web.Response:
    said = request.query[name][:20]
    return _json({"error": f"{name} is a number from 0 to {most}, not {said}"}, 400)


def _json(value: dict[str, Any], status: int = 200) -> web.Response:
    return _as_json(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE | FORM), status)


def _as_json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json", headers=_HEADERS)
