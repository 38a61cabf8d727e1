"""What gets installed, and what an import costs."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from fastnn.cli import shipping
from fastnn.runtime.cpu import ahead

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("fastnn", "kernels")


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def installed_name(path: Path) -> str:
    """`kernels/…` installs as `fastnn/kernels/…`."""
    name = path.relative_to(ROOT).as_posix()
    return f"fastnn/{name}" if name.startswith("kernels") else name


def source_folder(package: str) -> str:
    path = package.replace(".", "/")
    return path.removeprefix("fastnn/") if path.startswith("fastnn/kernels") else path


def test_packages_are_the_folders(project):
    folders = {
        installed_name(path.parent).replace("/", ".")
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
    }
    packages = project["tool"]["setuptools"]["packages"]
    assert sorted(packages) == sorted(folders)
    assert packages == sorted(packages)
    missing = [p for p in folders if not (ROOT / source_folder(p) / "__init__.py").is_file()]
    assert missing == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy, so that the working tree stays clean."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed")
    source = tmp_path_factory.mktemp("source")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    ahead.ensure(shipping.common())  # in the cache, where other tests have use for them
    build = "from setuptools import build_meta; build_meta.build_wheel('.')"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False,
        env={**os.environ, "FASTNN_BUILD_TARGETS": "native", "FASTNN_SHIPPED": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(source.glob("*.whl"))) as archive:
        yield archive


def test_wheel_installs_only_fastnn(wheel):
    top_level = next(name for name in wheel.namelist() if name.endswith("top_level.txt"))
    assert wheel.read(top_level).decode().split() == ["fastnn"]
    roots = {name.split("/")[0].split("-")[0] for name in wheel.namelist()}
    assert roots == {"fastnn", "fastnn_numba"}  # the latter is the wheel's own information


def test_wheel_holds_every_file(wheel):
    expected = {
        installed_name(path) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")
    }
    names = {name for name in wheel.namelist() if name.startswith("fastnn/")}
    assert names == expected | {"fastnn/py.typed", "fastnn/objects/native.zip"}
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


FIRST = """
import sys
import numpy as np
import fastnn as fnn
from fastnn import nn
from fastnn.runtime.cpu import compiler

class Last(nn.Module):
    def forward(self, x):
        return x[:, -1]

def train(x, *layers):
    trainer = fnn.Trainer(nn.Sequential(*layers), "cross_entropy", "adam", metrics=["accuracy"])
    y = np.zeros(len(x), np.int64)
    trainer.fit(x, y, batch_size=32, validation=(x, y), verbose=False)
    trainer.model.predict(x)

train(np.zeros((64, 784), "f4"), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
train(np.zeros((64, 784), "u1"), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
train(np.zeros((64, 9, 30), "f4"), nn.LSTM(30, 64), Last(), nn.Linear(64, 5))
print(fnn.__file__, compiler.compiled_count, "numba" in sys.modules)
"""


def test_a_first_training_compiles_nothing(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    with zipfile.ZipFile(tmp_path / "site" / "fastnn" / "objects" / "native.zip") as pack:
        # code that refers to functions of Numba's has it imported, but for that of `reshape`
        others = re.compile(rb"numba_(?!attempt_nocopy_reshape\b)")
        assert [name for name in pack.namelist() if others.search(pack.read(name))] == []
        # nor does it name folders of the machine that built it
        place = re.compile(rb"\w[/\\\\]\w+\.py\b")
        assert [name for name in pack.namelist() if place.search(pack.read(name))] == []
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path / "site"),
        "FASTNN_CACHE": str(tmp_path / "cache"),
        "FASTNN_SHIPPED": "1",
        "FASTNN_POISON": "0",
    }
    done = subprocess.run(
        [sys.executable, "-P", "-c", FIRST], env=environment, capture_output=True, text=True,
        cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    where, compiled, numba = done.stdout.split()
    assert Path(where).is_relative_to(tmp_path)
    assert (compiled, numba) == ("0", "False")


def lines_with(pattern: str) -> list[str]:
    found = re.compile(pattern)
    return [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for folder in (*FOLDERS, "tests", "benchmarks", "examples")
        for file in sorted((ROOT / folder).rglob("*.py"))
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if found.search(line)
    ]


def text_files() -> list[Path]:
    folders = (*FOLDERS, "tests", "benchmarks", "examples", "docs", ".ci")
    endings = {".py", ".md", ".sh", ".toml", ".yml", ".yaml", ".txt", ".cfg", ""}
    found = [p for f in folders for p in sorted((ROOT / f).rglob("*")) if p.suffix in endings]
    return [p for p in [*found, ROOT / "README.md", ROOT / "Makefile"] if p.is_file()]


def test_nothing_sends_users_to_another_package():
    """The distribution "fastnn" on PyPI is somebody else's; extras come from the checkout."""
    wrong = re.compile(
        r"(pip|uv|pipx|conda) (install|add)[^#]*[\s\"'`]fastnn(?![\w.-])|\bfast" + r"nn\[\w"
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in text_files()
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").split("\n"), 1
        )
        if wrong.search(line)
    ]
    assert found == []


def test_distribution_has_a_name_of_its_own(project):
    assert project["project"]["name"] == "fastnn-numba"
    assert "`fastnn-numba`" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_cuda_hint_is_the_extra(project):
    from fastnn.runtime import _cuda

    extras = project["project"]["optional-dependencies"]
    wanted = [_cuda.NUMBA_CUDA, _cuda.CUDA_CORE, _cuda.NUMPY]
    assert extras["cuda13"] == wanted
    assert extras["cuda12"] == [w.replace("cu13", "cu12") for w in wanted]
    assert {re.sub(r";.*", "", e) for e in extras["test"]} >= set(wanted)
    for number in ("12", "13"):
        package, library = extras[f"nccl{number}"]
        assert f"pip install '{package}'" in _cuda.NCCL
        assert library in _cuda.NCCL


def test_no_machine_paths():
    assert lines_with(r"(?<![\w.])/(?:home|root|work|Users|opt)/\w|\b[A-Z]:\\\\\w") == []


def test_kernels_are_imported_by_their_installed_name():
    # a bare `kernels` would make a second copy of every module
    assert lines_with(r"^\s*(?:import|from) kernels\b") == []


def test_import_is_light():
    heavy = {"fastnn.data.digits", "jax", "matplotlib", "numba", "scipy", "sklearn", "torch"}
    code = (
        "import json, sys; before = set(sys.modules); import fastnn; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stdout))
    assert "fastnn" in modules
    assert modules & heavy == set()


def test_files_of_tests_that_come_first_are_there():
    from tests.conftest import LONG

    assert [name for name in LONG if not (ROOT / "tests" / name).is_file()] == []
