"""get(): what the admin server of a running service answers."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import Any

import orjson

TIMEOUT_S = 5.0  # for an answer of the admin page, which takes milliseconds


class NoAnswer(Exception):  # noqa: N818  (the condition's name)
    """The admin server did not answer as one; the message says what to do."""


class NoSuchDecision(Exception):  # noqa: N818  (the condition's name)
    """The decision is not known there, or no longer."""


def get(admin: str, path: str) -> dict[str, Any]:
    """What the admin server at *admin* answers for *path*.

    Raises:
        NoSuchDecision: it does not know the decision.
        NoAnswer: it does not answer, or something else does.
    """
    url = (admin if "://" in admin else f"http://{admin}").rstrip("/") + path
    if not url.startswith(("http://", "https://")):
        raise NoAnswer(f"{admin} is no HTTP address; for example http://127.0.0.1:9090")
    # An operator's own server is not behind a proxy, whatever the environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT_S) as response:
            found = orjson.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            said = _error_in(error.read())
        if error.code == 404 and said:
            raise NoSuchDecision(said) from None
        raise NoAnswer(f"{url} answered {error.code}: is it Lodestar's admin server?") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise NoAnswer(
            f"no answer from {url} ({reason}); is `lodestar-extproc serve` running there, "
            "and --admin its --admin?"
        ) from None
    if not isinstance(found, dict):
        raise NoAnswer(f"{url} is not Lodestar's admin server")
    return found


def _error_in(body: bytes) -> str:
    """What the server says is wrong; empty where it is not ours."""
    try:
        return str(orjson.loads(body)["error"])
    except (ValueError, LookupError, TypeError):
        return ""
