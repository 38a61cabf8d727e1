"""fastnn without CUDA: nothing of it is imported, nor missed where it is not installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastnn.errors import DeviceError
from fastnn.runtime import _cuda

ROOT = Path(__file__).resolve().parents[2]

BLOCKED = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("cuda", "numba_cuda") or name.startswith("numba.cuda"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
"""


def python(code: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_no_cuda() -> None:
    code = """
import sys
import fastnn as fnn
from fastnn import callbacks, data, nn, ops, optim
fnn.Trainer
import fastnn.runtime._cuda, fastnn.runtime.cuda.compiler, fastnn.testing.kernels
import fastnn.kernels.elementwise.cuda
print(sorted(m for m in sys.modules if m.split(".")[0] in ("cuda", "numba_cuda", "numba")))
"""
    assert python(code) == "[]\n"


def test_training_works_without_the_packages() -> None:
    code = """
import numpy as np
import fastnn as fnn
from fastnn import nn, optim
x, y = np.ones((64, 20), "f4"), np.arange(64) % 10
model = nn.Sequential(nn.Linear(20, 128), nn.ReLU(), nn.Linear(128, 10))
history = fnn.Trainer(model, "cross_entropy", optim.Adam()).fit(x, y, verbose=False)
assert np.isfinite(history["loss"][0])
from fastnn.runtime import _cuda
print(_cuda.available(), _cuda.reason())
"""
    answer = python(BLOCKED + code)
    assert answer.startswith("False the CUDA packages are not installed: pip install")


VERSIONS = {
    "numba-cuda": ("0.29.1", r"numba-cuda 0.29.1 is too old; .*: pip install 'numba-cuda"),
    "cuda-core": ("0.9.9", r"cuda-core 0.9.9 is too old; .*: pip install 'cuda-core>=1.0'"),
    "numpy": ("2.5.0", r"numba-cuda does not work with NumPy 2.5.0.*: pip install 'numpy<2.5'"),
}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Sets the versions of packages that `_cuda` sees."""

    def set_versions(**versions: str) -> None:
        found = {"numba-cuda": "0.30.4", "cuda-core": "1.0.0", "numpy": "2.4.6"}
        found.update({name.replace("_", "-"): version for name, version in versions.items()})
        monkeypatch.setattr(_cuda, "_version", lambda name: found.get(name, ""))
        monkeypatch.setattr(_cuda, "installed", lambda: True)
        monkeypatch.setattr(_cuda, "_found", lambda name: True)
        _cuda.unfit.cache_clear()

    reason = _cuda.reason.__wrapped__
    monkeypatch.setattr(_cuda, "reason", reason)
    monkeypatch.setattr(_cuda, "extension", _cuda.extension.__wrapped__)
    yield set_versions
    _cuda.unfit.cache_clear()


@pytest.mark.parametrize("package", VERSIONS)
@pytest.mark.parametrize("simulated", ["0", "1"])
def test_unfit_packages_are_refused(
    installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch, package: str, simulated: str
) -> None:
    """A version that would fail later, in words of its own, is refused with the remedy."""
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", simulated)
    version, message = VERSIONS[package]
    installed(**{package.replace("-", "_"): version})
    if package == "cuda-core" and simulated == "1":  # the simulator does without
        assert _cuda.unfit() == ""
        return
    assert re.search(message, _cuda.reason())
    for use in (_cuda.core, _cuda.numba_cuda, _cuda.extension):
        with pytest.raises(DeviceError, match=message):
            use()


@pytest.mark.parametrize("version", ["1.0.0", "1.2.2", "10.0", "1.0.0rc1"])
def test_fit_packages_are_taken(installed: Callable[..., None], version: str) -> None:
    installed(cuda_core=version)
    assert _cuda.unfit() == ""


def test_kernels_are_declared_without_the_packages() -> None:
    code = """
import sys
from fastnn.kernels import topics
from fastnn.kernels.declare import CUDA_KERNELS
topics.load("cuda")
print(len(CUDA_KERNELS))
"""
    assert int(python(BLOCKED + code)) > 100


@pytest.mark.parametrize("kernel", ["relu_forward"])
def test_a_direct_call_says_what_to_do(kernel: str) -> None:
    code = f"""
import numpy as np
import fastnn.kernels.elementwise.cuda
from fastnn.kernels.declare import CUDA_KERNELS
try:
    CUDA_KERNELS["{kernel}"].function(np.ones((2, 2)), np.ones((2, 2)))
except RuntimeError as error:
    print(error)
"""
    assert "call_cuda" in python(BLOCKED + code)
