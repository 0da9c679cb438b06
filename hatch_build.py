"""Compiles proto/ into lodestar_extproc/generated when the package is built or installed."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ProtoBuildHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        from grpc_tools import protoc  # noqa: PLC0415  (only there while building)

        root = Path(self.root)
        out = root / "lodestar_extproc" / "generated"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        sources = sorted(str(p) for p in (root / "proto").rglob("*.proto"))
        status = protoc.main(
            [
                "protoc",
                f"-I{root / 'proto'}",
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
