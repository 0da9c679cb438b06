"""Fleets of vLLM instances that share GPUs, each with its part of a card's multiprocessors."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from types import MappingProxyType

from engines import CUDA_GRAPHS, EAGER, EnginePlan, server_command

from lodestar_extproc.demo.processes import free_ports


@dataclass(frozen=True)
class GpuFleet:
    """Instances on GPUs.

    Attributes:
        cards: of each GPU the MPS shares of its instances in percent; GPUs beyond these begin with
            the first again.
        kv_blocks: of 16 tokens, in each instance's cache.
        memory_ratio: of a card's memory for each instance.
        across: shares of instances that span all GPUs, by tensor parallelism.
    """

    cards: tuple[tuple[int, ...], ...]
    kv_blocks: int
    memory_ratio: float = 0.2
    across: tuple[int, ...] = ()

    def instances(self, gpus: Sequence[str]) -> list[tuple[tuple[str, ...], int]]:
        """The GPUs and the share of each instance on *gpus*."""
        within = [
            ((gpu,), share) for gpu, shares in zip(gpus, cycle(self.cards)) for share in shares
        ]
        return [*((tuple(gpus), share) for share in self.across), *within]


# Small enough that not every prompt fits everywhere.
SMALL_KV_BLOCKS = 3000
# As many as fit a card beside four of the small ones.
WHOLE_KV_BLOCKS = 9000
# Instances of 8 billion parameters that start side by side: three fit a card.
PAIR_MEMORY_RATIO = 0.3
FLEETS: Mapping[str, GpuFleet] = MappingProxyType(
    {
        "unequal": GpuFleet(((40, 25, 15, 10),), SMALL_KV_BLOCKS),
        "equal": GpuFleet(((25, 25, 25, 25),), SMALL_KV_BLOCKS),
        "whole": GpuFleet(((100,),), WHOLE_KV_BLOCKS, 0.45),
        # Two whole cards beside parts of two others, which nobody else uses.
        "whole_mixed": GpuFleet(((100,), (100,), (50,), (25,)), WHOLE_KV_BLOCKS, 0.45),
        # Of two cards: whole ones, and a whole one beside one that two instances share.
        "pair": GpuFleet(((100,),), WHOLE_KV_BLOCKS, PAIR_MEMORY_RATIO),
        "pair_mixed": GpuFleet(((100,), (50, 25)), WHOLE_KV_BLOCKS, PAIR_MEMORY_RATIO),
        # One instance on both halves beside one on each other half.
        "pair_tensor": GpuFleet(((50,),), WHOLE_KV_BLOCKS, PAIR_MEMORY_RATIO, across=(50,)),
    }
)
TOKEN_BUDGET = 2048
MPS_VARIABLES = ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")


def gpu_plans(fleet: GpuFleet, asked: argparse.Namespace) -> list[EnginePlan]:
    """Those of *fleet*, by the options of `compare_on_gpu.py`."""
    mps = start_mps(asked.folder)
    instances = fleet.instances(asked.gpus)
    ports = free_ports(len(instances))
    plans = []
    for i, ((gpus, share), port) in enumerate(zip(instances, ports, strict=True)):
        command = server_command(
            sys.executable,
            asked.model,
            port,
            *("--max-model-len", "16384"),
            *("--max-num-batched-tokens", str(TOKEN_BUDGET)),
            # At once, their memory profiling would see each other.
            *("--num-gpu-blocks-override", str(fleet.kv_blocks)),
            *("--gpu-memory-utilization", str(fleet.memory_ratio)),
            *("--tensor-parallel-size", str(len(gpus))),
            execution=CUDA_GRAPHS if asked.graphs else EAGER,
        )
        environment = mps | {
            "PYTHONPATH": asked.engine_path,
            "CUDA_VISIBLE_DEVICES": ",".join(gpus),
            "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": str(share),
            # Engines that start side by side would take each other's.
            "VLLM_PORT": str(inner_port(asked.fleet, gpus[0], i)),
            # Its kernels are not installed here.
            "VLLM_USE_FLASHINFER_SAMPLER": "0",
            "VLLM_CACHE_ROOT": str(asked.folder / "cache" / str(i)),
        }
        kind = f"mps{share}" if len(gpus) == 1 else f"{len(gpus)}xmps{share}"
        plans.append(EnginePlan(f"{asked.fleet}{i}-{kind}", kind, port, command, environment))
    return plans


def inner_port(fleet: str, gpu: str, instance: int) -> int:
    """The first of those that an instance's own processes use: no other's, and no client's."""
    return 20_000 + 3_000 * int(gpu) + 330 * list(FLEETS).index(fleet) + 20 * instance


def start_mps(folder: Path) -> dict[str, str]:
    """Start NVIDIA's multi-process service, if it does not run; where programs find it.

    Where CUDA_MPS_PIPE_DIRECTORY is set, one runs: several comparisons share it, one a GPU.
    """
    known = {name: os.environ[name] for name in MPS_VARIABLES if name in os.environ}
    if "CUDA_MPS_PIPE_DIRECTORY" in known:
        return known
    pipes, logs = folder / "mps", folder / "mps-logs"
    where = {"CUDA_MPS_PIPE_DIRECTORY": str(pipes), "CUDA_MPS_LOG_DIRECTORY": str(logs)}
    if not pipes.exists():
        pipes.mkdir()
        logs.mkdir()
        subprocess.run(
            ["nvidia-cuda-mps-control", "-d"],
            env=os.environ | where,
            check=True,
            start_new_session=True,
        )
    return where
