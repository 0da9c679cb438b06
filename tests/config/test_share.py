"""The setting `share`: which stores it names, and what is said of one that it does not."""

from __future__ import annotations

import pytest

from lodestar_extproc.config import PoolSettings
from lodestar_extproc.config.setting import SettingError
from lodestar_extproc.config.share import ShareTarget, parse_share

GOOD = {
    "redis://cache": ShareTarget((("cache", 6379),)),
    "valkey://cache:7000/3": ShareTarget((("cache", 7000),), db=3),
    "rediss://u:p%40ss@cache:6380?ca=/ca.pem": ShareTarget(
        (("cache", 6380),), tls=True, username="u", password="p@ss", ca="/ca.pem"
    ),
    "redis://:secret@[fd00::1]:6379": ShareTarget((("fd00::1", 6379),), password="secret"),
    "redis+sentinel://a,b:26380/main?prefix=x": ShareTarget(
        (("a", 26379), ("b", 26380)), master="main", prefix="x"
    ),
    "rediss+sentinel://a/main": ShareTarget((("a", 26379),), master="main", tls=True),
    "redis+cluster://a:1,b:2,c?frame_ms=50": ShareTarget(
        (("a", 1), ("b", 2), ("c", 6379)), frame_s=0.05
    ),
    "valkeys+cluster://a": ShareTarget((("a", 6379),), tls=True),
    "unix://u:p%40ss@/run/redis.sock": ShareTarget(
        socket="/run/redis.sock", username="u", password="p@ss"
    ),
    "unix:///run/redis.sock?frame_ms=20": ShareTarget(socket="/run/redis.sock", frame_s=0.02),
}
BAD = {
    "cache:6379": "no store",
    "http://cache": "no store",
    "redis://": "no host",
    "unix://run/redis.sock": "named in full",
    "unix:": "named in full",
    "redis://cache:port": "host:port",
    "redis://cache:70000": "host:port",
    "redis://cache/zero": "number of a database",
    "redis+sentinel://cache": "no master",
    "redis://cache?frame_ms=0": "frame_ms",
    "redis://cache?frame_ms=soon": "frame_ms",
    "redis://cache?frames=3": "no option 'frames'",
}


@pytest.mark.parametrize("url", GOOD)
def test_a_store_is_read(url):
    assert parse_share(url) == GOOD[url]


@pytest.mark.parametrize("url", BAD)
def test_what_is_no_store_is_refused_with_a_word(url):
    with pytest.raises(SettingError, match=BAD[url]):
        PoolSettings(share=url)


@pytest.mark.parametrize("url", ["redis://:hidden@cache/zero", "redis://u:hidden@cache:x"])
def test_no_error_repeats_a_password(url):
    with pytest.raises(SettingError) as caught:
        PoolSettings(share=url)
    assert "hidden" not in str(caught.value)


def test_a_store_is_named_without_its_password():
    assert str(parse_share("redis://u:hidden@cache:1/2")) == "cache:1"
    assert str(parse_share("redis+sentinel://:hidden@a,b/main")) == "a:26379,b:26379/main"
