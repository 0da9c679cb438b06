"""ShareTarget: the store through which replicas share, as the setting `share` writes it.

    redis://[user:password@]host[:6379][/db]        one server
    rediss://...                                    the same by TLS
    redis+sentinel://h1:26379,h2:26379/master       the master that sentinels name; rediss+sentinel
    redis+cluster://h1:6379,h2:6379                 any node of a cluster; rediss+cluster
    unix://[user:password@]/run/redis.sock
    valkey://..., valkeys://...                     the same as redis and rediss, everywhere

and after a `?`, with `&` between them: `prefix` of the channels' names, `frame_ms` between two
frames, and `ca`, `cert` and `key`, files for TLS. It opens nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from lodestar_extproc.config.setting import SettingError

DEFAULT_FRAME_MS, LEAST_FRAME_MS, MOST_FRAME_MS = 30.0, 5.0, 1000.0
"""A frame costs a third of a millisecond on either side: 30 ms is 1 % of a core a replica, and less
than an engine's step or two, by which load is out of date anyhow (docs/results/replicas.md)."""
DEFAULT_PREFIX = "lodestar"
DEFAULT_PORT, SENTINEL_PORT = 6379, 26379  # Redis's own
_SCHEMES = ("redis", "redis+sentinel", "redis+cluster")
_OPTIONS = ("prefix", "frame_ms", "ca", "cert", "key")


@dataclass(frozen=True, slots=True)
class ShareTarget:
    """Where to share, and how.

    Attributes:
        hosts: `(host, port)` of the server, of sentinels, or of nodes; empty with *socket*.
        hub: that passes frames on between workers of one `serve`; there is no store then.
        master: that sentinels are asked for; empty without sentinels.
        prefix: of the names of channels.
        ca, cert, key: files for TLS; empty for the system's authorities and no certificate.
    """

    hosts: tuple[tuple[str, int], ...] = ()
    socket: str = ""
    hub: Path | None = None
    master: str = ""
    tls: bool = False
    username: str = ""
    password: str = ""
    db: int = 0
    prefix: str = DEFAULT_PREFIX
    frame_s: float = DEFAULT_FRAME_MS / 1000.0
    ca: str = ""
    cert: str = ""
    key: str = ""

    def __str__(self) -> str:
        """For logs: without the password."""
        if self.hub is not None:
            return "the hub of workers"
        at = self.socket or ",".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{at}/{self.master}" if self.master else at


def parse_share(url: str) -> ShareTarget:
    """The store that *url* names.

    Raises:
        ValueError: it names none; the text says what is wrong and never repeats a password.
    """
    parts = urlsplit(url)
    options = _options(parts.query)
    prefix = options.get("prefix", DEFAULT_PREFIX)
    frame_s = _frame_s(options.get("frame_ms", ""))
    user, _, at = parts.netloc.rpartition("@")
    username, _, password = map(unquote, user.partition(":"))
    if parts.scheme == "unix":
        return ShareTarget(
            socket=_socket_path(at + parts.path),
            username=username,
            password=password,
            prefix=prefix,
            frame_s=frame_s,
        )
    redis = parts.scheme.replace("valkey", "redis", 1)
    tls = redis.startswith("rediss")
    scheme = redis.replace("rediss", "redis", 1)
    if scheme not in _SCHEMES:
        raise ValueError(
            f"{parts.scheme or 'nothing'!r} is no store: write redis://host:6379, rediss:// for "
            "TLS, redis+sentinel://host:26379/master or redis+cluster://host:6379"
        )
    sentinel = scheme.endswith("+sentinel")
    path = parts.path.strip("/")
    if sentinel and not path:
        raise ValueError("it names no master: write redis+sentinel://host:26379/mymaster")
    if path and not sentinel and not path.isdecimal():
        raise ValueError(f"the path {path!r} is no number of a database")
    return ShareTarget(
        hosts=tuple(_host(each, SENTINEL_PORT if sentinel else DEFAULT_PORT) for each in _list(at)),
        master=path if sentinel else "",
        tls=tls,
        username=username,
        password=password,
        db=int(path) if path and not sentinel else 0,
        prefix=prefix,
        frame_s=frame_s,
        ca=options.get("ca", ""),
        cert=options.get("cert", ""),
        key=options.get("key", ""),
    )


def check_share(url: str) -> None:
    """Refuse a store that cannot be shared through.

    Raises:
        SettingError: *url* names none, or there is no client for it.
    """
    try:
        parse_share(url)
    except ValueError as error:
        raise SettingError("share", str(error)) from None
    if find_spec("redis") is None:
        raise SettingError(
            "share", "its client is not installed: pip install 'lodestar-extproc[redis]'"
        )


def _socket_path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("the file of a socket is named in full: write unix:///run/redis.sock")
    return text


def _list(hosts: str) -> list[str]:
    found = [each.strip() for each in hosts.split(",") if each.strip()]
    if not found:
        raise ValueError("it names no host: write redis://host:6379")
    return found


def _host(text: str, default_port: int) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(default_port)
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(f"{text!r} is no host:port")
    return host.strip("[]"), int(port)


def _options(query: str) -> dict[str, str]:
    options = {name: values[-1] for name, values in parse_qs(query).items()}
    for name in options.keys() - set(_OPTIONS):
        raise ValueError(f"it has no option {name!r}; there are {', '.join(_OPTIONS)}")
    return options


def _frame_s(text: str) -> float:
    if not text:
        return DEFAULT_FRAME_MS / 1000.0
    try:
        frame_ms = float(text)
    except ValueError:
        frame_ms = 0.0
    if not LEAST_FRAME_MS <= frame_ms <= MOST_FRAME_MS:
        raise ValueError(f"frame_ms is from {LEAST_FRAME_MS:g} to {MOST_FRAME_MS:g}, not {text!r}")
    return frame_ms / 1000.0


def is_local(address: str) -> bool:
    """Whether an address is of this machine alone.

    >>> is_local("127.0.0.2:9002"), is_local("unix:/run/s"), is_local("cache:6379")
    (True, True, False)
    """
    return address.startswith(("unix", "127.", "[::1]:", "::1:", "localhost:"))
