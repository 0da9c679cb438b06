"""Real vLLM servers as processes: how one is started, asked and signalled.

It knows vLLM's options, not what is in front of the servers.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import aiohttp
from cells import CPU_BLOCK_TOKENS

MODEL = "model"
OFFLINE = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
START_TIMEOUT_S = 300.0
CPUINFO = Path("/proc/cpuinfo")
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
EAGER = ("--enforce-eager",)
CUDA_GRAPHS = (
    "--compilation-config",
    # Graphs without a compilation, which takes minutes; up to as many tokens as are often decoded
    # at once. What is longer is bound by its arithmetic anyway.
    json.dumps(
        {
            "mode": 0,
            "cudagraph_mode": "FULL",
            "cudagraph_capture_sizes": [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512],
        }
    ),
)
# Answers its cache's reset, which gives every policy the same cold start.
DEVELOPMENT = {"VLLM_SERVER_DEV_MODE": "1"}


@dataclass(frozen=True)
class EnginePlan:
    """One server to start.

    Attributes:
        kind: servers of one kind are equally fast.
        environment: beside our own.
    """

    name: str
    kind: str
    port: int
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"


def server_command(
    python: str, model: Path, port: int, *options: str, execution: Sequence[str] = EAGER
) -> tuple[str, ...]:
    """vLLM's OpenAI server on loopback.

    Args:
        execution: EAGER or CUDA_GRAPHS. Eager steps are bound by the host's processors: some 20 ms
            each whatever the GPU.
    """
    return (
        *(python, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(model), "--served-model-name", MODEL),
        *("--host", "127.0.0.1", "--port", str(port)),
        *execution,
        "--enable-prompt-tokens-details",
        "--disable-uvicorn-access-log",
        *options,
    )


def cpu_dtype() -> str:
    """What a model computes in: bfloat16 where the processor does, as elsewhere it is emulated.

    Without those instructions a prefill takes a third of the time in float32.
    """
    flags = set(CPUINFO.read_text().split())
    return "bfloat16" if flags & BFLOAT16_FLAGS else "float32"


def cpu_engine(
    folder: Path, model: str, port: int, core: int, *options: str, kv_cache_mib: int = 64
) -> EnginePlan:
    """A server of the environment that setup_cpu.sh makes in *folder*, on one core.

    Args:
        kv_cache_mib: in bfloat16; doubled in float32, which holds the same tokens.
    """
    dtype = cpu_dtype()
    kv_cache_mib *= 2 if dtype == "float32" else 1
    command = server_command(
        str(folder / "venv/bin/python"),
        folder / "models" / model,
        port,
        *("--max-model-len", "8192", "--block-size", str(CPU_BLOCK_TOKENS), "--dtype", dtype),
        *("--kv-cache-memory-bytes", f"{kv_cache_mib}M"),
        *options,
    )
    environment = {
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_CPU_OMP_THREADS_BIND": str(core),
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_LOOPBACK_IP": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "VLLM_CACHE_ROOT": str(folder / "cache" / str(port)),
        # Our other processes' thread counts are none of its business.
        "OMP_NUM_THREADS": "1",
    }
    return EnginePlan(f"{model}-{core}", model, port, command, environment)


@dataclass(frozen=True)
class Engine:
    """A server that was started; its process group is its own.

    It can outlive the program that started it, which then finds it again by `remembered`.
    """

    plan: EnginePlan
    pid: int
    process: subprocess.Popen[bytes] | None = None

    def alive(self) -> bool:
        if self.process is not None:
            return self.process.poll() is None
        return Path(f"/proc/{self.pid}").exists()

    def signal(self, number: int) -> None:
        """Send *number* to the whole group."""
        os.killpg(self.pid, number)

    def workers(self) -> list[int]:
        """Processes that compute, deepest first: not the one that speaks HTTP."""
        return [pid for pid in reversed(_group(self.pid)) if pid != self.pid]

    def cpu_s(self) -> float:
        """Processor time of the whole group."""
        ticks = sum(_cpu_ticks(pid) for pid in _group(self.pid))
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self, patience_s: float = 20.0) -> None:
        """Ask it to end, and end the whole group if it does not. Idempotent."""
        with suppress(ProcessLookupError):
            self.signal(signal.SIGTERM)
        given_up_s = time.monotonic() + patience_s
        while self.alive() and time.monotonic() < given_up_s:
            time.sleep(0.1)
        self.kill()

    def kill(self) -> None:
        """End the whole group. Idempotent."""
        with suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()


def start(plan: EnginePlan, folder: Path) -> Engine:
    """Start it, its output in *folder*; it is not ready yet."""
    with (folder / f"{plan.name}.log").open("ab") as log:
        process = subprocess.Popen(
            plan.command,
            env=os.environ | OFFLINE | DEVELOPMENT | plan.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Engine(plan, process.pid, process)


async def ready(engines: Sequence[Engine], timeout_s: float = START_TIMEOUT_S) -> None:
    """Wait until all of them answer.

    Raises:
        RuntimeError: one has ended.
        TimeoutError: one took too long.
    """
    async with asyncio.timeout(timeout_s), aiohttp.ClientSession() as session:
        for engine in engines:
            while not await _answers(session, f"{engine.plan.url}/health"):
                if not engine.alive():
                    raise RuntimeError(f"{engine.plan.name} ended while it started; see its log")
                await asyncio.sleep(0.25)


async def reset_caches(engines: Sequence[Engine]) -> None:
    """Empty every prefix cache."""
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        for engine in engines:
            async with session.post(f"{engine.plan.url}/reset_prefix_cache"):
                pass


def remember(engines: Sequence[Engine], path: Path) -> None:
    """So that another program finds them."""
    known = [{"plan": asdict(engine.plan), "pid": engine.pid} for engine in engines]
    path.write_text(json.dumps(known, indent=1))


def remembered(path: Path) -> list[Engine]:
    """Those of `remember` that still live."""
    if not path.exists():
        return []
    known = json.loads(path.read_text())
    plans = [EnginePlan(**each["plan"]) for each in known]
    engines = [Engine(plan, each["pid"]) for plan, each in zip(plans, known, strict=True)]
    return [engine for engine in engines if engine.alive()]


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=5.0)) as response:
            return response.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


def _group(leader: int) -> list[int]:
    """Process ids of a group, oldest first."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            stat = _stat(int(entry.name))
            if stat and int(stat[2]) == leader:
                found.append((int(stat[19]), int(entry.name)))
    return [pid for _, pid in sorted(found)]


def _cpu_ticks(pid: int) -> int:
    stat = _stat(pid)
    return int(stat[11]) + int(stat[12]) if stat else 0


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []
