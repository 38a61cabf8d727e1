"""Runs the tests of CUDA kernels and of the CUDA runtime in the simulator, the longest files each
in a process of its own, the others some twenty seconds together: a start costs one to two.

Numba decides on the simulator when it is imported, so the tests can't run beside the others.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastnn.runtime import _cuda

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    str(path.relative_to(ROOT))
    for folder in ("tests/kernels/cuda", "tests/cuda")
    for path in sorted((ROOT / folder).glob("test_*.py"))
]
#: those that run together, kernels' and the runtime's apart, as on a device
TOGETHER = [
    *(
        [f"tests/kernels/cuda/test_{name}.py" for name in names.split()]
        for names in (
            "attention barriers beam bounds convolution crf ctc ctc_decode descent device",
            "elementwise guard joined norm pair_loss random",
            "rows stop strided transducer transducer_search update wavenet",
        )
    ),
    *(
        [f"tests/cuda/test_{name}.py" for name in names.split()]
        for names in ("again full_batch guards larger_data", "pretraining recurrent",
                      "regularisation runtime sizes")
    ),
]  # fmt: skip
SHARED = [file for group in TOGETHER for file in group]
#: without other packages' plugins for pytest, of which loading costs a second
ENVIRONMENT = {"NUMBA_ENABLE_CUDASIM": "1", "COLUMNS": "100", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


@pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed"
)
@pytest.mark.skipif(_cuda.available(), reason="these tests run on the CUDA device here")
@pytest.mark.parametrize(
    "files",
    [*(pytest.param([f], id=f) for f in FILES if f not in SHARED),
     *(pytest.param(group, id=f"{group[0]} and others") for group in TOGETHER)],
)  # fmt: skip
def test_in_the_simulator(files: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **ENVIRONMENT},
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, f"{output[-20_000:]}"
    idle = [f for f in files if not re.search(rf"^{re.escape(f)}::.* PASSED", output, re.M)]
    assert idle == [], f"no test of these ran:\n{output}"
    print(f"{files}: {output.strip().splitlines()[-1]}")  # noqa: T201


def test_files_that_run_together_are_there() -> None:
    """pytest would end with an error, but not say that a file is not run at all."""
    assert set(SHARED) < set(FILES)
    assert len(set(SHARED)) == len(SHARED)
