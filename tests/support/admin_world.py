"""A router at work and the real admin server that operators ask about it."""

from __future__ import annotations

from contextlib import asynccontextmanager

from lodestar_extproc.admin.server import AdminServer
from metrics_world import World


@asynccontextmanager
async def an_admin_server(**settings):
    """A world that its admin server at the address given knows of."""
    world = World(**settings)
    server = AdminServer(world.metrics, lambda: [world.view()], clock=lambda: world.now_s)
    world.router.listeners.add(server.decisions)
    port = await server.start("127.0.0.1:0")
    try:
        yield world, f"127.0.0.1:{port}"
    finally:
        await server.stop()
