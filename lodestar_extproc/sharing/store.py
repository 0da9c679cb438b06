"""Store: a connection to Redis or Valkey, of which publishing and subscribing is all that is used.

Nothing is kept there, so a store that is flushed, full or restarted loses nothing. Its client is
imported when a store is opened, for it is an extra.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any, Protocol, Self

from lodestar_extproc.config.share import ShareTarget

TIMEOUT_S = 1.0
"""For each answer of the store: it takes a millisecond, so one that takes this long is away."""
USERNAME_VARIABLE = "LODESTAR_SHARE_USERNAME"
PASSWORD_VARIABLE = "LODESTAR_SHARE_PASSWORD"  # noqa: S105  (a name)
"""Environment in place of what the URL says: files of Envoy's are no place for a password."""


class StoreError(Exception):
    """The store is away, or refuses us."""


class FrameStore(Protocol):
    """What frames travel through; `async with` opens and closes it.

    All of it raises StoreError where that fails.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    def end(self) -> None:
        """Refuse from now on."""

    async def publish(self, data: bytes) -> None:
        """Tell all who listen, ourselves too."""

    async def next(self, timeout_s: float) -> bytes | None:
        """What somebody published; None where nobody did in that time."""


class Store:
    """One connection to publish by and one to listen on; `async with` closes both.

    Args:
        attempt: the how manieth; where several hosts are named, each has its turn.
    """

    def __init__(self, target: ShareTarget, channel: str, attempt: int = 0) -> None:
        self._channel = channel
        self._is_over = False
        self._client, self._beside = _clients(target, attempt)
        self._heard = self._client.pubsub(ignore_subscribe_messages=True)

    async def __aenter__(self) -> Self:
        try:
            await _answer(self._heard.subscribe(self._channel))
        except BaseException:  # a cancellation too
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for connected in (self._heard, self._client, *self._beside):
            # What is broken need not be closed in good order.
            with suppress(StoreError):
                await _answer(connected.aclose())

    def end(self) -> None:
        """Refuse from now on: a client that reconnects may swallow a cancellation, and go on."""
        self._is_over = True

    async def publish(self, data: bytes) -> None:
        """See `FrameStore`."""
        self._refuse_if_over()
        await _answer(self._client.publish(self._channel, data))

    async def next(self, timeout_s: float) -> bytes | None:
        """See `FrameStore`."""
        self._refuse_if_over()
        message = await _answer(self._heard.get_message(timeout=timeout_s))
        if message is None or message.get("type") != "message":
            return None
        data = message["data"]
        return data if isinstance(data, bytes) else None

    def _refuse_if_over(self) -> None:
        if self._is_over:
            raise StoreError("closed")


async def _answer(asked: Any) -> Any:
    """What the client says, or the one error that is ours.

    Raises:
        StoreError: it failed, in whatever way.
    """
    from redis.exceptions import RedisError  # noqa: PLC0415  (an extra)

    try:
        return await asked
    except (RedisError, OSError, EOFError) as error:
        raise StoreError(f"{type(error).__name__}: {error}") from error


def _clients(target: ShareTarget, attempt: int) -> tuple[Any, list[Any]]:
    """The store's, and those of whom it was asked for."""
    from redis.asyncio import Redis  # noqa: PLC0415  (an extra)
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.asyncio.sentinel import Sentinel  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415

    options: dict[str, Any] = {
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        # What is late is of no use: the next frame says more.
        "retry": Retry(NoBackoff(), 0),
    }
    if target.tls:
        options |= {"ssl": True, "ssl_ca_certs": target.ca or None}
        options |= {"ssl_certfile": target.cert or None, "ssl_keyfile": target.key or None}
    login = {
        "username": os.environ.get(USERNAME_VARIABLE) or target.username or None,
        "password": os.environ.get(PASSWORD_VARIABLE) or target.password or None,
        "db": target.db,
    }
    if target.socket:
        return Redis(unix_socket_path=target.socket, **options, **login), []
    if target.master:
        sentinel = Sentinel(target.hosts, sentinel_kwargs=options, **options, **login)
        return sentinel.master_for(target.master), sentinel.sentinels
    # Of a cluster any node will do: what is published at one is heard at all.
    host, port = target.hosts[attempt % len(target.hosts)]
    return Redis(host=host, port=port, **options, **login), []
