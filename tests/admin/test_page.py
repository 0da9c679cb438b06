"""The page as a browser shows it: every part is filled, on a wide screen and on a phone."""

from __future__ import annotations

import asyncio
import re
import shutil
from importlib import resources

import pytest

from lodestar_extproc.admin.history import PoolHistory
from lodestar_extproc.admin.server import AdminServer
from lodestar_extproc.events.change import ChangeKind
from lodestar_extproc.events.event_log import EventLog
from lodestar_extproc.gain.gain_watch import GainWatch
from metrics_world import World

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
AA_RATIO = 4.5  # WCAG 2.2, 1.4.3, for text of this size


async def rendered(url: str, width: int) -> str:
    """The document once its scripts have run."""
    process = await asyncio.create_subprocess_exec(
        *(str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *(f"--window-size={width},900", "--virtual-time-budget=6000", "--dump-dom", url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(120):
        out, _ = await process.communicate()
    return out.decode()


def table(document: str, name: str) -> str:
    return re.search(rf'<table id="{name}">(.*?)</table>', document, re.DOTALL).group(1)


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here (apt-get install chromium)")
@pytest.mark.parametrize("width", [1280, 390])
async def test_every_part_of_the_page_is_filled(width):
    events = EventLog()
    world: World | None = None
    history = PoolHistory(lambda: 100.0 if world is None else world.now_s)
    gain = GainWatch(lambda: world.router.settings)
    world = World(burn_in_samples=1, shadow_policies=("random",), listeners=[history, gain])
    server = AdminServer(
        world.metrics,
        lambda: [world.view()],
        events,
        lambda: {"pool": gain.gains()},
        clock=lambda: world.now_s,
    )
    server.histories["pool"] = history
    world.router.listeners.add(server.decisions)
    for _ in range(3):
        world.serve(60)
        history.look(world.view(), gain.gains)
    events.tell(ChangeKind.ENDPOINT_DOWN, "endpoint <b>x</b> is down", pool="pool", endpoint="x")
    port = await server.start("127.0.0.1:0")
    server.set_ready(ready=True)
    try:
        document = await rendered(f"http://127.0.0.1:{port}/", width)
    finally:
        await server.stop()

    assert document.count("<canvas") == 4
    assert "endpoint &lt;b&gt;x&lt;/b&gt; is down" in table(document, "events")
    assert table(document, "endpoints").count("<tr") == 1 + 3
    assert table(document, "decisions").count('<button class="why"') == 20
    assert "beside random (shadow)" in table(document, "gains")
    assert "burn_in_samples" in table(document, "settings")
    assert table(document, "minutes").count("<tr") == 1 + len(history.minutes())
    assert ">serving<" in document
    assert re.search(r'id="lost"[^>]*hidden', document)


# -- contrast --


def luminance(colour: str) -> float:
    """Relative, by WCAG."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (
        c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def mixed(colour: str, ground: str, share: float) -> str:
    parts = (
        round(share * int(colour[i : i + 2], 16) + (1 - share) * int(ground[i : i + 2], 16))
        for i in (1, 3, 5)
    )
    return "#" + "".join(f"{part:02x}" for part in parts)


def contrast(text: str, ground: str) -> float:
    light, dark = sorted((luminance(text), luminance(ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def themes() -> dict[str, dict[str, str]]:
    page = resources.files("lodestar_extproc.admin").joinpath("dashboard.html").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", page, re.DOTALL)[:2]
    return {
        name: dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
        for name, block in (("light", light), ("dark", dark))
    }


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_pills_and_links_have_the_contrast_of_aa(theme):
    colours = themes()[theme]
    low = {}
    for name in ("text", "dim", "blue"):
        for ground in ("card", "back"):
            low[name, ground] = contrast(colours[name], colours[ground])
    for name in ("green", "amber", "red", "violet", "grey", "blue"):
        for ground in ("card", "back"):
            pill = mixed(colours[name], colours[ground], 0.14)
            low[f"pill {name}", ground] = contrast(colours[name], pill)

    assert {which: round(ratio, 2) for which, ratio in low.items() if ratio < AA_RATIO} == {}
