"""SteppedClock: the time of day of one process, which jumps when it is told to."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("stepped_clock.c")
COMPILER = shutil.which("cc")
STEP_BYTES = 8  # a signed number, as the source reads it


class SteppedClock:
    """For a process that is started in `environment`; the machine's clock stays as it is.

    Needs a C compiler. The monotonic clock does not jump: that is what it is for.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock_step"
        self.step(0)
        library = folder / "stepped_clock.so"
        command = [str(COMPILER), "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-ldl"]
        subprocess.run(command, check=True)
        self.environment = {"LD_PRELOAD": str(library), "STEPPED_CLOCK_FILE": str(self._file)}

    def step(self, by_s: int) -> None:
        """The time of day is *by_s* ahead of the machine's from now on."""
        mode = "r+b" if self._file.exists() else "wb"
        with self._file.open(mode) as file:  # in place: the process has it mapped
            file.write(by_s.to_bytes(STEP_BYTES, "little", signed=True))
