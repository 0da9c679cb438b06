"""Builds the package: compiles proto/ into lodestar_extproc/generated, and modules where asked to.

With LODESTAR_COMPILE=1 in the environment mypyc makes the hook's `compiled` modules C extensions.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# The others are there for the types of what the compiled modules import.
COMPILER = ["mypy[mypyc]>=1.16", "setuptools>=77", "numpy>=2.0", "ruamel.yaml>=0.18", "xxhash>=3.5"]


class BuildHook(BuildHookInterface):
    def dependencies(self) -> list[str]:
        return COMPILER if self._compiles else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        _generate(root / "proto", root / "lodestar_extproc" / "generated")
        # Editable means that an edited file is what runs.
        if self._compiles and version != "editable" and self.target_name == "wheel":
            self._scratch = tempfile.TemporaryDirectory()
            built = _compile(root, self.config["compiled"], Path(self._scratch.name))
            build_data["force_include"].update(built)
            build_data.update(pure_python=False, infer_tag=True)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        if hasattr(self, "_scratch"):
            self._scratch.cleanup()

    @property
    def _compiles(self) -> bool:
        return os.environ.get("LODESTAR_COMPILE", "0") not in ("", "0")


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


def _compile(root: Path, paths: list[str], scratch: Path) -> dict[str, str]:
    """C extensions of the modules at *paths*, from *root*: where each lies, and belongs."""
    from mypyc.build import mypycify  # noqa: PLC0415  (only there while compiling)
    from setuptools import Distribution  # noqa: PLC0415
    from setuptools.errors import CCompilerError  # noqa: PLC0415

    os.chdir(root)  # where mypy looks for its settings
    mypy = ["--cache-dir", str(scratch / "mypy")]
    extensions = mypycify([*mypy, *paths], opt_level="3", target_dir=str(scratch / "c"))
    built = scratch / "built"
    command = Distribution({"ext_modules": extensions}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(built), str(scratch / "objects")
    command.ensure_finalized()
    try:
        command.run()
    except CCompilerError as error:
        raise RuntimeError(
            f"LODESTAR_COMPILE needs a C compiler and Python's headers"
            f" (Debian: apt-get install gcc python3-dev): {error}"
        ) from error
    return {path: os.path.relpath(path, built) for path in command.get_outputs()}
