"""Whether there is a compiled kernel, and what is said where there is none."""

import os
import random
import shutil
import subprocess
import sys
import zlib
from importlib import import_module
from pathlib import Path

import pytest

from lodestar_extproc.kernel import compiled
from lodestar_extproc.kernel.compiled import FoundKernel, find_kernel
from lodestar_extproc.metrics import Metrics
from lodestar_extproc.request import hash_blocks

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which(os.environ.get("CC", "cc"))
needs_a_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler is here")


@pytest.fixture
def build(tmp_path, monkeypatch):
    """The build hook's own way to compile, on a copy of the source."""
    monkeypatch.syspath_prepend(ROOT)
    folder = tmp_path / "lodestar_extproc" / "kernel"
    folder.mkdir(parents=True)
    shutil.copy(compiled.SOURCE, folder)
    monkeypatch.delenv("LODESTAR_KERNEL", raising=False)
    warnings = []
    compile_kernel = import_module("hatch_build").compile_kernel
    return lambda: (compile_kernel(tmp_path, warnings.append), warnings)


@needs_a_compiler
def test_what_the_build_compiles_is_found(build):
    library, warnings = build()

    found = find_kernel(library)
    assert (found.name, found.words, found.is_missed, warnings) == (
        "compiled",
        "the compiled kernel",
        False,
        [],
    )


@needs_a_compiler
def test_the_source_compiles_without_a_warning(tmp_path):
    strict = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-DLODESTAR_SOURCE=1"]
    made = subprocess.run(
        [COMPILER, *strict, "-c", compiled.SOURCE, "-o", tmp_path / "kernel.o"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (made.returncode, made.stderr) == (0, "")


@needs_a_compiler
def test_a_machine_without_products_of_128_bits_hashes_prompts_alike(tmp_path):
    library, prompt = tmp_path / "kernel.so", random.Random(1).randbytes(64 * 100)
    checksum = zlib.crc32(compiled.SOURCE.read_bytes())
    options = ["-shared", "-fPIC", f"-DLODESTAR_SOURCE={checksum}", "-U__SIZEOF_INT128__"]
    subprocess.run(
        [COMPILER, *options, "-o", library, compiled.SOURCE, "-lm"], check=True, text=True
    )

    kernel = find_kernel(library).kernel
    assert hash_blocks(prompt, 2**63 + 5, kernel) == hash_blocks(prompt, 2**63 + 5, kernel=None)


def test_without_a_compiler_the_package_is_built_without_a_kernel(build, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    library, (warning,) = build()

    assert library is None
    assert "plain Python computes: no-such-compiler" in warning


def test_a_kernel_that_is_required_and_cannot_be_compiled_fails_the_build(build, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("LODESTAR_KERNEL", "required")

    with pytest.raises(RuntimeError, match="LODESTAR_KERNEL=required, but no-such-compiler"):
        build()


@needs_a_compiler
def test_a_build_that_is_to_have_no_kernel_takes_an_old_one_away(build, monkeypatch):
    library, _ = build()
    monkeypatch.setenv("LODESTAR_KERNEL", "off")

    assert build() == (None, [])
    assert not library.exists()


@needs_a_compiler
def test_a_kernel_of_another_source_is_not_used(build, monkeypatch, tmp_path):
    library, _ = build()
    changed = tmp_path / "kernel.c"
    changed.write_text(compiled.SOURCE.read_text() + "\n")
    monkeypatch.setattr(compiled, "SOURCE", changed)

    found = find_kernel(library)
    assert found.kernel is None
    assert found.words == (
        "plain arithmetic: the compiled kernel is of another source; install the package again"
    )


@pytest.mark.parametrize("content", [b"", b"\x7fELF of another machine"])
def test_what_is_no_library_is_not_used(tmp_path, content):
    (tmp_path / "kernel.so").write_bytes(content)
    found = find_kernel(tmp_path / "kernel.so")

    assert found.kernel is None
    assert found.words.startswith("plain arithmetic: ")


@needs_a_compiler
def test_a_library_of_somebody_else_is_not_used(tmp_path):
    source, library = tmp_path / "other.c", tmp_path / "kernel.so"
    source.write_text("int nothing(void) { return 0; }\n")
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", library, source], check=True)

    assert "none of ours" in find_kernel(library).words


@pytest.mark.parametrize(
    ("wish", "words", "is_missed"),
    [
        ("", "plain arithmetic: no kernel was compiled", False),
        ("auto", "plain arithmetic: no kernel was compiled", False),
        ("off", "plain arithmetic, as LODESTAR_KERNEL=off asks for", False),
        ("required", "LODESTAR_KERNEL=required, but no kernel was compiled", True),
        ("yes", "LODESTAR_KERNEL is 'yes': it may be auto, off, required", True),
    ],
)
def test_where_there_is_none_it_is_said_why(tmp_path, wish, words, is_missed):
    found = find_kernel(tmp_path / "none.so", wish)

    assert (found.kernel, found.name, found.is_missed) == (None, "plain", is_missed)
    assert found.words.startswith(words)


def test_serve_does_not_begin_without_a_kernel_that_is_required(tmp_path):
    made = subprocess.run(
        [sys.executable, "-m", "lodestar_extproc", "serve", "--envoy-config", tmp_path / "none"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LODESTAR_KERNEL": "sure", "PYTHONPATH": str(ROOT)},
    )

    assert made.returncode == 2
    assert "error: LODESTAR_KERNEL is 'sure': it may be auto, off, required" in made.stderr


@pytest.mark.parametrize("name", ["plain", "compiled"])
def test_the_metrics_page_says_what_decides(monkeypatch, name):
    kernel = None if name == "plain" else compiled.Kernel(*[print] * 6)
    monkeypatch.setattr("lodestar_extproc.metrics.recorder.FOUND", FoundKernel(kernel, ""))

    assert f'kernel="{name}"' in Metrics().page().decode()
