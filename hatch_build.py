"""Builds the package: proto/ becomes lodestar_extproc/generated, and the kernel is compiled.

The kernel is one C file without Python's interface (lodestar_extproc/kernel), so one wheel serves
every Python of a platform. Without a C compiler the wheel is a pure one, and plain Python computes.
The environment's LODESTAR_KERNEL says otherwise: `off` never compiles, `required` fails where that
cannot be done. CC names the compiler.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.requirements import Requirement
from packaging.tags import platform_tags
from packaging.version import Version

COMPILER_OPTIONS = ("-std=c11", "-O2", "-fPIC", "-shared", "-ffp-contract=off")
"""The last keeps sums as they are written: fused ones would differ from numpy's."""


class BuildHook(BuildHookInterface):
    """Generates protobuf code; refuses to where the protobuf that is allowed is too old for it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        generated = root / "lodestar_extproc" / "generated"
        _generate(root / "proto", generated)
        _check_floor(generated, self.metadata.core.dependencies)
        if self.target_name != "wheel":
            return
        library = compile_kernel(root, self.app.display_warning)
        if library is not None and version != "editable":
            build_data["artifacts"].append(str(library.relative_to(root)))
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_platform_of(library)}"


def compile_kernel(root: Path, warn: Callable[[str], None] = print) -> Path | None:
    """The compiled kernel, beside its source; None for none.

    Raises:
        RuntimeError: it is required, and cannot be compiled.
    """
    source = root / "lodestar_extproc" / "kernel" / "kernel.c"
    library, wish = source.with_suffix(".so"), os.environ.get("LODESTAR_KERNEL", "")
    library.unlink(missing_ok=True)  # what is there was compiled from another source
    if wish == "off":
        return None
    compiler = os.environ.get("CC", "cc")
    checksum = zlib.crc32(source.read_bytes())
    try:
        subprocess.run(  # noqa: S603  (the builder's own compiler)
            [
                *(compiler, *COMPILER_OPTIONS, f"-DLODESTAR_SOURCE={checksum}"),
                *("-o", str(library), str(source), "-lm"),
            ],
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        problem = getattr(error, "stderr", None) or str(error)
        if wish == "required":
            raise RuntimeError(f"LODESTAR_KERNEL=required, but {compiler}: {problem}") from error
        warn(f"no kernel is compiled, plain Python computes: {compiler}: {problem}")
        return None
    return library


def _platform_of(library: Path) -> str:
    """Its tag; with glibc by the newest version of it that the library asks for (PEP 600)."""
    asked = [int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", library.read_bytes())]
    if platform.system() == "Linux" and asked:
        return f"manylinux_2_{max(17, *asked)}_{platform.machine()}"
    return next(platform_tags()).replace("manylinux", "linux")


def _generate(proto: Path, out: Path) -> None:
    from grpc_tools import protoc  # noqa: PLC0415  (only there while building)

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    sources = sorted(str(p) for p in proto.rglob("*.proto"))
    status = protoc.main(
        [
            "protoc",
            f"-I{proto}",
            f"-I{files('grpc_tools') / '_proto'}",
            f"--python_out={out}",
            f"--pyi_out={out}",
            *sources,
        ]
    )
    if status != 0:
        raise RuntimeError(f"protoc failed on {', '.join(sources)}")
    for folder in (out, *(p for p in out.rglob("*") if p.is_dir())):
        (folder / "__init__.py").touch()


def _check_floor(generated: Path, dependencies: list[str]) -> None:
    """Generated code refuses to run on an older protobuf than the one it was generated for.

    Raises:
        RuntimeError: pyproject.toml allows such a one.
    """
    needed = max(
        Version(found)
        for file in generated.rglob("*_pb2.py")
        for found in re.findall(
            r"^# Protobuf Python Version: (\S+)$", file.read_text(), re.MULTILINE
        )
    )
    floor = next(
        Version(clause.version)
        for requirement in map(Requirement, dependencies)
        if requirement.name == "protobuf"
        for clause in requirement.specifier
        if clause.operator == ">="
    )
    if floor < needed:
        raise RuntimeError(
            f"the generated code needs protobuf {needed}, and pyproject.toml allows {floor}: build"
            " with the grpcio-tools of [build-system], or raise the floor of protobuf with it"
        )
