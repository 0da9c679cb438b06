"""Whether what was built is what strangers should get: says what is wrong, and ends with status 1.

usage: check_dist.py FOLDER        (with an sdist, a pure wheel, and one with the kernel)
"""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from pathlib import Path

from packaging.metadata import Metadata
from packaging.requirements import Requirement

IN_WHEEL = (
    "lodestar_extproc/py.typed",
    "lodestar_extproc/commands/cli.py",
    "lodestar_extproc/generated/lodestar/v1/envoy_pb2.py",
    "lodestar_extproc/generated/lodestar/v1/envoy_pb2.pyi",
    "lodestar_extproc/config/envoy_schema.json",
    "lodestar_extproc/setup/files/envoy.yaml",
    "lodestar_extproc/setup/files/istio.yaml",
    "lodestar_extproc/kernel/kernel.c",
)
KERNEL = "lodestar_extproc/kernel/kernel.so"
PURE = "-none-any.whl"
IN_SDIST = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "proto/lodestar/v1")
PACKAGE = "lodestar_extproc"


def main() -> None:
    folder = Path(sys.argv[1])
    wheels, (sdist,) = sorted(folder.glob("*.whl")), folder.glob("*.tar.gz")
    found = [problem for wheel in wheels for problem in problems_of_wheel(wheel)]
    found += problems_of_sdist(sdist)
    if sorted(wheel.name.endswith(PURE) for wheel in wheels) != [False, True]:
        found.append(f"{folder} should hold a pure wheel and one with the kernel")
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    if found:
        raise SystemExit(1)
    names = ", ".join(each.name for each in (*wheels, sdist))
    print(f"{names} are as they should be")


def problems_of_wheel(wheel: Path) -> list[str]:
    """What is missing, what is too much, and where its metadata is not what it says."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        information = next(name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(information)
        generated = archive.read(IN_WHEEL[2]).decode() if IN_WHEEL[2] in names else ""
    own = information.partition("/")[0]
    found = [f"{wheel.name} lacks {name}" for name in IN_WHEEL if name not in names]
    found += [
        f"{wheel.name} holds {name}, which is none of the package"
        for name in names
        if not name.startswith((f"{PACKAGE}/", f"{own}/"))
    ]
    if wheel.name.endswith(PURE) == (KERNEL in names):
        found.append(f"{wheel.name} says of the kernel what is not so")
    return found + _problems_of_metadata(metadata, generated)


def problems_of_sdist(sdist: Path) -> list[str]:
    """What it lacks to be built from."""
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    return [
        f"{sdist.name} lacks {needed}"
        for needed in IN_SDIST
        if not any(name.startswith(needed) for name in names)
    ]


def _problems_of_metadata(text: bytes, generated: str) -> list[str]:
    try:
        metadata = Metadata.from_email(text, validate=True)
    except ExceptionGroup as group:
        return [f"METADATA: {error}" for error in group.exceptions]
    found = []
    if metadata.description_content_type != "text/markdown" or not metadata.description:
        found.append("METADATA: the description is not the README")
    needed = re.search(r"^# Protobuf Python Version: (\S+)$", generated, re.MULTILINE)
    if needed is not None and f">={needed[1]}" not in _specifier(
        metadata.requires_dist, "protobuf"
    ):
        found.append(f"METADATA: the generated code needs protobuf>={needed[1]}")
    return found


def _specifier(requirements: list[Requirement] | None, name: str) -> str:
    return next((str(r.specifier) for r in requirements or () if r.name == name), "")


if __name__ == "__main__":
    main()
