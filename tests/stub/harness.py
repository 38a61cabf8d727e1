"""Programs run on a stand-in for NVIDIA's driver, and what the driver was asked to do.

The stand-in (`driver.c`) keeps device memory on the host, runs no kernel, and checks what the real
driver would check. It is compiled with the machine's C compiler; a machine without one skips these
tests with that reason.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from fastnn.runtime import _cuda

#: what every script begins with
PRELUDE = """
import numpy as np
import fastnn as fnn
from fastnn import nn, ops, optim
from fastnn.train.report import Report

Report.result = lambda report, totals, what: report.values(totals)  # no kernel has counted a row
rng = np.random.default_rng(0)

def data(rows, *shape, classes=4, steps=()):
    x = rng.standard_normal((rows, *shape)).astype(np.float32)
    return x, rng.integers(0, classes, (rows, *steps))

def section(name):
    import os
    with open(os.environ["STUB_LOG"], "a") as log:
        print("# " + name, file=log)
"""


@dataclass(frozen=True)
class Ran:
    """What a script printed, how it ended, and the driver's log."""

    output: str
    status: int
    log: list[str]

    @property
    def mistakes(self) -> list[str]:
        """What the driver would have refused."""
        return [line for line in self.log if line.startswith("!")]

    @property
    def left(self) -> dict[str, int]:
        """What was not given back when the process ended."""
        last = next(line for line in reversed(self.log) if line.startswith("exit "))
        return {name: int(n) for name, n in re.findall(r"(\w+)=(\d+)", last)}

    def section(self, name: str) -> list[str]:
        """The log from this section's beginning to the next one's."""
        begin = self.log.index(f"# {name}") + 1
        rest = self.log[begin:]
        ends = (k for k, line in enumerate(rest) if line.startswith("# "))
        return rest[: next(ends, len(rest))]


def numbers(line: str) -> dict[str, int]:
    """The numbers of a line of the log, by name."""
    return {name: int(n) for name, n in re.findall(r"(\w+)=(\d+)(?![\d,])", line)}


def compiler() -> str:
    """The machine's C compiler."""
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        pytest.skip("there is no C compiler (cc, gcc or clang) for the stand-in of the driver")
    return found


@functools.cache
def driver() -> Path:
    """The folder of the stand-in; compiled once for a test run."""
    if sys.platform != "linux" or not _cuda.installed():
        pytest.skip("the CUDA packages are not installed")
    folder = Path(tempfile.mkdtemp(prefix="fastnn-stub-"))
    source = Path(__file__).with_name("driver.c")
    command = [compiler(), "-shared", "-fPIC", "-O1", "-o", str(folder / "libcuda.so.1")]
    made = subprocess.run(
        [*command, str(source), "-ldl", "-lpthread"], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    return folder


@functools.cache
def nccl() -> Path:
    """The stand-in for NCCL, in the driver's folder."""
    if importlib.util.find_spec("nccl") is None:
        pytest.skip("nccl4py is not installed")
    library = driver() / "libnccl.so.2"
    command = [
        compiler(),
        "-shared",
        "-fPIC",
        "-O1",
        "-Wl,-soname,libnccl.so.2",
        "-o",
        str(library),
    ]
    made = subprocess.run(
        [*command, str(Path(__file__).with_name("nccl.c")), "-ldl"], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    return library


def run(script: str, preloaded: Path | None = None, **settings: object) -> Ran:
    """Run a script on the stand-in, with settings such as ``CC="7.5"`` (see `driver.c`), and with
    another library loaded before all."""
    folder = driver()
    log = Path(tempfile.mkstemp(prefix="log-", dir=folder)[1])
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("FASTNN_DEVICE", "NUMBA_ENABLE_CUDASIM", "NUMBA_DISABLE_JIT")
    }
    environment |= {"LD_LIBRARY_PATH": str(folder), "STUB_LOG": str(log)}
    if preloaded is not None:  # whatever the machine has of it
        environment["LD_PRELOAD"] = str(preloaded)
    environment |= {f"STUB_{name}": str(value) for name, value in settings.items()}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    return Ran(done.stdout + done.stderr, done.returncode, log.read_text().splitlines())
