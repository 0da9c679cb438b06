"""What large and hostile bodies cost those who come beside them: `make bench-bodies`.

`serve` runs as a process of its own, without Envoy, so that what is measured is ours: one client
opens a small ext_proc stream every few milliseconds, another sends a large body from time to time.
For each kind and size: p99 of the small ones; the slowest that came while a large body was there,
median of the rounds, so that a neighbour's work counts once; the time to the large body's own
answer; and by how much the resident memory of the service and its reader process rose at most,
beside the promise of 4 times the body and 20 MiB. In brackets the same of a service that takes the
same bodies and does nothing with them: what grpc.aio costs by itself. `--against CHECKOUT` measures
the service of another checkout in turn, and shows it after a stroke.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import grpc
import numpy as np
from rich.console import Console
from rich.table import Table

from lodestar_extproc import names
from lodestar_extproc.demo.bootstrap import Ports, bootstrap
from lodestar_extproc.demo.processes import Processes, free_ports
from lodestar_extproc.generated.lodestar.v1 import envoy_pb2 as pb
from lodestar_extproc.transport.choice import DEFAULT_TRANSPORT, TRANSPORTS

MIB = 2**20
PROBE_INTERVAL_S = 0.005
SIZES_MIB = (1, 4, 10, 31)
MAX_ADDED_MS = 10.0
AFTERWARDS_S = 0.05
SAID = "The tide table of the harbour, read by {a}, [b] and \\\\c. "


def _chat(content: str) -> bytes:
    head = '{"model": "m", "stream": true, "messages": [{"role": "user", "content": '
    return f"{head}{content}}}]}}".encode()


def _agent(n_bytes: int) -> bytes:
    said = json.dumps({"role": "tool", "tool_call_id": "c", "content": SAID * 80})
    return f'{{"model": "m", "messages": [{",".join([said] * (n_bytes // len(said)))}]}}'.encode()


def _calls(n_bytes: int) -> bytes:
    arguments = json.dumps({"path": "src/tides/table.py", "offset": 120, "limit": 40})
    function = {"name": "read_file", "arguments": arguments}
    called = {"id": "call_1", "type": "function", "function": function}
    turns = json.dumps({"role": "assistant", "content": None, "tool_calls": [called]}) + ","
    turns += json.dumps({"role": "tool", "tool_call_id": "call_1", "content": SAID * 5})
    return f'{{"model": "m", "messages": [{",".join([turns] * (n_bytes // len(turns)))}]}}'.encode()


KINDS: Mapping[str, Callable[[int], bytes]] = {
    "one text": lambda n: _chat(json.dumps(SAID * (n // len(json.dumps(SAID))))),
    "an agent's chat": _agent,
    "many calls": _calls,
    "tiny parts": lambda n: _chat(f"[{'{},' * (n // 3)}0]"),
    "nested lists": lambda n: _chat(f"[{('[' * 300 + ']' * 300 + ',') * (n // 601)}0]"),
    "token ids": lambda n: f'{{"model": "m", "prompt": [{"12345," * (n // 6)}1]}}'.encode(),
    "an image": lambda n: _chat(
        f'[{{"type": "image_url", "image_url": {{"url": "data:image/png;base64,{"A" * n}"}}}}]'
    ),
    "escaped text": lambda n: _chat('"' + "\\u4f60" * (n // 6) + '"'),
}


class Asked(NamedTuple):
    """When a request began, and how long it took."""

    began_s: float
    took_s: float


def messages(body: bytes, path: str) -> tuple[bytes, bytes]:
    """The two messages of a request."""
    opening = pb.ProcessingRequest()
    sent = {":method": "POST", ":path": path, "content-length": str(len(body))}
    for key, value in sent.items():
        opening.request_headers.headers.headers.add(key=key.encode(), raw_value=value.encode())
    last = pb.ProcessingRequest(request_body=pb.HttpBody(body=body, end_of_stream=True))
    return opening.SerializeToString(), last.SerializeToString()


async def ask(channel: Any, sent: tuple[bytes, bytes]) -> Asked:
    """One request, until its decision."""
    call = channel.stream_stream(names.PROCESS_METHOD)()
    began_s = time.monotonic()  # of the machine: processes compare it
    for message in sent:
        await call.write(message)
        await call.read()
    asked = Asked(began_s, time.monotonic() - began_s)
    call.cancel()
    return asked


async def probe(target: str, seconds: float) -> None:
    """Ask small ones at a steady pace, whatever becomes of them; print their times."""
    small = messages(_chat('"hello"'), "/v1/chat/completions")
    async with grpc.aio.insecure_channel(target) as channel:
        asked: list[asyncio.Task[Asked]] = []
        await ask(channel, small)
        print("began", flush=True)
        until_s = time.perf_counter() + seconds
        while time.perf_counter() < until_s:
            asked.append(asyncio.create_task(ask(channel, small)))
            await asyncio.sleep(PROBE_INTERVAL_S)
        print(json.dumps(await asyncio.gather(*asked)))


def slowest_beside(large: Asked, small: list[Asked]) -> float:
    """Of the small ones that were under way while *large* was, and a little longer, seconds."""
    ended_s = large.began_s + large.took_s + AFTERWARDS_S
    beside = (s for s in small if s.began_s < ended_s and s.began_s + s.took_s > large.began_s)
    return max((each.took_s for each in beside), default=float("nan"))


class Bench:
    """One running service, and what it is asked."""

    def __init__(self, target: str, pid: int, rounds: int) -> None:
        self._target, self._pid, self._rounds = target, pid, rounds

    async def beside(self, body: bytes, path: str) -> dict[str, float]:
        """Small ones beside *body*, which is sent again and again."""
        before_mib, began = self._reset_peak(), asyncio.Event()
        sent = self._send(messages(body, path), began)
        small, own = await asyncio.gather(self._probed(0.7 * self._rounds + 0.5, began), sent)
        return {
            "p99_ms": 1e3 * float(np.percentile([each.took_s for each in small], 99)),
            "while_ms": 1e3 * float(np.nanmedian([slowest_beside(each, small) for each in own])),
            "own_ms": 1e3 * float(np.median([each.took_s for each in own])),
            "peak_mib": self._peak_mib() - before_mib,
        }

    async def _send(self, sent: tuple[bytes, bytes], began: asyncio.Event) -> list[Asked]:
        await began.wait()
        options = (("grpc.max_send_message_length", -1),)
        async with grpc.aio.insecure_channel(self._target, options=options) as channel:
            taken_s = []
            for _ in range(self._rounds):
                await asyncio.sleep(0.5)
                taken_s.append(await ask(channel, sent))
            return taken_s

    async def _probed(self, seconds: float, began: asyncio.Event) -> list[Asked]:
        """What a process of its own measures; *began* once it does."""
        command = [sys.executable, __file__, "--probe", self._target, "--seconds", str(seconds)]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        await process.stdout.readline()
        began.set()
        out, _ = await process.communicate()
        return [Asked(*each) for each in json.loads(out)]

    async def warm_up(self) -> None:
        """Have a process that reads long bodies begun, as a service has that gets any."""
        async with grpc.aio.insecure_channel(self._target) as channel:
            await ask(channel, messages(_agent(100_000), "/v1/chat/completions"))
        await asyncio.sleep(2.0)

    def _processes(self) -> list[int]:
        """The service and what it has begun."""
        tasks = Path(f"/proc/{self._pid}/task").glob("*/children")
        return [self._pid, *(int(pid) for each in tasks for pid in each.read_text().split())]

    def _reset_peak(self) -> float:
        for pid in self._processes():
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        return self._peak_mib()

    def _peak_mib(self) -> float:
        """The sum of what each held at most, if not at the same time."""
        statuses = (Path(f"/proc/{pid}/status").read_text() for pid in self._processes())
        return sum(int(status.partition("VmHWM:")[2].split()[0]) for status in statuses) / 1024


async def service(
    name: str, checkout: Path, processes: Processes, folder: Path, options: argparse.Namespace
) -> Bench:
    """The service of *checkout*, begun."""
    at, config = Ports(*free_ports(4)), folder / f"{name}.json"
    # Nobody listens there: all are unhealthy, and one is chosen all the same.
    engines = [(f"127.0.0.1:{port}", "h100") for port in free_ports(3)]
    config.write_text(json.dumps(bootstrap(at, engines, {"policy": "learned"})))
    admin = f"127.0.0.1:{at.lodestar_admin}"
    where = ["env", f"--chdir={checkout}", f"PYTHONPATH={checkout}"]
    command = [sys.executable, "-m", "lodestar_extproc", "serve", "--envoy-config", str(config)]
    which = ["--transport", options.transport, "--drain", "0"]
    pid = processes.start(name, [*where, *command, *which, "--admin", admin])
    async with aiohttp.ClientSession() as session:
        await processes.ready(session, f"http://{admin}/metrics")
    return Bench(f"127.0.0.1:{at.ext_proc}", pid, options.rounds)


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    (idle,) = free_ports(1)
    with Processes(folder) as processes:
        script = str(Path(__file__).with_name("do_nothing_extproc.py"))
        command = [sys.executable, script, f"127.0.0.1:{idle}", "127.0.0.1:1"]
        idle_pid = processes.start("do-nothing", command)
        benches = {"floor": Bench(f"127.0.0.1:{idle}", idle_pid, options.rounds)}
        checkouts = {"ours": Path(__file__).parent.parent, "other": options.against}
        for name, checkout in checkouts.items():
            if checkout is not None:
                benches[name] = await service(name, checkout, processes, folder, options)
                await benches[name].warm_up()
        results: dict[str, dict[str, Any]] = {}
        for kind in options.kinds:
            body_of = KINDS[kind]
            path = "/v1/completions" if kind == "token ids" else "/v1/chat/completions"
            for mib in options.sizes:
                body, name = body_of(mib * MIB), f"{kind}, {mib} MiB"
                found = {who: await bench.beside(body, path) for who, bench in benches.items()}
                results[name] = {**found, "allowed_mib": 4 * len(body) / MIB + 20}
                print(name, results[name], file=sys.stderr)
        return results


def is_kept(result: dict[str, Any]) -> bool:
    """Whether others were held up, and memory rose, no more than is promised."""
    ours, floor = result["ours"], result["floor"]
    added_ms, peak_mib = ours["p99_ms"] - floor["p99_ms"], ours["peak_mib"]
    return added_ms <= MAX_ADDED_MS and peak_mib <= max(result["allowed_mib"], floor["peak_mib"])


def show(results: dict[str, dict[str, Any]], console: Console) -> bool:
    """Print it; whether every promise is kept."""
    table = Table("ours (do-nothing's)", box=None)
    for name in ("others' p99, ms", "others' slowest", "its own, ms", "peak, MiB", "allowed"):
        table.add_column(name, justify="right")
    for name, result in results.items():
        ours, floor, other = result["ours"], result["floor"], result.get("other")
        others = dict.fromkeys(ours, "") if other is None else {k: f"/{other[k]:.0f}" for k in ours}
        cells = [f"{ours[key]:.0f}{others[key]} ({floor[key]:.0f})" for key in ours]
        style = "" if is_kept(result) else "red"
        table.add_row(name, *cells, f"{result['allowed_mib']:.0f}", style=style)
    console.print(table)
    return all(map(is_kept, results.values()))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=6, help="large bodies of each kind and size")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES_MIB, help="MiB")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=tuple(KINDS))
    parser.add_argument("--against", type=Path, help="another checkout, to be measured in turn")
    parser.add_argument("--transport", choices=TRANSPORTS, default=DEFAULT_TRANSPORT)
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=3.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        asyncio.run(probe(options.probe, options.seconds))
        return 0
    with tempfile.TemporaryDirectory(prefix="lodestar-bodies-") as folder:
        results = asyncio.run(measure(options, Path(folder)))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if show(results, Console(width=120)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
