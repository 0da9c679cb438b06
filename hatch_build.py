"""Builds the package: compiles proto/ into lodestar_extproc/generated."""

from __future__ import annotations

import re
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.requirements import Requirement
from packaging.version import Version


class BuildHook(BuildHookInterface):
    """Generates protobuf code; refuses to where the protobuf that is allowed is too old for it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        root = Path(self.root)
        generated = root / "lodestar_extproc" / "generated"
        _generate(root / "proto", generated)
        _check_floor(generated, self.metadata.core.dependencies)


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
