"""Api: reads and watches objects of a Kubernetes API server, as plain JSON.

The client library brings credentials, TLS and their renewal. Its object models are left out: they
take longer to build than a decision may, on the loop that decides.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import aiohttp
import orjson

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient

Object: TypeAlias = Mapping[str, Any]
"""A Kubernetes object, or the event or list that holds some."""

ANSWER_TIMEOUT_S = 15.0  # a busy API server takes seconds for a page
WATCH_SLACK_S = 15.0
"""A watch that its server has not ended this long after it should have is dead."""
SERVICE_ACCOUNT_HOST = "KUBERNETES_SERVICE_HOST"
_NO_ANSWER = (aiohttp.ClientError, OSError, TimeoutError, ValueError)


class NotConnected(Exception):  # noqa: N818  (the condition's name)
    """There are no credentials for an API server, or no client library."""


class ApiError(Exception):
    """The API server gave no usable answer.

    Attributes:
        status: HTTP's; 0 where there was no answer.
    """

    def __init__(self, problem: str, status: int = 0) -> None:
        super().__init__(problem)
        self.status = status


class Gone(ApiError):  # noqa: N818  (HTTP's own word)
    """The version to go on from is too old: list anew."""


class Api:
    """One API server.

    Args:
        client: of `kubernetes_asyncio`, with its credentials.
        failures: what it raises where they cannot be renewed.
    """

    def __init__(self, client: ApiClient, *failures: type[Exception]) -> None:
        self._client = client
        self._failures: tuple[type[Exception], ...] = (*_NO_ANSWER, *failures)

    async def get(self, path: str, **query: str | int) -> Object:
        """The object or list at *path*.

        Raises:
            Gone: *query* goes on from a version that is too old.
            ApiError: any other answer, or none.
        """
        within = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
        try:
            async with self._ask(path, query, within) as response:
                return _object(await response.read())
        except self._failures as error:
            raise _unanswered(path, error) from error

    async def watch(
        self, path: str, *, wait_s: float, **query: str | int
    ) -> AsyncGenerator[Object, None]:
        """The events at *path* until the server ends the watch, after *wait_s* at the latest.

        Raises:
            Gone: *query* goes on from a version that is too old.
            ApiError: any other answer, none, or a watch that broke.
        """
        query |= {"watch": "true", "timeoutSeconds": max(1, round(wait_s))}
        within = aiohttp.ClientTimeout(total=wait_s + WATCH_SLACK_S, sock_connect=ANSWER_TIMEOUT_S)
        try:
            async with self._ask(path, query, within) as response:
                async for line in response.content:
                    event = _object(line)
                    if event.get("type") == "ERROR":
                        raise _refused(path, event.get("object"))
                    yield event
        except self._failures as error:
            raise _unanswered(path, error) from error

    @asynccontextmanager
    async def _ask(
        self, path: str, query: Mapping[str, str | int], within: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        response: aiohttp.ClientResponse = await self._client.call_api(
            path,
            "GET",
            query_params=list(query.items()),
            header_params={"Accept": "application/json"},
            auth_settings=["BearerToken"],
            _preload_content=False,
            _request_timeout=within,
        )
        try:
            if response.status != 200:
                raise _refused(path, await response.read(), response.status)
            yield response
        finally:
            response.close()


@asynccontextmanager
async def connect() -> AsyncGenerator[Api, None]:
    """The API server of the cluster we run in, or of the kubeconfig where we run in none.

    Raises:
        NotConnected: there is neither, or no client library.
    """
    try:
        from kubernetes_asyncio import client, config  # noqa: PLC0415  (an extra; 40 MB)
    except ImportError:
        raise NotConnected("install lodestar-extproc[kubernetes] to watch Kubernetes") from None
    settings = client.Configuration()
    try:
        if SERVICE_ACCOUNT_HOST in os.environ:
            await asyncio.to_thread(config.load_incluster_config, settings)
        else:
            await config.load_kube_config(client_configuration=settings)
    except (config.ConfigException, OSError) as error:
        raise NotConnected(
            f"no Kubernetes API server: {error}; run in a pod with a service account, or name a "
            "kubeconfig in KUBECONFIG"
        ) from error
    async with client.ApiClient(settings) as api_client:
        yield Api(api_client, config.ConfigException)


def _object(data: bytes) -> Object:
    """The JSON object in *data*.

    Raises:
        ValueError: there is none.
    """
    value = orjson.loads(data)
    if not isinstance(value, dict):
        raise ValueError("an answer that is no JSON object")  # noqa: TRY004  (bad data, not a bug)
    return value


def _refused(path: str, status: object, code: int = 0) -> ApiError:
    """The error that a `Status` object tells, or the HTTP status where the body holds none."""
    said: Object = status if isinstance(status, dict) else {}
    if isinstance(status, bytes):
        try:
            said = _object(status)
        except ValueError:
            said = {}
    told = said.get("code")
    code = told if isinstance(told, int) else code
    problem = f"{path}: {said.get('message') or f'answered {code}'}"
    return Gone(problem, code) if code == 410 else ApiError(problem, code)


def _unanswered(path: str, error: Exception) -> ApiError:
    return ApiError(f"{path}: {str(error) or type(error).__name__}")
