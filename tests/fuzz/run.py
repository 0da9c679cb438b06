"""Coverage-guided fuzzing by atheris, target after target; prints what was run as JSON.

PYTHONPATH=tests/support python tests/fuzz/run.py --seconds 600 [--target wire] [--corpus DIR]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import atheris
from guidance import GUIDED_BY

LONGEST_INPUT_S = 1.0
"""Of a core: what holds the event loop for longer is a finding."""
MAX_MEMORY_MIB = 2048
EXECUTED = re.compile(r"stat::number_of_executed_units: (\d+)")
PEAK_MIB = re.compile(r"stat::peak_rss_mb: +(\d+)")
COVERED = re.compile(r"cov: (\d+)")


class Watched:
    """Runs one target and keeps an input of each kind of failure, and goes on.

    A kind is where it was raised: the same fault is met thousands of times.
    """

    def __init__(self, check, folder: Path) -> None:
        self._check = check
        self._folder = folder
        self._known = {path.stem for path in folder.glob("*.txt")}

    def __call__(self, data: bytes) -> None:
        began_s = time.process_time()
        try:
            self._check(data)
        except Exception as error:  # noqa: BLE001  (any of them is what is looked for)
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__} {Path(where.filename).name}:{where.lineno}"
            self._keep(said, traceback.format_exc(), data)
        if time.process_time() - began_s > LONGEST_INPUT_S:
            self._keep("slow", f"{time.process_time() - began_s} s", data)

    def _keep(self, kind: str, said: str, data: bytes) -> None:
        name = hashlib.sha256(kind.encode()).hexdigest()[:12]
        if name in self._known:
            return
        self._known.add(name)
        (self._folder / f"{name}.bin").write_bytes(data)
        (self._folder / f"{name}.txt").write_text(f"{kind}\n{said}")


def fuzz(name: str, seconds: int, corpus: Path) -> None:
    """Fuzz one target in this process, which libFuzzer then ends."""
    with atheris.instrument_imports(include=list(GUIDED_BY[name])):
        from fuzz_targets import TARGETS  # noqa: PLC0415
        from mutations import MAX_INPUT_BYTES, with_another_value  # noqa: PLC0415

    def mutate(data: bytes, max_bytes: int, seed: int) -> bytes:
        """Every other time a value of the JSON in it, for bytes alone hardly keep it one."""
        changed = with_another_value(data, random.Random(seed)) if seed % 2 else None
        return atheris.Mutate(data, max_bytes) if changed is None else changed[:max_bytes]

    logging.disable(logging.CRITICAL)  # what is wrong with an input is no news here
    kept, findings = corpus / name, corpus / "findings" / name
    kept.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds()):
        (kept / f"seed-{number:03}").write_bytes(seed[:MAX_INPUT_BYTES])
    options = {
        "max_total_time": seconds,
        "max_len": MAX_INPUT_BYTES,
        "timeout": 20,
        "rss_limit_mb": MAX_MEMORY_MIB,
        "artifact_prefix": f"{findings}/",
        "print_final_stats": 1,
    }
    said = [f"-{option}={value}" for option, value in options.items()]
    watched = Watched(TARGETS[name].check, findings)
    atheris.Setup([sys.argv[0], *said, str(kept)], watched, custom_mutator=mutate)
    atheris.Fuzz()


def in_memory() -> Path | None:
    """Where files are in memory; None where there is no such place."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() else None


def fuzz_apart(name: str, seconds: int, corpus: Path) -> dict[str, object]:
    """Fuzz one target in a process of its own; what came of it."""
    command = [sys.executable, __file__, "--alone", name, "--seconds", str(seconds)]
    began_s = time.monotonic()
    command += ["--corpus", str(corpus)]
    with tempfile.TemporaryDirectory(prefix="lodestar-fuzz-", dir=in_memory()) as folder:
        inside = {**os.environ, "TMPDIR": folder}
        ended = subprocess.run(
            command, env=inside, check=False, capture_output=True, text=True, errors="replace"
        )
    executed = EXECUTED.search(ended.stderr)
    covered, peak = COVERED.findall(ended.stderr), PEAK_MIB.search(ended.stderr)
    findings = [p.read_text() for p in sorted((corpus / "findings" / name).glob("*.txt"))]
    if executed is None or ended.returncode:
        findings.append(f"ended with {ended.returncode}\n{ended.stderr[-4000:]}")
    return {
        "executions": int(executed[1]) if executed else 0,
        "seconds": round(time.monotonic() - began_s, 1),
        "covered": int(covered[-1]) if covered else None,
        "peak_mib": int(peak[1]) if peak else None,
        "findings": findings,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="of all targets together")
    parser.add_argument("--target", action="append", help="one of them; all by default")
    parser.add_argument("--corpus", type=Path, default=Path("out/fuzz"), help="inputs kept")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone:
        fuzz(asked.alone, asked.seconds, asked.corpus)
    names = asked.target or list(GUIDED_BY)
    if unknown := set(names) - set(GUIDED_BY):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(GUIDED_BY)}")
    each_s = max(1, asked.seconds // len(names))
    results = {}
    for name in names:
        results[name] = fuzz_apart(name, each_s, asked.corpus)
        print(f"{name}: {results[name]}", file=sys.stderr, flush=True)
    executions = sum(result["executions"] for result in results.values())
    n_findings = sum(len(result["findings"]) for result in results.values())
    totals = {"executions": executions, "findings": n_findings}
    print(json.dumps({"targets": results, "totals": totals}, indent=1))
    return 1 if n_findings else 0


if __name__ == "__main__":
    sys.exit(main())
