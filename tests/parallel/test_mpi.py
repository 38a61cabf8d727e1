"""Training under a real MPI, where one is installed (``pip install mpi4py mpich``)."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fastnn import parallel
from tests.parallel import works

SCRIPT = """
import hashlib, json, pathlib, sys
from fastnn import parallel
from tests.parallel import works
group = parallel.mpi()
found = getattr(works, sys.argv[1])(group)
if found is not None:
    _, parameters, losses = found
    text = json.dumps([{name: a.hex() for name, a in parameters.items()}, losses])
    pathlib.Path(sys.argv[2], f"found{group.rank}").write_text(text)
"""


def launcher() -> str:
    """The command that starts processes of MPI's."""
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None or importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py and an MPI library are not installed (pip install mpi4py mpich)")
    return found


def start(work: str, processes: int, folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        [launcher(), "-n", str(processes), sys.executable, "-c", SCRIPT, work, str(folder)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("processes", [2, 4])
def test_the_bits_are_those_of_shared_memory(processes: int, tmp_path: Path) -> None:
    status, output = start("train", processes, tmp_path)
    assert status == 0, output
    want: list[Any] = parallel.run(works.train, processes=processes)
    for rank, (_, parameters, losses) in enumerate(want):
        found = json.loads((tmp_path / f"found{rank}").read_text())
        assert found == [{name: a.hex() for name, a in parameters.items()}, losses]


@pytest.mark.parametrize(
    ("work", "text"),
    [
        ("fails", "ValueError: no data here"),
        ("has_fewer_steps", "process 0 has ended while others were in the middle"),
        ("has_another_model", r"gradients of one model in all processes, got [3, 4] numbers"),
        ("has_another_seed", "got others in process 1"),
        ("dies", ""),
    ],
)
def test_a_process_that_fails_ends_all(work: str, text: str, tmp_path: Path) -> None:
    status, output = start(work, 2, tmp_path)
    assert status != 0
    assert text in output
